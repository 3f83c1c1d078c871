"""NumPy decode of every format against the gguf package, bit for bit, and against numbers worked out by hand."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from tenth.weights.formats import FORMATS, TYPES, TYPES_BY_NAME, WITHDRAWN, Format

# Where each format keeps half-precision scales, for blocks whose scales are extreme on purpose.
HALF_SCALES = {
    "F16": [0], "BF16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
    "IQ1_S": [0], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "TQ2_0": [64],
    "IQ1_M": [49, 51, 53, 55],  # four bits of it in the upper half of each, lowest first
}  # fmt: skip
# zero, negative zero, least and greatest subnormal, least normal, one, greatest, infinities, NaNs
EXTREME_HALVES = [
    0x0000,
    0x8000,
    0x0001,
    0x03FF,
    0x0400,
    0x3C00,
    0x7BFF,
    0xFBFF,
    0x7C00,
    0xFC00,
    0x7E00,
    0xFE01,
    0x7D00,
]
EXTREME_HALVES += [0x7F80, 0xFF80, 0x7FC0]  # infinities and NaN of BF16
EXTREME_SINGLES = [0, 0x80000000, 1, 0x007FFFFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC01234]


def expected_of(name: str, blocks: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        decoded = gguf.quants.dequantize(blocks.copy(), GGMLQuantizationType[name])
    return np.asarray(decoded, np.float32).reshape(len(blocks), -1)


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal bit patterns (so -0.0 is not 0.0), except that any NaN equals any NaN."""
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(found.view(np.uint32)[numbers], expected.view(np.uint32)[numbers])


def extreme_blocks(name: str, rng: np.random.Generator) -> np.ndarray:
    kind = FORMATS[name]
    if name == "F32":
        return np.array(EXTREME_SINGLES, "<u4").view(np.uint8).reshape(-1, 4)
    if name == "MXFP4":
        blocks = rng.integers(0, 256, (256, kind.block_bytes), np.uint8)
        blocks[:, 0] = np.arange(256)  # every exponent there is
        return blocks
    fills = [np.full((1, kind.block_bytes), value, np.uint8) for value in (0, 255, 0x55, 0xAA, 0x80, 0x7F)]
    fills += [rng.integers(0, 256, (4, kind.block_bytes), np.uint8)]
    blocks = []
    for fill in fills:
        for first in EXTREME_HALVES:
            for second in EXTREME_HALVES if len(HALF_SCALES[name]) == 2 else [0]:
                block = fill.copy()
                if name == "IQ1_M":
                    for i, place in enumerate(HALF_SCALES[name]):
                        block[:, place] = block[:, place] & 15 | (first >> 4 * i & 15) << 4
                else:
                    for place, bits in zip(HALF_SCALES[name], (first, second), strict=False):
                        block[:, place : place + 2] = np.frombuffer(struct.pack("<H", bits), np.uint8)
                blocks.append(block)
    return np.concatenate(blocks)


@pytest.mark.parametrize("name", FORMATS)
def test_random_blocks_decode_as_in_the_gguf_package(name: str) -> None:
    blocks = np.random.default_rng(7).integers(0, 256, (2000, FORMATS[name].block_bytes), np.uint8)
    assert_same_bits(FORMATS[name].decode(blocks), expected_of(name, blocks))


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_with_extreme_scales_decode_as_in_the_gguf_package(name: str) -> None:
    blocks = extreme_blocks(name, np.random.default_rng(8))
    expected = expected_of(name, blocks)
    assert name == "MXFP4" or (np.isnan(expected).any() and np.isinf(expected).any())
    assert_same_bits(FORMATS[name].decode(blocks), expected)


def test_every_half_and_bfloat_there_is_decodes_as_in_the_gguf_package() -> None:
    blocks = np.arange(65536, dtype="<u2").view(np.uint8).reshape(-1, 2)
    for name in ("F16", "BF16"):
        assert_same_bits(FORMATS[name].decode(blocks), expected_of(name, blocks))


