"""Runs a whole program in NumPy, by what its ops mean (``meanings``). The oracle of tests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenth.program.meanings import MEANINGS, Q8, Batch, Cache, Context, dequantize, quantize
from tenth.program.meanings.q8 import round_q8_0
from tenth.program.memory import lifetimes
from tenth.program.ops import expect
from tenth.program.values import Derived, Instruction, Program, Sliced, Value

__all__ = ["MEANINGS", "Batch", "Cache", "Context", "dequantize", "derived", "quantize", "run"]

Array = NDArray[Any]


def run(
    program: Program,
    weights: Mapping[str, Array],
    batch: Batch,
    cache: Cache | None = None,
    dtype: type[np.floating[Any]] = np.float32,
    arena_bytes: int = 0,
) -> Array:
    """Logits [outputs, vocab] of one step; ``cache`` is changed in place.

    With ``arena_bytes`` (from ``memory.plan``) every temporary lives at its planned offset in an arena that starts as
    NaN and turns to NaN behind each last use, so that a wrong plan shows. Only with float32.
    """
    context = Context(batch, Cache() if cache is None else cache, dtype)
    store = _Arena(program, arena_bytes) if arena_bytes else _Loose()
    expect(not arena_bytes or dtype is np.float32, "an arena holds float32")
    given = {"tokens": batch.tokens, "positions": batch.positions, "sources": batch.sources}

    def read(value: Value) -> Any:
        if value.kind == "weight":
            how = program.derived.get(value.name)
            whole = derived(weights[how.source], how) if how else weights[value.name]
            return whole.astype(dtype, copy=False).reshape(value.shape)
        return given[value.name] if value.kind == "input" else store.read(value)

    for i, instruction in enumerate(program.instructions):
        inputs = [read(value) for value in instruction.inputs]
        results = MEANINGS[instruction.op](inputs, dict(instruction.attrs), context)
        results = results if isinstance(results, list) else [results]
        for value, result in zip(instruction.outputs, results, strict=True):
            kept = isinstance(result, Q8) or value.dtype == "i32"
            store.write(value, result if kept else result.astype(dtype, copy=False))
        store.done(i, instruction)
    logits: Array = store.read(program.output)
    return logits.copy()


class _Loose:
    """Every temporary in an array of its own."""

    def __init__(self) -> None:
        self.arrays: dict[Value, Any] = {}

    def read(self, value: Value) -> Any:
        found = self.arrays[value.storage]
        return found if isinstance(found, Q8) else found.reshape(-1, *value.shape)

    def write(self, value: Value, result: Any) -> None:
        self.arrays[value] = result

    def done(self, i: int, instruction: Instruction) -> None:
        pass


class _Arena:
    """Every temporary at its planned offset. 0xFF bytes are NaN as float32 and -1 as whole numbers."""

    def __init__(self, program: Program, n_bytes: int):
        self.bytes = np.full(n_bytes, 0xFF, np.uint8)
        self.sizes: dict[Value, tuple[int, int]] = {}  # rows, bytes in use
        self.lives = lifetimes(program)

    def read(self, value: Value) -> Any:
        rows, size = self.sizes[value.storage]
        raw = self.bytes[value.offset : value.offset + size]
        if value.dtype == "bf16":
            return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(rows, *value.shape)
        if value.dtype != "q8":
            return raw.view(np.int32 if value.dtype == "i32" else np.float32).reshape(rows, *value.shape)
        n = rows * math.prod(value.shape)
        q, scale = raw[:n].view(np.int8), raw[n : n + n // 8].view(np.float32)
        return Q8(q.reshape(rows, *value.shape), scale.reshape(rows, *value.shape[:-1], -1))

    def write(self, value: Value, result: Any) -> None:
        if value.dtype == "bf16":
            result = (np.ascontiguousarray(result).view(np.uint32) >> 16).astype(np.uint16)
        parts = result if isinstance(result, Q8) else (result,)
        raw = np.concatenate([np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in parts])
        expect(value.offset % 64 == 0 and value.offset + raw.size <= self.bytes.size, f"{value.name} outside the arena")
        self.bytes[value.offset : value.offset + raw.size] = raw
        self.sizes[value] = len(parts[0]), raw.size

    def done(self, i: int, instruction: Instruction) -> None:
        for value in {*instruction.outputs, *(v.storage for v in instruction.inputs if v.kind == "temp")}:
            if self.lives[value][1] == i:
                self.bytes[value.offset : value.offset + self.sizes[value][1]] = 0xFF


def derived(source: Array, how: Derived) -> Array:
    """The weight that is made of a tensor of the file: [n_heads * in, n_rows] of a matrix, or some rows of each."""
    if isinstance(how, Sliced):
        part: Array = source[:, how.first : how.first + how.n_rows]
        return part
    matrix = source
    heads = matrix.reshape(how.n_heads, -1, matrix.shape[-1])[:, how.first : how.first + how.n_rows]
    turned = heads.transpose(0, 2, 1).reshape(-1, how.n_rows)
    return round_q8_0(turned) if how.rounds else turned
