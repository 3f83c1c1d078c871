"""NumPy decode of every supported format: uint8 blocks ``[n, block_bytes]`` -> float32 ``[n, block_weights]``.

The meaning of each format for references, tests and small tensors; the fast paths are native. Layouts are those of
llama.cpp's ``ggml-common.h`` and of the GGUF specification (ggml/docs/gguf.md); the order of the float operations is
that of the PyPI package ``gguf`` 0.19, against which every function is tested bit for bit. In the layout comments
``f16 d`` is a half-precision scale and sizes are in bytes.

All packed integers are read by one rule, ``_planes``: a run of bytes holds several planes of small numbers, the
lowest bits of all bytes of the run first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Blocks = NDArray[np.uint8]
Floats = NDArray[np.float32]

# The 16 levels of IQ4_NL and IQ4_XS, and the doubled E2M1 numbers of MXFP4 (OCP Microscaling Formats 1.0, table 5).
_IQ4_LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
_E2M1_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


def _half(blocks: Blocks, at: int) -> Floats:
    """The f16 number at byte ``at`` of each block, ``[n, 1]``."""
    return blocks[:, at : at + 2].view("<f2").astype(np.float32)


def _planes(packed: Blocks, run: int, width: int) -> Blocks:
    """Unpack ``width``-bit numbers: each run of ``run`` bytes gives its lowest bits, then the next ones, and so on."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    n, n_bytes = packed.shape
    planes = (packed.reshape(n, n_bytes // run, 1, run) >> shifts) & np.uint8((1 << width) - 1)
    return planes.reshape(n, n_bytes * (8 // width))


def _scaled(scales: Floats, numbers: NDArray[np.float32], offsets: Floats | None = None) -> Floats:
    """``scale * number - offset``, one scale per group of numbers: [n, groups], [n, weights] -> [n, weights]."""
    grouped = scales[:, :, None] * numbers.reshape(*scales.shape, numbers.shape[1] // scales.shape[1])
    if offsets is not None:
        grouped -= offsets[:, :, None]
    return grouped.reshape(numbers.shape)


def f32(blocks: Blocks) -> Floats:
    """Float32 as stored."""
    return blocks.view("<f4").astype(np.float32, copy=False)


def f16(blocks: Blocks) -> Floats:
    """IEEE half precision."""
    return blocks.view("<f2").astype(np.float32)


def bf16(blocks: Blocks) -> Floats:
    """The upper half of a float32."""
    return (blocks.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def q4_0(blocks: Blocks) -> Floats:
    """f16 d | 16 x two 4-bit. weight = d * (q - 8)."""
    return _half(blocks, 0) * (_planes(blocks[:, 2:], 16, 4).astype(np.float32) - 8)


def q4_1(blocks: Blocks) -> Floats:
    """f16 d | f16 m | 16 x two 4-bit. weight = d * q + m."""
    return _half(blocks, 0) * _planes(blocks[:, 4:], 16, 4).astype(np.float32) + _half(blocks, 2)


def _five_bits(fifth: Blocks, low: Blocks) -> NDArray[np.float32]:
    """Join 32 low halves with 32 fifth bits (bit i of the little-endian word belongs to weight i)."""
    high = np.unpackbits(fifth, axis=1, bitorder="little") << np.uint8(4)
    return (_planes(low, 16, 4) | high).astype(np.float32)


def q5_0(blocks: Blocks) -> Floats:
    """f16 d | 4 fifth bits | 16 x two 4-bit. weight = d * (q - 16)."""
    return _half(blocks, 0) * (_five_bits(blocks[:, 2:6], blocks[:, 6:]) - 16)


def q5_1(blocks: Blocks) -> Floats:
    """f16 d | f16 m | 4 fifth bits | 16 x two 4-bit. weight = d * q + m."""
    return _half(blocks, 0) * _five_bits(blocks[:, 4:8], blocks[:, 8:]) + _half(blocks, 2)


def encode_q8_0(rows: Floats) -> Blocks:
    """[…, in] -> the same in Q8_0 as files have it, […, bytes]; the scale is rounded to float16 behind the numbers."""
    blocks = rows.reshape(-1, 32)
    largest = np.abs(blocks).max(-1, keepdims=True)
    with np.errstate(all="ignore"):  # infinite weights get infinite scales, which who packs them finds
        q = np.rint(blocks * np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0))
        scales = (largest / np.float32(127)).astype(np.float16)
        q = np.nan_to_num(q)
    made = np.concatenate([scales.view(np.uint8), q.astype(np.int8).view(np.uint8)], -1)
    return made.reshape(*rows.shape[:-1], -1)


def q8_0(blocks: Blocks) -> Floats:
    """f16 d | 32 int8. weight = d * q."""
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def q2_k(blocks: Blocks) -> Floats:
    """16 x (4-bit scale, 4-bit minimum) | 64 x four 2-bit | f16 d | f16 dmin. weight = d*scale * q - dmin*minimum."""
    groups = blocks[:, :16]
    scales = _half(blocks, 80) * (groups & 15).astype(np.float32)
    minimums = _half(blocks, 82) * (groups >> 4).astype(np.float32)
    return _scaled(scales, _planes(blocks[:, 16:80], 32, 2).astype(np.float32), minimums)


def q3_k(blocks: Blocks) -> Floats:
    """32 third bits | 64 x two low bits | 12 scales | f16 d. weight = d*(scale - 32) * (q - 4), q with its third bit.

    The 16 six-bit scales: 8 bytes hold the low four bits (two planes of 8), 4 bytes the upper two (four planes of 4).
    """
    low, high = _planes(blocks[:, 96:104], 8, 4), _planes(blocks[:, 104:108], 4, 2)
    scales = _half(blocks, 108) * ((low | high << np.uint8(4)).astype(np.float32) - 32)
    third = _planes(blocks[:, :32], 32, 1) << np.uint8(2)
    numbers = (_planes(blocks[:, 32:96], 32, 2) | third).astype(np.float32) - 4
    return _scaled(scales, numbers)


def _scales_and_minimums(packed: Blocks) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The eight six-bit scales and eight six-bit minimums that Q4_K and Q5_K pack into 12 bytes, each ``[n, 8]``.

    Bytes 0-3: scales 0-3, and the upper two bits of scales 4-7. Bytes 4-7: the same for the minimums.
    Bytes 8-11: low four bits of scales 4-7, then of minimums 4-7.
    """
    first, second, last = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first & 63, (last & 15) | (first >> 6 << 4)], axis=1)
    minimums = np.concatenate([second & 63, (last >> 4) | (second >> 6 << 4)], axis=1)
    return scales.astype(np.float32), minimums.astype(np.float32)


def q4_k(blocks: Blocks) -> Floats:
    """f16 d | f16 dmin | 12 scales and minimums | 128 x two 4-bit. weight = d*scale * q - dmin*minimum."""
    scales, minimums = _scales_and_minimums(blocks[:, 4:16])
    numbers = _planes(blocks[:, 16:], 32, 4).astype(np.float32)
    return _scaled(_half(blocks, 0) * scales, numbers, _half(blocks, 2) * minimums)


def q5_k(blocks: Blocks) -> Floats:
    """f16 d | f16 dmin | 12 scales and minimums | 32 fifth bits | 128 x two 4-bit. weight as in Q4_K."""
    scales, minimums = _scales_and_minimums(blocks[:, 4:16])
    fifth = _planes(blocks[:, 16:48], 32, 1) << np.uint8(4)
    numbers = (_planes(blocks[:, 48:], 32, 4) | fifth).astype(np.float32)
    return _scaled(_half(blocks, 0) * scales, numbers, _half(blocks, 2) * minimums)


def q6_k(blocks: Blocks) -> Floats:
    """128 x two low 4-bit | 64 x four upper 2-bit | 16 int8 scales | f16 d. weight = d*scale * (q - 32)."""
    high = _planes(blocks[:, 128:192], 32, 2) << np.uint8(4)
    numbers = (_planes(blocks[:, :128], 64, 4) | high).astype(np.float32) - 32
    return _scaled(_half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32), numbers)


def iq4_nl(blocks: Blocks) -> Floats:
    """f16 d | 16 x two 4-bit. weight = d * level[q]."""
    return _half(blocks, 0) * _IQ4_LEVELS[_planes(blocks[:, 2:], 16, 4)]


def iq4_xs(blocks: Blocks) -> Floats:
    """f16 d | 2 upper scale bits | 4 low scale bits | 128 x two 4-bit. weight = d*(scale - 32) * level[q]."""
    high, low = _planes(blocks[:, 2:4], 1, 2), _planes(blocks[:, 4:8], 1, 4)
    scales = _half(blocks, 0) * ((low | high << np.uint8(4)).astype(np.float32) - 32)
    return _scaled(scales, _IQ4_LEVELS[_planes(blocks[:, 8:], 16, 4)])


def mxfp4(blocks: Blocks) -> Floats:
    """u8 exponent e | 16 x two E2M1. weight = 2^(e - 128) * doubled E2M1; e = 255 is a number here, as in ggml.

    Below e = 2 the scale is a subnormal float32, written out as bits so that no exponent underflows.
    """
    exponent = blocks[:, :1].astype(np.uint32)
    bits = np.where(exponent < 2, np.uint32(0x0020_0000) << exponent, (exponent - np.uint32(1)) << np.uint32(23))
    return bits.view(np.float32) * _E2M1_DOUBLED[_planes(blocks[:, 1:], 16, 4)]


def tq2_0(blocks: Blocks) -> Floats:
    """64 x four 2-bit | f16 d. weight = d * (q - 1)."""
    return _half(blocks, 64) * (_planes(blocks[:, :64], 32, 2).astype(np.float32) - 1)
