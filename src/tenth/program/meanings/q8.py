"""Activations rounded, to int8 or to bfloat16, and the ops that end in that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenth.program.meanings.context import MEANINGS, Array, Meaning
from tenth.program.ops import OPS
from tenth.program.values import Q8_BLOCK, ROUNDINGS

LEAST_BF16 = 2.0**-50  # kLeastBf16 in native/base/bf16.h


class Q8(NamedTuple):
    """A q8 value: int8 [n, …, k] and float32 scales [n, …, k / 32]."""

    q: NDArray[np.int8]
    scale: NDArray[np.float32]


def numbers(x: Any, dtype: type[np.floating[Any]]) -> Array:
    """The numbers that an activation stands for."""
    if isinstance(x, Q8):
        return dequantize(x, dtype)
    given: Array = x
    return given


def round_bf16(x: Array) -> NDArray[np.float32]:
    """To the nearest bfloat16, ties to even; what is nearer to zero than 2^-50 becomes zero."""
    bits = x.astype(np.float32).view(np.uint32)
    cut = bits + np.uint32(0x7FFF) + (bits >> 16 & 1) & np.uint32(0xFFFF0000)
    return np.where(np.abs(x) < LEAST_BF16, np.float32(0), cut.view(np.float32))


def quantize(x: Array) -> Q8:
    """[n, …, k] -> q8, in float32, as the op table says."""
    blocks = x.astype(np.float32).reshape(*x.shape[:-1], x.shape[-1] // Q8_BLOCK, Q8_BLOCK)
    largest = np.abs(blocks).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    q = np.clip(np.rint(blocks * inverse), -127, 127)
    return Q8(q.astype(np.int8).reshape(x.shape), (largest / np.float32(127))[..., 0])


def round_q8_0(rows: Array) -> Array:
    """[n, k] -> what weights in Q8_0 stand for: as ``quantize`` rounds, but with scales in float16."""
    q, scale = quantize(rows)
    return dequantize(Q8(q, scale.astype(np.float16).astype(np.float32)))


def dequantize(x: Q8, dtype: type[np.floating[Any]] = np.float32) -> Array:
    """The numbers a q8 value stands for."""
    return (x.q.reshape(*x.scale.shape, Q8_BLOCK) * x.scale.astype(dtype)[..., None]).reshape(x.q.shape)


ROUND: dict[str, Callable[[Array], Any]] = {"q8": quantize, "bf16": round_bf16, "f32": lambda x: x}  # by dtype


def _then_round(op: str, dtype: str) -> Meaning:
    return lambda x, attrs, context: ROUND[dtype](MEANINGS[op](x, attrs, context))


def _round(dtype: str) -> Meaning:
    return lambda x, attrs, context: ROUND[dtype](x[0])


MEANINGS |= {op: _round(dtype) for dtype, op in ROUNDINGS.items()}
MEANINGS |= {f"{op}_{dtype}": _then_round(op, dtype) for op in OPS for dtype in ROUNDINGS if f"{op}_{dtype}" in OPS}
