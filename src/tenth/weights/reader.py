"""Bounded reading of a GGUF header: nothing is read, skipped or allocated that the file cannot hold.

The header is read with ``pread`` in small pieces, never mapped: a mapped file that someone truncates is a crash.
Every limit that does not come from the file's size is in ``Budget``; the shards of one model share one budget, so
that many small shards cannot cost more than one large file. Real models stay far below: the largest vocabularies
have about 260 thousand tokens and 510 thousand merges in some 20 MiB of header, and a few thousand tensors.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tenth import _core
from tenth.errors import ModelFileError

MAX_STRING_BYTES = 64 << 20
MAX_NAME_BYTES = 1024  # keys and tensor names; the specification's own limits are 65535 and 64
_WINDOW_BYTES = 256 << 10  # the piece of the header held in memory
_REMOTE_WINDOW_BYTES = 16 << 10  # of a file elsewhere: reading past the header would fetch weights

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")

INCOMPLETE = "the file is incomplete or damaged; download it again"

# Called with a file and a byte of it before bytes up to there are read: brings them from where the file really is.
Arrive = Callable[[Path, int], None]


@dataclass
class Budget:
    """What the headers of one model may still hold; reading spends it."""

    header_bytes: int = 512 << 20
    keys: int = 1 << 16
    tensors: int = 1 << 16
    strings: int = 3 << 19  # strings inside arrays: some 1.5 million
    arrays: int = 1 << 16  # arrays inside arrays

    def spend(self, reader: HeaderReader, what: str, amount: int) -> None:
        """Take ``amount`` of ``what`` (a field's name); ModelFileError when less than that is left."""
        left: int = getattr(self, what)
        if amount > left:
            reader.fail(f"the header holds {amount} more {what.replace('_', ' ')}, expected at most {left}")
        setattr(self, what, left - amount)


class HeaderReader:
    """Reads little-endian numbers and names from the start of an open file, checking each against what is left."""

    def __init__(self, descriptor: int, path: Path, size: int, budget: Budget, arrive: Arrive | None = None):
        self.path = path
        self.size = size
        self.budget = budget
        self.position = 0
        self._descriptor = descriptor
        self._arrive = arrive
        self._limit = min(size, budget.header_bytes)
        self._window = b""
        self._window_start = 0

    def fail(self, message: str, hint: str | None = INCOMPLETE) -> NoReturn:
        """Raise ModelFileError with the file's name in front."""
        raise ModelFileError(f"{self.path}: {message}", hint)

    def require(self, n_bytes: int, what: str) -> None:
        """ModelFileError unless ``n_bytes`` more bytes, described by ``what``, fit in the file and in the budget."""
        if self.position + n_bytes <= self._limit:
            return
        if self.position + n_bytes <= self.size:
            self.fail(f"the header is longer than {self._limit} bytes, the most that is accepted", None)
        left = self.size - self.position
        self.fail(f"{what} at byte {self.position} needs {n_bytes} bytes, but the file ends {left} bytes later")

    def unpack(self, layout: struct.Struct, what: str) -> Any:
        """The one number that ``layout`` describes."""
        at = self._hold(layout.size, what)
        self.position += layout.size
        return layout.unpack_from(self._window, at)[0]

    def name(self, what: str) -> str:
        """A key or tensor name: short, UTF-8, printable (it may reach a terminal)."""
        length = self.unpack(U64, f"the length of {what}")
        if not 1 <= length <= MAX_NAME_BYTES:
            self.fail(f"{what} is {length} bytes long, expected 1 to {MAX_NAME_BYTES}")
        at = self._hold(length, what)
        self.position += length
        raw = self._window[at : at + length]
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            self.fail(f"{what} is {raw[:64]!r}, which is not UTF-8")
        if not text.isprintable():
            self.fail(f"{what} is {text[:64]!r}, which holds control characters")
        return text

    def skip(self, n_bytes: int, what: str) -> None:
        """Step over ``n_bytes`` without reading them."""
        self.require(n_bytes, what)
        self.position += n_bytes

    def skip_string(self, what: str) -> int:
        """Step over one string; its length in bytes."""
        length: int = self.unpack(U64, f"the length of {what}")
        self._check_string(length, what)
        self.skip(length, what)
        return length

    def skip_strings(self, count: int, what: str) -> None:
        """Step over ``count`` strings."""
        self.require(8 * count, what)
        self.budget.spend(self, "strings", count)
        while count:
            at = self._hold(8, what)  # which may bring another window
            done, at, length = _core.skip_texts(self._window, at, count)
            count -= done
            self._check_string(length, what)
            self.skip(self._window_start + at + length - self.position, what)

    def _check_string(self, length: int, what: str) -> None:
        if length > MAX_STRING_BYTES:
            self.fail(f"{what} holds a string of {length} bytes, expected at most {MAX_STRING_BYTES}")

    def _hold(self, n_bytes: int, what: str) -> int:
        """Bring the next ``n_bytes`` (few) into the window; where in it they start."""
        at = self.position - self._window_start
        if at + n_bytes <= len(self._window):
            return at
        self.require(n_bytes, what)
        piece = min(max(n_bytes, _WINDOW_BYTES), self._limit - self.position)
        if self._arrive:
            piece = min(piece, max(n_bytes, _REMOTE_WINDOW_BYTES))
            self._arrive(self.path, self.position + piece)
        self._window = os.pread(self._descriptor, piece, self.position)
        self._window_start = self.position
        if len(self._window) < n_bytes:
            self.fail("the file became shorter while it was read")
        return 0
