"""NumPy decode of the IQ1, IQ2 and IQ3 formats; see ``decode`` for the rules and ``grids`` for what an index means.

In the layout comments "group" is 8 neighbouring weights. Signs are bit k for weight k of a group, set for minus; a
sign index of 7 bits leaves the last one out, which is set so that the number of minus signs is even.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tenth.weights.decode import Blocks, Floats, _half, _planes, _scaled
from tenth.weights.grids import grid

_DELTA = np.float32(0.125)  # of IQ1: added to all levels of a group or taken from them


def _points(name: str, low: NDArray[np.integer], high: NDArray[np.integer] | None = None) -> Floats:
    """The grid's points for indices of 8 bits and, above them, ``high``: [n, indices] -> [n, weights]."""
    index = low.astype(np.intp)
    if high is not None:
        index |= high.astype(np.intp) << 8
    points = grid(name)
    return points[index].reshape(len(index), index.shape[1] * points.shape[1])


def _with_signs(magnitudes: Floats, signs: Blocks) -> Floats:
    """Weights with the signs of [n, groups] bytes."""
    return np.where(np.unpackbits(signs, axis=1, bitorder="little"), -magnitudes, magnitudes)


def _even_signs(index: NDArray[np.integer]) -> Blocks:
    """7-bit sign indices -> bytes of eight signs with an even number of minus signs."""
    seven: Blocks = (index & 127).astype(np.uint8)
    parity: Blocks = seven ^ seven >> np.uint8(4)
    parity ^= parity >> np.uint8(2)
    parity ^= parity >> np.uint8(1)
    return seven | parity << np.uint8(7)


def _odd(number: Blocks | NDArray[np.integer]) -> Floats:
    """2 * number + 1."""
    return (2 * number.astype(np.int32) + 1).astype(np.float32)


def _words(blocks: Blocks, first: int, last: int) -> NDArray[np.uint32]:
    return np.ascontiguousarray(blocks[:, first:last]).view("<u4")


def _halves(blocks: Blocks, first: int, last: int) -> NDArray[np.uint16]:
    return np.ascontiguousarray(blocks[:, first:last]).view("<u2")


def _scale_and_signs(words: NDArray[np.uint32]) -> tuple[Floats, Blocks]:
    """[n, 8] words of four sign indices and, on top, a 4-bit scale -> 2 * scale + 1 [n, 8], signs [n, 32]."""
    index = words[:, :, None] >> np.array([0, 7, 14, 21], np.uint32)
    return _odd(words >> 28), _even_signs(index).reshape(len(words), 32)


def iq2_xxs(blocks: Blocks) -> Floats:
    """f16 d | 8 x (4 indices, u32 of 4 sign indices and a 4-bit scale). weight = d*(2*scale + 1)/8 * point * sign."""
    words = _words(blocks, 2, 66).reshape(len(blocks), 8, 2)
    scales, signs = _scale_and_signs(words[:, :, 1])
    index = np.ascontiguousarray(words[:, :, 0]).view(np.uint8)  # [n, 32]
    return _scaled(_half(blocks, 0) * scales * np.float32(1 / 8), _with_signs(_points("IQ2_XXS", index), signs))


def iq2_xs(blocks: Blocks) -> Floats:
    """f16 d | 32 x u16 of an index (9 bits) and a sign index | 16 4-bit scales. weight as IQ2_XXS's."""
    words = _halves(blocks, 2, 66)
    weights = _with_signs(_points("IQ2_XS", words & 511), _even_signs(words >> 9))
    return _scaled(_half(blocks, 0) * _odd(_planes(blocks[:, 66:], 1, 4)) * np.float32(1 / 8), weights)


def iq2_s(blocks: Blocks) -> Floats:
    """f16 d | 32 low indices | 32 signs | 32 upper 2 bits of indices | 16 4-bit scales. weight as IQ2_XXS's."""
    weights = _with_signs(_points("IQ2_S", blocks[:, 2:34], _planes(blocks[:, 66:74], 1, 2)), blocks[:, 34:66])
    return _scaled(_half(blocks, 0) * _odd(_planes(blocks[:, 74:], 1, 4)) * np.float32(1 / 8), weights)


def iq3_xxs(blocks: Blocks) -> Floats:
    """f16 d | 64 indices | 8 x u32 of 4 sign indices and a 4-bit scale. weight = d*(2*scale + 1)/4 * point * sign."""
    scales, signs = _scale_and_signs(_words(blocks, 66, 98))
    weights = _with_signs(_points("IQ3_XXS", blocks[:, 2:66]), signs)
    return _scaled(_half(blocks, 0) * scales * np.float32(1 / 4), weights)


def iq3_s(blocks: Blocks) -> Floats:
    """f16 d | 64 low indices | 64 ninth bits | 32 signs | 8 4-bit scales. weight = d*(2*scale + 1) * point * sign."""
    points = _points("IQ3_S", blocks[:, 2:66], _planes(blocks[:, 66:74], 1, 1))
    scales = _half(blocks, 0) * _odd(_planes(blocks[:, 106:], 1, 4))
    return _scaled(scales, _with_signs(points, blocks[:, 74:106]))


def iq1_s(blocks: Blocks) -> Floats:
    """f16 d | 32 low indices | 8 x u16 of 4 upper 3 bits, a 3-bit scale, a sign of delta.

    weight = d*(2*scale + 1) * (point +- 1/8).
    """
    high = _halves(blocks, 34, 50)
    upper = (high[:, :, None] >> np.array([0, 3, 6, 9], np.uint16) & 7).reshape(len(blocks), 32)
    delta = np.where(high >> 15, -_DELTA, _DELTA).repeat(32, axis=1)
    return _scaled(_half(blocks, 0) * _odd(high >> 12 & 7), _points("IQ1", blocks[:, 2:34], upper) + delta)


def iq1_m(blocks: Blocks) -> Floats:
    """32 low indices | 32 x (upper 3 bits, a sign of delta) | 4 x u16 of four 3-bit scales and 4 bits of f16 d.

    weight as IQ1_S's, with a scale per 16 and a delta per group.
    """
    upper, last = _planes(blocks[:, 32:48], 1, 4), _halves(blocks, 48, 56)
    d = (last >> 12 << np.array([0, 4, 8, 12], np.uint16)).sum(axis=1, dtype=np.uint16)[:, None]
    scales = (last[:, :, None] >> np.array([0, 3, 6, 9], np.uint16) & 7).reshape(len(blocks), 16)
    delta = np.where(upper >> 3, -_DELTA, _DELTA).repeat(8, axis=1)
    points = _points("IQ1", blocks[:, :32], upper & 7)
    return _scaled(d.view(np.float16).astype(np.float32) * _odd(scales), points + delta)
