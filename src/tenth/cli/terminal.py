"""Writing to people and to pipes: data on standard output, messages on standard error.

Text of a model or a file never reaches a terminal with its control characters: they could move the cursor, set the
title or the clipboard. In a pipe the text is passed on unchanged.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from tenth.errors import ResourceError

TYPE_CHECKING = False  # typing itself is not imported: `tenth --help` passes through here
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TextIO

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
# Control characters become their pictures (U+2400…); C1 and DEL too. Newline and tab stay.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def visible(text: str) -> str:
    """``text`` with every control character but newline and tab replaced by a picture of it."""
    return text.translate(_PICTURES)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether ``stream`` is open and a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def has_colour(stream: TextIO | None) -> bool:
    """Whether ``stream`` may get colours: a terminal, not a dumb one, and NO_COLOR (no-color.org) unset or empty."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write(text: str, dim: bool = False) -> None:
    """Data to standard output, at once. Raises ResourceError when it cannot be written, BrokenPipeError when the
    reader has gone."""
    out = sys.stdout
    if out is None or out.closed:
        raise ResourceError("standard output is closed", "redirect it to a file or to /dev/null")
    if is_terminal(out):
        text = visible(text)
        if dim and text and has_colour(out):
            text = f"{DIM}{text}{PLAIN}"
    try:
        out.write(text)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ResourceError(f"cannot write to standard output: {error.strerror}") from error


def write_line(text: str = "") -> None:
    """A line of data to standard output."""
    write(text + "\n")


def write_json(value: Any) -> None:
    """One JSON document to standard output, on one line unless it goes to a terminal."""
    import json

    indent = 2 if is_terminal(sys.stdout) else None
    write_line(json.dumps(value, ensure_ascii=False, indent=indent, default=str))


def message(text: str, dim: bool = False) -> None:
    """A line for the person, to standard error. A closed standard error is no reason to fail."""
    err = sys.stderr
    if err is None or err.closed:
        return
    text = visible(text)
    if dim and has_colour(err):
        text = f"{DIM}{text}{PLAIN}"
    try:
        err.write(text + "\n")
        err.flush()
    except OSError:
        pass


def table(rows: Sequence[tuple[str, ...]], right: frozenset[int] = frozenset()) -> str:
    """``rows`` in aligned columns, two spaces apart; columns in ``right`` are aligned to the right."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(w) if i in right else cell.ljust(w)
                 for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def figure(value: float) -> str:
    """A number in three digits, or whole where that takes more: ``0.0312``, ``45.6``, ``1,610``."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def in_units(n_bytes: float) -> str:
    """Bytes for people, in powers of 1000: ``1.42 GB``."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}" if n_bytes < 999.5 * size else f"{n_bytes / size:.0f} {unit}"
    return f"{n_bytes:.0f} B"


def expert_line(experts: Mapping[str, float]) -> str:
    """What streaming experts costs, of ``Model.expert_statistics()``."""
    waiting, computing = (100 * experts[name] for name in ("waiting_share", "computing_share"))
    return (f"experts: {in_units(experts['slot_bytes'])} hold those of {experts['tokens_held']} tokens; "
            f"{100 * experts['hit_rate']:.0f} % were in memory when needed, "
            f"{in_units(experts['read_bytes_per_token'])} read per token; "
            f"{waiting:.0f} % of the time waiting for the disk, {computing:.0f} % computing")
