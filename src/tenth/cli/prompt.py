"""Where the prompt comes from: the command line, standard input, or both (instruction first, then the text)."""

from __future__ import annotations

import sys
from pathlib import Path

from tenth.cli.terminal import is_terminal
from tenth.errors import RequestError

MOST_INPUT_BYTES = 64 << 20  # far beyond any context; ends an endless pipe with a message instead of full memory


def gather(argument: str | None) -> str:
    """The prompt; "" when there is none (no argument, and a terminal or nothing on standard input).

    Piped text follows the argument after an empty line, so ``run MODEL "Summarise:" < file`` reads naturally.
    Raises RequestError for text that is not UTF-8.
    """
    given = checked(argument or "", "the prompt")
    piped = "" if is_terminal(sys.stdin) else read_input().rstrip("\n")
    return "\n\n".join(part for part in (given, piped) if part.strip())


def read_input() -> str:
    """All of standard input, unchanged. Raises RequestError when it is not UTF-8 or larger than 64 MiB."""
    if sys.stdin is None or sys.stdin.closed:
        return ""
    buffer = getattr(sys.stdin, "buffer", None)
    if buffer is None:  # replaced by text, as tests do
        return sys.stdin.read()
    return decoded(buffer.read(MOST_INPUT_BYTES + 1), "standard input")


def read_lines() -> list[str]:
    """The lines of standard input that are not empty. Raises RequestError when there are none, and as read_input."""
    lines = [line for line in read_input().split("\n") if line.strip()]
    if not lines:
        raise RequestError("there are no lines on standard input", "pipe in a text file, one text a line")
    return lines


def read_text_file(path: str, what: str) -> str:
    """A whole text file. Raises RequestError when it cannot be read or is not UTF-8."""
    try:
        with Path(path).open("rb") as file:
            return decoded(file.read(MOST_INPUT_BYTES + 1), f"{what} {path}")
    except OSError as error:
        raise RequestError(f"cannot read {what} {path}: {error.strerror}") from error


def decoded(raw: bytes, what: str) -> str:
    """``raw`` as text. Raises RequestError naming the first byte that is not UTF-8."""
    if len(raw) > MOST_INPUT_BYTES:
        raise RequestError(f"{what} is larger than {MOST_INPUT_BYTES >> 20} MiB", "give the part that matters")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = raw[error.start]
        raise RequestError(f"{what} is not UTF-8: byte 0x{bad:02x} at position {error.start}",
                           "convert it first, for example: iconv -f LATIN1 -t UTF-8") from None


def checked(text: str, what: str) -> str:
    """``text`` from the command line, refused when its bytes were not UTF-8 (Python keeps them as surrogates)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError(f"{what} is not UTF-8", "check the terminal's encoding (LANG, LC_ALL)") from None
    return text
