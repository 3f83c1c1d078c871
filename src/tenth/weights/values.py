"""The types of GGUF metadata values, and ``Stored``: a text or array that stays in the file until it is asked for.

A vocabulary is most of a header, is needed once, and would otherwise stay in memory as hundreds of thousands of
strings. So reading a header only checks texts and arrays and notes where they are.
Source: the GGUF specification, ggml/docs/gguf.md, ``gguf_metadata_value_type``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tenth import _core
from tenth.errors import ModelFileError
from tenth.weights.reader import INCOMPLETE, U32, U64, HeaderReader

T = TypeVar("T")
BOOL, STRING, ARRAY = 7, 8, 9

# GGUF id -> (name, layout). The NumPy type of an array is the layout's own format string.
NUMBERS: dict[int, tuple[str, struct.Struct]] = {
    0: ("u8", struct.Struct("<B")),
    1: ("i8", struct.Struct("<b")),
    2: ("u16", struct.Struct("<H")),
    3: ("i16", struct.Struct("<h")),
    4: ("u32", struct.Struct("<I")),
    5: ("i32", struct.Struct("<i")),
    6: ("f32", struct.Struct("<f")),
    BOOL: ("bool", struct.Struct("<B")),
    10: ("u64", struct.Struct("<Q")),
    11: ("i64", struct.Struct("<q")),
    12: ("f64", struct.Struct("<d")),
}

_MAX_ARRAY_DEPTH = 2  # an array of arrays, no deeper

# The most that is brought into memory for one value. Decoded text can take four times its bytes, strings in a list
# some 60 bytes each, so this keeps the worst value near 200 MB; the largest real one is about 12 MB.
MAX_VALUE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A text (``STRING``) or array (``ARRAY``) in a file: where its bytes are and how many elements it has."""

    path: Path
    offset: int  # of the bytes after the length or count
    n_bytes: int
    type_id: int
    element_id: int = -1
    count: int = 0

    @property
    def type_name(self) -> str:
        """For messages: ``str``, ``array of u32``."""
        if self.type_id == STRING:
            return "str"
        names = {STRING: "str", ARRAY: "array"}
        return "array of " + (names.get(self.element_id) or NUMBERS[self.element_id][0])

    def load(self, key: str) -> Any:
        """The value: str, list of str, NumPy array, or list of those. ModelFileError when it cannot be had."""
        if self.type_id == STRING:
            return self._made(key, bytes.decode)
        return self._made(key, lambda raw: _whole(raw, *_array(raw, 0, self.element_id, self.count)))

    def load_texts(self, key: str) -> _core.Texts:
        """An array of texts, none of them a Python string yet. ModelFileError as ``load``."""
        def texts(raw: bytes) -> _core.Texts:
            found = _core.Texts(raw, 0, self.count)
            return _whole(raw, found, found.end)

        return self._made(key, texts)

    def _made(self, key: str, make: Callable[[bytes], T]) -> T:
        if self.n_bytes > MAX_VALUE_BYTES:
            raise ModelFileError(f"{self.path}: {key} is {self.n_bytes} bytes long, expected at most {MAX_VALUE_BYTES}",
                                 INCOMPLETE)
        raw = self._read(key)
        try:
            return make(raw)
        except UnicodeDecodeError as error:
            found = error.object[:32]
            raise ModelFileError(f"{self.path}: {key} holds text that is not UTF-8 ({found!r})", INCOMPLETE) from None
        except (struct.error, OverflowError, ValueError, KeyError) as error:
            raise ModelFileError(f"{self.path}: {key} cannot be read: {error}", INCOMPLETE) from None

    def _read(self, key: str) -> bytes:
        try:
            with open(self.path, "rb", buffering=0) as file:
                raw = os.pread(file.fileno(), self.n_bytes, self.offset)
        except OSError as error:
            raise ModelFileError(f"{self.path}: cannot read {key}: {error.strerror}") from error
        if len(raw) != self.n_bytes:
            raise ModelFileError(f"{self.path}: the file ends inside {key}", INCOMPLETE)
        return raw


def read_value(reader: HeaderReader, key: str) -> Any:
    """The next metadata value: int, float or bool at once, texts and arrays as ``Stored``."""
    type_id: int = reader.unpack(U32, f"the type of {key}")
    if type_id == STRING:
        length = reader.skip_string(key)
        return Stored(reader.path, reader.position - length, length, STRING)
    if type_id == ARRAY:
        return _skip_array(reader, key, depth=1)
    if type_id not in NUMBERS:
        reader.fail(f"{key} has the unknown type {type_id}, expected 0 to 12")
    value = reader.unpack(NUMBERS[type_id][1], key)
    if type_id != BOOL:
        return value
    if value > 1:
        reader.fail(f"{key} is a bool of value {value}, expected 0 or 1")
    return bool(value)


def _skip_array(reader: HeaderReader, key: str, depth: int) -> Stored:
    element_id: int = reader.unpack(U32, f"the element type of {key}")
    count: int = reader.unpack(U64, f"the count of {key}")
    start = reader.position
    if element_id in NUMBERS:
        reader.skip(count * NUMBERS[element_id][1].size, key)
    elif element_id == STRING:
        reader.skip_strings(count, key)
    elif element_id == ARRAY:
        if depth == _MAX_ARRAY_DEPTH:
            reader.fail(f"{key} nests arrays more than {_MAX_ARRAY_DEPTH} deep")
        reader.require(12 * count, key)
        reader.budget.spend(reader, "arrays", count)
        for _ in range(count):
            _skip_array(reader, key, depth + 1)
    else:
        reader.fail(f"{key} is an array of the unknown type {element_id}, expected 0 to 12")
    return Stored(reader.path, start, reader.position - start, ARRAY, element_id, count)


def _whole(raw: bytes, value: T, end: int) -> T:
    if end != len(raw):
        raise ValueError(f"its elements end at byte {end} of {len(raw)}")
    return value


def pack_texts(texts: Iterable[str]) -> _core.Texts:
    """Texts as a file would store them."""
    raw = [text.encode() for text in texts]
    return _core.Texts(b"".join(U64.pack(len(text)) + text for text in raw), 0, len(raw))


def _array(raw: bytes, at: int, element_id: int, count: int) -> tuple[Any, int]:
    """The array whose elements start at byte ``at``, and the byte after it. Raises what the caller catches.

    The header's reader has checked these bytes (bools excepted), but the file may have changed since.
    """
    if element_id == STRING:
        return _core.texts(raw, at, count)
    if element_id == ARRAY:
        inner = []
        for _ in range(count):
            inner_id, inner_count = U32.unpack_from(raw, at)[0], U64.unpack_from(raw, at + 4)[0]
            if inner_id == ARRAY:
                raise ValueError("arrays are nested too deep")
            value, at = _array(raw, at + 12, inner_id, inner_count)
            inner.append(value)
        return inner, at
    layout = NUMBERS[element_id][1]
    numbers = np.frombuffer(raw, np.dtype(layout.format), count, at)
    if element_id == BOOL:
        if numbers.size and numbers.max() > 1:
            raise ValueError(f"a bool is {numbers.max()}, expected 0 or 1")
        numbers = numbers.view(np.bool_)
    return numbers, at + count * layout.size