@pytest.mark.parametrize("name", FORMATS)
def test_no_block_and_one_block_decode_and_the_input_is_left_alone(name: str) -> None:
    kind = FORMATS[name]
    assert kind.decode(np.empty((0, kind.block_bytes), np.uint8)).shape == (0, kind.block_weights)
    block = np.arange(kind.block_bytes, dtype=np.uint8)[None]
    before = block.copy()
    assert kind.decode(block).shape == (1, kind.block_weights)
    np.testing.assert_array_equal(block, before)


def test_blocks_of_a_wrong_size_are_our_own_bug() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[n, 18\]"):
        FORMATS["Q4_0"].decode(np.zeros((1, 17), np.uint8))


def half(value: float) -> bytes:
    return struct.pack("<e", value)


# Worked out from the layouts, independently of the gguf package: block -> {index of weight: weight}.
BY_HAND: dict[str, tuple[bytes, dict[int, float]]] = {
    "Q4_0": (half(0.5) + bytes([0xF1]) + bytes([0x88] * 15), {0: (1 - 8) * 0.5, 16: (15 - 8) * 0.5, 1: 0, 31: 0}),
    "Q4_1": (half(0.5) + half(-3) + bytes([0xF1]) + bytes(15), {0: -2.5, 16: 4.5, 31: -3}),
    "Q5_0": (half(2) + struct.pack("<I", 1 << 16) + bytes([0x0F] + [0] * 15), {0: (15 - 16) * 2, 16: 0, 1: -32}),
    "Q5_1": (half(2) + half(1) + struct.pack("<I", 1 << 31) + bytes(15) + bytes([0x30]), {0: 1, 31: (16 + 3) * 2 + 1}),
    "Q8_0": (half(0.25) + struct.pack("<32b", -128, 127, *range(30)), {0: -32, 1: 31.75, 31: 29 / 4}),
    # scale 2 and minimum 3 of the first group; q = 1 for weight 0, and 3 for weight 96 (group 6: scale 0, minimum 0)
    "Q2_K": (bytes([0x32] + [0] * 15) + bytes([0xC1] + [0] * 63) + half(1) + half(0.5),
             {0: 2 * 1 - 1.5, 1: -1.5, 96: 0}),
    # all third bits set: offset 0; scale bits of group 0: low 5, high 2 -> 37 - 32 = 5
    "Q3_K": (b"\xff" * 32 + bytes([3] + [0] * 63) + bytes([5] + [0] * 7) + bytes([2, 0, 0, 0]) + half(1),
             {0: 15, 1: 0, 128: 0}),
    # scale 0 = 9, minimum 0 = 2; scale 4 = low nibble of byte 8 (3) with upper bits of byte 0 (1) -> 19
    "Q4_K": (half(1) + half(2) + bytes([0x40 | 9, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]) + bytes([0xA7] + [0] * 63)
             + bytes([0x05] + [0] * 63), {0: 9 * 7 - 4, 1: -4, 32: 0, 128: 19 * 5}),
    "Q5_K": (half(1) + half(2) + bytes([9, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]) + bytes([1] + [0] * 31)
             + bytes([0x07] + [0] * 127), {0: 9 * 23 - 4, 1: -4}),
    # q = low 5 | high 2 << 4 = 37 -> 5; scale -3
    "Q6_K": (bytes([5] + [0] * 127) + bytes([2] + [0] * 63) + struct.pack("<16b", -3, *[0] * 15) + half(0.5),
             {0: -7.5, 1: 48}),
    "IQ4_NL": (half(2) + bytes([0xF0] + [0x88] * 15), {0: -254, 16: 226, 1: 2}),
    # scale of group 0: low nibble 1, high bits 2 -> 33 - 32 = 1; group 7: low 0, high 3 -> 16
    "IQ4_XS": (half(1) + struct.pack("<H", 2 | 3 << 14) + bytes([0x01, 0, 0, 0]) + bytes(112) + bytes([0x0F] * 16),
               {0: -127, 224: 16 * 113, 240: 16 * -127}),
    # exponent 128 -> scale 2^0; codes 7 (twelve halves -> 12) and 15
    "MXFP4": (bytes([128, 0xF7] + [0x10] * 15), {0: 12, 16: -12, 1: 0, 17: 1}),
    # point 1 is 43 and seven times 8, point 0 eight times 8; sign index 1: weight 0, and weight 7 to make them even
    "IQ2_XXS": (half(8) + struct.pack("<4BI", 1, 0, 0, 0, 1 | 2 << 28) + bytes(56),
                {0: 5 * -43, 1: 5 * 8, 7: 5 * -8, 8: 5 * 8, 32: 8}),
    # the last point is eight times 43; scales 1 and 2 of the first two groups of 16
    "IQ2_XS": (half(8) + struct.pack("<H", 511 | 3 << 9) + bytes(62) + bytes([0x21] + [0] * 7),
               {0: 3 * -43, 1: 3 * -43, 2: 3 * 43, 7: 3 * 43, 8: 3 * 8, 16: 5 * 8, 32: 8}),
    "IQ2_S": (half(8) + bytes([255] + [0] * 31) + bytes([0x80] + [0] * 31) + bytes([3] + [0] * 7)
              + bytes([0xF0] + [0] * 7), {0: 43, 7: -43, 16: 31 * 8, 32: 8}),
    # point 5 is 62 12 4 4
    "IQ3_XXS": (half(4) + bytes([5] + [0] * 63) + struct.pack("<8I", 2 | 3 << 28, *[0] * 7),
                {0: 7 * 62, 1: 7 * -12, 4: 7 * 4, 7: 7 * -4, 32: 4}),
    # the last point is 1 1 15 15
    "IQ3_S": (half(1) + bytes([255] + [0] * 63) + bytes([1] + [0] * 7) + bytes([2] + [0] * 31)
              + bytes([0x10, 0, 0, 0]), {0: 1, 1: -1, 2: 15, 3: 15, 4: 1, 32: 3}),
    # the first point is eight times -1, the last one eight times 1
    "IQ1_S": (half(8) + bytes([255] + [0] * 31) + struct.pack("<8H", 7 | 1 << 12 | 1 << 15, *[0] * 7),
              {0: 24 * 0.875, 8: 24 * -1.125, 32: 8 * -0.875}),
    "IQ1_M": (bytes([255] + [0] * 31) + bytes([15] + [0] * 15) + struct.pack("<4H", 1 | 2 << 3, 0, 0x8000, 0x4000),
              {0: 24 * 0.875, 8: 24 * -0.875, 16: 40 * -0.875, 32: 8 * -0.875}),
    "TQ2_0": (bytes([0xE4] + [0] * 63) + half(0.5), {0: -0.5, 32: 0, 64: 0.5, 96: 1}),
    "BF16": (b"\x80\x3f", {0: 1}),
    "F16": (half(-0.5), {0: -0.5}),
    "F32": (struct.pack("<f", 0.75), {0: 0.75}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_block_decodes_to_the_numbers_worked_out_by_hand(name: str) -> None:
    block, expected = BY_HAND[name]
    weights = FORMATS[name].decode(np.frombuffer(block, np.uint8)[None])[0]
    assert {index: float(weights[index]) for index in expected} == expected


def test_the_table_of_types_is_the_one_of_the_gguf_package() -> None:
    ours = {t.gguf_id: (t.name, t.block_weights, t.block_bytes) for t in TYPES.values()}
    assert ours == {int(kind): (kind.name, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType}
    assert len(TYPES_BY_NAME) == len(TYPES)
    assert not WITHDRAWN.keys() & TYPES.keys()


def test_the_grids_are_those_of_the_gguf_package() -> None:
    script = Path(__file__).parents[2] / "scripts" / "make_grids.py"
    run = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


def test_exactly_the_promised_formats_are_decoded() -> None:
    promised = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 "
    promised += "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S TQ2_0"
    assert list(FORMATS) == promised.split()
    assert all(isinstance(TYPES_BY_NAME[name], Format) for name in FORMATS)
