"""Writes GGUF files for tests, wrong ones too: every number can be set against the rules."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
_LAYOUTS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}


def text(content: str | bytes, length: int | None = None) -> bytes:
    """A string with its length, or with a length that lies."""
    raw = content.encode() if isinstance(content, str) else content
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def payload(type_id: int, value: Any) -> bytes:
    if type_id == STR:
        return text(value)
    if type_id == ARR:  # value: (element type, list)
        element, items = value
        return array(element, len(items), b"".join(payload(element, item) for item in items))
    return struct.pack("<" + _LAYOUTS[type_id], value)


def array(element: int, count: int, body: bytes = b"") -> bytes:
    return struct.pack("<IQ", element, count) + body


@dataclass
class Tensor:
    name: str | bytes
    dims: tuple[int, ...]  # in the file's order: row length first
    type_id: int = 0
    data: bytes = b""
    offset: int | None = None  # None: after the tensor before, aligned


@dataclass
class File:
    """keys: (key, type, value) or (key, raw bytes that start with the type)."""

    keys: list[tuple[Any, ...]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    version: int = 3
    magic: bytes = b"GGUF"
    n_tensors: int | None = None
    n_keys: int | None = None
    alignment: int = 32
    tail: bytes = b""

    def build(self) -> bytes:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        parts = [self.magic, struct.pack("<IQQ", self.version, n_tensors, n_keys)]
        for key, *rest in self.keys:
            parts += [text(key), rest[0] if len(rest) == 1 else struct.pack("<I", rest[0]) + payload(*rest)]
        data = b""
        for tensor in self.tensors:
            offset = len(data) if tensor.offset is None else tensor.offset
            parts += [text(tensor.name), struct.pack("<I", len(tensor.dims))]
            parts += [struct.pack("<Q", dim) for dim in tensor.dims]
            parts += [struct.pack("<IQ", tensor.type_id, offset)]
            data += tensor.data + b"\0" * (-len(tensor.data) % self.alignment)
        header = b"".join(parts)
        if self.tensors:
            header += b"\0" * (-len(header) % self.alignment)
            data = data[: len(data) - (-len(self.tensors[-1].data) % self.alignment)]  # ends with the last weight
        return header + data + self.tail

    def write(self, path: Path) -> Path:
        path.write_bytes(self.build())
        return path


def small_model(**changes: Any) -> File:
    """A file with every kind of value and three tensors; changes are fields of File."""
    parts: dict[str, Any] = {
        "keys": [
            ("general.architecture", STR, "llama"),
            ("general.name", STR, "tiny"),
            ("llama.block_count", U32, 2),
            ("llama.context_length", U64, 128),
            ("llama.rope.freq_base", F32, 10000.0),
            ("signed", I8, -3),
            ("flag", BOOL, 1),
            ("tokenizer.ggml.tokens", ARR, (STR, ["a", "bc", "", "dé"])),
            ("tokenizer.ggml.scores", ARR, (F32, [0.0, -1.0, -2.0, -3.5])),
            ("tokenizer.ggml.token_type", ARR, (I32, [1, 1, 3, 1])),
            ("pattern", ARR, (BOOL, [1, 0])),
            ("nested", ARR, (ARR, [(U8, [1, 2]), (STR, ["x"])])),
        ],
        "tensors": [
            Tensor("token_embd.weight", (4, 3), 0, struct.pack("<12f", *range(12))),
            Tensor("blk.0.weight", (32, 2), 8, (b"\x00\x3c" + bytes(range(32))) * 2),
            Tensor("output_norm.weight", (5,), 1, struct.pack("<5e", 0, 1, 2, -1, 0.5)),
        ],
    }
    return File(**(parts | changes))


def parse(data: bytes) -> File:
    """A sound file (version 3, one part) as what ``File`` would write it from, to be changed and built again."""
    at = 24
    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)

    def number(layout: str) -> Any:
        nonlocal at
        at += struct.calcsize(layout)
        return struct.unpack_from(layout, data, at - struct.calcsize(layout))[0]

    def string() -> bytes:
        nonlocal at
        length = number("<Q")
        at += length
        return data[at - length : at]

    def value(type_id: int) -> Any:
        if type_id == ARR:
            element, count = number("<I"), number("<Q")
            return element, [value(element) for _ in range(count)]
        return string() if type_id == STR else number("<" + _LAYOUTS[type_id])

    keys = [(string().decode(), (type_id := number("<I")), value(type_id)) for _ in range(n_keys)]
    entries = []
    for _ in range(n_tensors):
        name = string().decode()
        dims = tuple(number("<Q") for _ in range(number("<I")))
        entries.append((name, dims, number("<I"), number("<Q")))
    start = -(-at // 32) * 32
    ends = sorted({offset for *_, offset in entries} | {len(data) - start})
    tensors = [
        Tensor(name, dims, type_id, data[start + offset : start + ends[ends.index(offset) + 1]])
        for name, dims, type_id, offset in entries
    ]
    return File(keys, tensors)
