"""QR codes in a terminal: two cells in each character, light on dark whatever the terminal's colours are."""

from __future__ import annotations

import io
import sys

from tenth.cli.terminal import PLAIN, has_colour, is_terminal

WHITE_ON_BLACK = "\x1b[0;97;40m"


def show_code(text: str) -> None:
    """A code of the text on standard error, if that is a terminal that can show it."""
    err = sys.stderr
    if not is_terminal(err):
        return
    code = code_of(text)
    if has_colour(err):
        code = "".join(f"{WHITE_ON_BLACK}{line}{PLAIN}\n" for line in code.splitlines())
    try:
        err.write(code)
        err.flush()
    except (OSError, UnicodeEncodeError):  # the link stands below it
        pass


def code_of(text: str) -> str:
    """The code in block characters, where light cells are drawn."""
    import segno

    out = io.StringIO()
    segno.make(text, micro=False, error="l").terminal(out, border=2, compact=True)
    return out.getvalue()
