"""Activations rounded: to int8, and the ops that end in that; to bfloat16, as weights of that format want them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenth.program.meanings.context import MEANINGS, Array, Attrs, Context, Meaning, means
from tenth.program.ops import OPS
from tenth.program.values import Q8_BLOCK

LEAST_BF16 = 2.0**-50  # kLeastBf16 in native/base/bf16.h


class Q8(NamedTuple):
    """A q8 value: int8 [n, …, k] and float32 scales [n, …, k / 32]."""

    q: NDArray[np.int8]
    scale: NDArray[np.float32]


class Bf16(NamedTuple):
    """A weight that is bfloat16 in its file: what a product multiplies with it is rounded to that first."""

    numbers: Array


def factors(x: Any, weight: Any, dtype: type[np.floating[Any]]) -> tuple[Array, Array]:
    """What a product multiplies: the numbers that x stands for beside this weight, and the weight's."""
    if isinstance(x, Q8):
        return dequantize(x, dtype), weight
    return (round_bf16(x).astype(dtype), weight.numbers) if isinstance(weight, Bf16) else (x, weight)


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


@means("quantize")
def _quantize(x: list[Array], attrs: Attrs, context: Context) -> Q8:
    return quantize(x[0])


def _then_quantize(op: str) -> Meaning:
    return lambda x, attrs, context: quantize(MEANINGS[op](x, attrs, context))


MEANINGS |= {f"{op}_q8": _then_quantize(op) for op in OPS if f"{op}_q8" in OPS}
