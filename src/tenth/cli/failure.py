"""Turns any exception into one line, a hint and an exit code: no stack trace unless ``--debug`` asked for one."""

from __future__ import annotations

import os
import sys

from tenth.cli.terminal import message
from tenth.errors import ModelFileError, RequestError, ResourceError, TenthError

INTERNAL = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
OUTPUT_CLOSED = 141  # 128 + SIGPIPE

DOCTOR = "tenth doctor shows what this machine has, and what is missing"
# Where an error says no way out of its own. What a command takes is added by its name.
USUAL_HINTS = {ModelFileError: "the file may be damaged or incomplete: get it again", ResourceError: DOCTOR}


def report(error: BaseException, command: str | None) -> int:
    """Prints ``error`` to standard error and gives the exit code. ``command``: for the hint of a wrong option."""
    if isinstance(error, BrokenPipeError):
        _drop_output()
        return OUTPUT_CLOSED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    what, hint, code = explain(error, command)
    try:
        flush_output()
    except OSError:
        _drop_output()
    say(f"tenth: {what}")
    if hint:
        say(f"hint: {hint}")
    return code


def explain(error: BaseException, command: str | None) -> tuple[str, str | None, int]:
    """(message, hint, exit code) of any exception."""
    usage = f"tenth {command} --help says what it takes" if command else "tenth --help lists the commands"
    if isinstance(error, TenthError):
        usual = usage if command and isinstance(error, RequestError) else USUAL_HINTS.get(type(error))
        return error.message, error.hint or usual, error.exit_code
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":  # typer's name for Ctrl-C and Ctrl-D
        return "interrupted", None, INTERRUPTED
    if hasattr(error, "format_message"):  # a wrong option or argument, found by typer
        # Typer indents a list of choices by tabs; pydantic begins what a check said with "Value error, ".
        said = " ".join(str(error.format_message()).split()).replace("Value error, ", "")
        return said.rstrip("."), usage, 2
    if isinstance(error, MemoryError):
        return "not enough memory", "close other programs, or use a smaller model or context", ResourceError.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", DOCTOR, ResourceError.exit_code
    what = f"internal error: {type(error).__name__}: {error}"
    return what, "this is a fault of tenth: run again with --debug and report what it prints", INTERNAL


def say(text: str) -> None:
    """``text`` as one line to standard error."""
    message(" ".join(text.splitlines()))


def flush_output() -> None:
    """Writes out what standard output still holds."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop_output() -> None:
    """Points standard output nowhere, so that Python's own flush at exit stays silent."""
    try:
        if sys.stdout is None or sys.stdout.fileno() != 1:  # replaced, as tests do
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    except (OSError, ValueError):
        pass
