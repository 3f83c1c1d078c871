"""Reads messages from a person: line editing and history by readline, several lines as one message."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from tenth.cli.prompt import MOST_INPUT_BYTES
from tenth.cli.terminal import is_terminal
from tenth.errors import RequestError

HISTORY_LINES = 2000
FENCE = '"""'


class Editor:
    """Gives one message after the other. ``live``: a person types; otherwise lines come from a pipe or file."""

    def __init__(self, history: bool, read_line: Callable[[str], str] | None = None):
        self.live = read_line is not None or is_terminal(sys.stdin)
        self.keeps = history and self.live and read_line is None
        self.read_line = read_line or (_typed if self.live else _piped)
        self.file: Path | None = None

    def __enter__(self) -> Editor:
        if self.keeps:
            self._open_history()
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is None:
            return
        import readline

        try:
            readline.set_history_length(HISTORY_LINES)
            readline.write_history_file(self.file)
        except OSError:
            pass  # a full or read-only disk must not spoil the end of a chat

    def _open_history(self) -> None:
        import readline

        from tenth.library.store import library_folder

        path = library_folder() / "chat_history"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            readline.read_history_file(path)
        except (OSError, UnicodeDecodeError):
            return
        self.file = path

    def read(self) -> str | None:
        """The next message, or None at the end of the input. Raises KeyboardInterrupt for Ctrl-C."""
        try:
            line = self.read_line(">>> ")
        except EOFError:
            if self.live:
                print(file=sys.stderr)
            return None
        if line.strip().startswith(FENCE):
            return self._fenced(line.strip()[len(FENCE):])
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            try:
                lines.append(self.read_line("... "))
            except EOFError:
                break
        return "\n".join(lines)

    def _fenced(self, first: str) -> str:
        """Lines up to one that ends in three quotation marks, or the end of the input."""
        if first.endswith(FENCE):
            return first[: -len(FENCE)]
        lines = [first] if first else []
        while True:
            try:
                line = self.read_line("... ")
            except EOFError:
                break
            if line.rstrip().endswith(FENCE):
                lines.append(line.rstrip()[: -len(FENCE)])
                break
            lines.append(line)
        return "\n".join(lines).rstrip("\n")


def _typed(prompt: str) -> str:
    """A line from the terminal. With standard output redirected, the prompt goes to standard error."""
    import readline  # noqa: F401  (importing it gives input() line editing)

    try:
        if is_terminal(sys.stdout):
            return input(prompt)
        sys.stderr.write(prompt)
        sys.stderr.flush()
        return input()
    except UnicodeDecodeError:
        raise RequestError("the line is not UTF-8", "check the terminal's encoding (LANG, LC_ALL)") from None


def _piped(prompt: str) -> str:
    """A line from a pipe; raises EOFError at its end and RequestError when it is not UTF-8 or endless."""
    if sys.stdin is None:
        raise EOFError
    try:
        line = sys.stdin.readline(MOST_INPUT_BYTES)
    except UnicodeDecodeError as error:
        raise RequestError(f"standard input is not UTF-8: byte 0x{error.object[error.start]:02x}",
                           "convert it first, for example: iconv -f LATIN1 -t UTF-8") from None
    if not line:
        raise EOFError
    return line.removesuffix("\n")
