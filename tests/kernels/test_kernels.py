"""The linear kernels, each format on each instruction set, against NumPy and against each other.

The oracle of every block format is ``gguf.quants``; the oracle of the arithmetic is the contract in
native/kernels/isa/linear.h, written again in float64. One ISA is compared bit by bit with another.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from tenth import _core

ISAS = _core.kernel_isas()
FORMATS = {name: (gguf_id, weights, size, reads) for name, gguf_id, weights, size, _, reads in _core.formats()}
Q8_FORMATS = [name for name, row in FORMATS.items() if row[3] == "q8"]
each_isa = pytest.mark.parametrize("isa", ISAS)
each_format = pytest.mark.parametrize("name", FORMATS)
SCALE_BYTES: dict[str, tuple[int, ...]] = {  # where a block keeps float16 numbers; the rest of it may be any bytes
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,), "MXFP4": (),
    "IQ1_S": (0,), "IQ1_M": (48,), "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,), "IQ3_XXS": (0,), "IQ3_S": (0,),
    "TQ2_0": (64,),
}  # fmt: skip


def k_of(name: str, n_groups: int = 2) -> int:
    """A number of inputs that the format can hold."""
    return FORMATS[name][1] * n_groups if FORMATS[name][1] > 1 else 48 * n_groups + 3


def set_half(name: str, blocks: np.ndarray, at: int, halves: np.ndarray) -> None:
    """Puts float16 numbers [n] at byte ``at`` of blocks [n, bytes]."""
    if name == "IQ1_M":  # in pieces: four bits on top of each of four words, lowest first
        for i, piece in enumerate((at + 1, at + 3, at + 5, at + 7)):
            blocks[:, piece] = blocks[:, piece] & 15 | (halves.view(np.uint16) >> 4 * i & 15).astype(np.uint8) << 4
    else:
        blocks[:, at : at + 2] = halves.view(np.uint8).reshape(-1, 2)


@functools.cache
def random_rows(name: str, rows: int, k: int, seed: int = 0) -> np.ndarray:
    """Random file bytes [rows, row_bytes]: every bit pattern of weights and scales, float16 scales of sane size."""
    rng = np.random.default_rng([seed, rows, k])
    if name == "F32":
        return rng.standard_normal((rows, k), np.float32).view(np.uint8)
    if name == "F16":
        return rng.standard_normal((rows, k), np.float32).astype(np.float16).view(np.uint8)
    if name == "BF16":
        return (rng.standard_normal((rows, k), np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    _, weights, size, _ = FORMATS[name]
    blocks = rng.integers(0, 256, (rows * k // weights, size), np.uint8)
    for at in SCALE_BYTES[name]:
        set_half(name, blocks, at, rng.standard_normal(len(blocks)).astype(np.float16) / np.float16(8))
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(120, 132, len(blocks))
    return blocks.reshape(rows, -1)


def decoded(name: str, raw: np.ndarray) -> np.ndarray:
    """What gguf reads out of these bytes, float32 [rows, k]."""
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(FORMATS[name][0])).astype(np.float32, copy=False)


def random_x(n: int, k: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k), np.float32)


def rounded(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 8-bit rounding of activations: int8 [n, k] and float32 [n, k / 32]."""
    groups = x.reshape(len(x), -1, 32)
    most = np.abs(groups).max(-1)
    with np.errstate(divide="ignore"):
        inverse = np.where(most > 0, np.float32(127) / most, np.float32(0)).astype(np.float32)
    return np.rint(groups * inverse[..., None]).astype(np.int8).reshape(x.shape), most / np.float32(127)


def rounded_to_bf16(x: np.ndarray) -> np.ndarray:
    """To nearest with ties to even, by way of float64: eight bits of each number; 0 below 2^-50."""
    scale = np.exp2(np.frexp(x.astype(np.float64))[1] - 8.0)
    near = np.rint(x.astype(np.float64) / scale) * scale
    return np.where(np.abs(x) < 2.0**-50, 0, near).astype(np.float32)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(((a.view(np.int32) == b.view(np.int32)) | (np.isnan(a) & np.isnan(b))).all())


def test_every_format_has_the_sizes_that_gguf_gives_it() -> None:
    assert len(FORMATS) == 24
    for name, (gguf_id, weights, size, _) in FORMATS.items():
        kind = gguf.GGMLQuantizationType(gguf_id)
        assert kind.name == name
        assert gguf.GGML_QUANT_SIZES[kind] == (weights, size)


def test_panels_are_hardly_larger_than_the_file() -> None:
    for name, _, weights, size, panel, _ in _core.formats():
        # A float32 for each block's float16 scale keeps loads aligned, which counts for more the smaller the blocks.
        least = 0.03 if weights < 256 or size > 66 else 0.04
        assert 16 * size <= panel <= 16 * size * (1.06 if name == "Q3_K" else 1 + least), name


@each_isa
@each_format
def test_a_decoded_row_has_the_bits_of_gguf(isa: str, name: str) -> None:
    k = k_of(name, 3)
    raw = random_rows(name, 21, k)
    packed = _core.pack(isa, name, raw)
    rows = np.stack([_core.decode_row(isa, name, packed, 21, k, row) for row in range(21)])
    assert same_bits(rows, decoded(name, raw))


@each_isa
def test_every_exponent_of_mxfp4_decodes(isa: str) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (256, 17), np.uint8)
    raw[:, 0] = np.arange(256)
    packed = _core.pack(isa, "MXFP4", raw)
    rows = np.stack([_core.decode_row(isa, "MXFP4", packed, 256, 32, row) for row in range(256)])
    assert same_bits(rows, decoded("MXFP4", raw))


@each_isa
def test_activations_are_rounded_as_the_contract_says(isa: str) -> None:
    for n in (1, 3, 4, 7, 16, 21):
        x = random_x(n, 96, seed=n) * np.exp2(np.arange(n, dtype=np.float32))[:, None]
        x[0, :32] = 0
        x[-1, 32:64] = np.arange(32) - 15.5  # ties
        q, scale = _core.quantize(isa, x)
        want_q, want_scale = rounded(x)
        assert (q == want_q).all()
        assert same_bits(scale, want_scale)


@each_isa
@each_format
def test_a_product_is_the_decoded_weights_times_the_rounded_activations(isa: str, name: str) -> None:
    for rows, k in ((40, k_of(name, 2)), (16, k_of(name, 1))):
        raw, x = random_rows(name, rows, k), random_x(5, k)
        got = _core.product(isa, name, _core.pack(isa, name, raw), rows, k, x)
        exact = x.astype(np.float64)
        if name in Q8_FORMATS:
            q, scale = rounded(x)
            exact = q.astype(np.float64) * np.repeat(scale, 32, axis=1)
        if name == "BF16":
            exact = rounded_to_bf16(x).astype(np.float64)
        w = decoded(name, raw).astype(np.float64)
        # float32 rounding in every one of k / 32 steps (k for floats) of sums whose parts add up to `size`
        size = np.abs(exact) @ np.abs(w).T
        assert (np.abs(got - exact @ w.T) <= 3e-6 * size).all()


def same_on_all(name: str, raw: np.ndarray, x: np.ndarray, **options: object) -> np.ndarray:
    """The product, after checking that each instruction set gives the same bits."""
    rows, k = len(raw), x.shape[1]
    packed = {isa: _core.pack(isa, name, raw) for isa in ISAS}
    results = {isa: _core.product(isa, name, packed[isa], rows, k, x, **options) for isa in ISAS}
    for isa in ISAS:
        assert (packed[isa] == packed["scalar"]).all()
        assert same_bits(results[isa], results["scalar"]), isa
    return results["scalar"]


def test_bf16_rounds_activations_once_and_flushes_nothing_else() -> None:
    """Ties, numbers about to be zero, signs of zero: against two fused multiply-adds written out exactly."""
    rng, k, rows = np.random.default_rng(3), 37, 19
    x = np.exp2(rng.uniform(-60, 20, (24, k))).astype(np.float32) * rng.choice([-1, 1], (24, k)).astype(np.float32)
    x[0, ::2] = (1 + np.arange(19) / 256).astype(np.float32)  # every other one is a tie
    x[1, ::3] = 2.0**-50 * np.array([1, 0.999, -1, -0.999, 0, -0.0, 0.5, 1.004, 0.9981, 2, -2, 1e-9, 1])
    w = np.exp2(rng.uniform(-60, 10, (rows, k))).astype(np.float32) * rng.choice([-1, 1], (rows, k)).astype(np.float32)
    raw = (w.view(np.uint32) >> 16).astype(np.uint16)
    kept = np.where((raw & 0x7FFF) < np.float32(2.0**-50).view(np.uint32) >> 16, 0, raw).astype(np.uint32)
    weights, numbers = (kept << 16).view(np.float32), rounded_to_bf16(x)
    assert same_bits(decoded_panels("BF16", raw.view(np.uint8), k), weights)
    sums = [np.zeros((24, rows), np.float32), np.zeros((24, rows), np.float32)]
    for pair in range(-(-k // 2)):
        for i in (2 * pair + 1, 2 * pair):  # the second before the first
            if i < k:  # products are exact in float64, and so is rounding their sum with a float32 once: 48 bits and 24
                product = numbers[:, None, i].astype(np.longdouble) * weights[None, :, i]
                sums[pair % 2] = (sums[pair % 2].astype(np.longdouble) + product).astype(np.float32)
    got = same_on_all("BF16", raw.view(np.uint8), x)
    assert same_bits(got, sums[0] + sums[1])


def decoded_panels(name: str, raw: np.ndarray, k: int) -> np.ndarray:
    packed = _core.pack(ISAS[-1], name, raw)
    return np.stack([_core.decode_row(ISAS[-1], name, packed, len(raw), k, row) for row in range(len(raw))])


def test_infinite_and_undefined_activations_show_in_the_products_of_bf16() -> None:
    raw, x = random_rows("BF16", 16, 64), random_x(4, 64)
    x[1, 5], x[2, 40], x[3, 40] = np.inf, np.nan, np.uint32(0xFFFFFFFF).view(np.float32)
    finite = np.isfinite(same_on_all("BF16", raw, x))
    assert finite[0].all()
    assert not finite[1:].any()


@each_format
@pytest.mark.parametrize("columns", [1, 9, 17, 23, 100])
def test_any_number_of_inputs_has_the_same_bits_everywhere(name: str, columns: int) -> None:
    """Odd ones too, and more than one strip of them, where a format can have them."""
    if FORMATS[name][1] == 1:
        for k in (1, 2, 3, 5, 1030, 1155):
            same_on_all(name, random_rows(name, 18, k), random_x(columns, k))


@each_format
def test_a_gated_product_is_two_products_joined_and_rounded(name: str) -> None:
    """In several strips of k, for pairs of panels that fill no group of them, in any number of parts."""
    rows, k = 7 * 32, k_of(name, 17)
    reads = FORMATS[name][3]
    gate, up = random_rows(name, rows, k), random_rows(name, rows, k, seed=1)
    x = random_x(271 if reads == "bf16" else 48, k)
    made = 0
    for isa in ISAS:
        packed = [_core.pack(isa, name, raw) for raw in (gate, up)]
        joined = np.multiply(*(_core.product(isa, name, panels, rows, k, x) for panels in packed))
        for parts in (1, 3):
            got = _core.gated(isa, name, *packed, rows, k, x, parts)
            made += got is not None
            assert got is None or (got == _core.round_rows(isa, reads, joined)).all(), (isa, parts)
    assert made or name not in Q8_FORMATS or len(ISAS) == 1


@each_format
def test_rows_are_packed_alike_on_every_instruction_set(name: str) -> None:
    """Any bytes, also of scales; any number of rows, at odd addresses; the scalar twin packs row by row."""
    size, k = FORMATS[name][2], k_of(name, 3)
    row_bytes = k // FORMATS[name][1] * size
    data = np.random.default_rng(7).integers(0, 256, 33 * row_bytes + 1, np.uint8)
    for rows in (*range(1, 18), 33):
        raw = data[1 : 1 + rows * row_bytes].reshape(rows, row_bytes)
        panels = _core.pack("scalar", name, raw)
        wrong = _core.not_finite_rows("scalar", name, raw)
        for isa in ISAS:
            assert (_core.pack(isa, name, raw) == panels).all(), (isa, rows)
            assert _core.not_finite_rows(isa, name, raw) == wrong, (isa, rows)


@each_format
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 40])
def test_all_instruction_sets_give_the_same_bits(name: str, rows: int) -> None:
    k = k_of(name, 2)
    same_on_all(name, random_rows(name, rows, k), random_x(6, k))


@each_format
def test_many_rows_have_the_same_bits_everywhere(name: str) -> None:
    """Enough of everything for kernels that work in pieces: odd panels, tiles and a rest, k beyond 48 blocks of 32."""
    rows, k = 16 * 5 + 3, k_of(name, max(1, 1792 // FORMATS[name][1])) if name in Q8_FORMATS else 99
    bias, residual = random_x(1, rows)[0], random_x(70, rows, seed=9)
    raw, x = random_rows(name, rows, k), random_x(70, k)
    got = same_on_all(name, raw, x, bias=bias, residual=residual, splits=2, misalign=4)
    alone = same_on_all(name, raw, x[:1], bias=bias, residual=residual[:1])
    assert same_bits(got[:1], alone)


def test_a_whole_prompt_at_once_has_the_same_bits_everywhere() -> None:
    for name in ("Q4_0", "Q6_K", "BF16"):
        same_on_all(name, random_rows(name, 35, k_of(name, 1)), random_x(16 * 35 + 5, k_of(name, 1)))


@pytest.mark.parametrize("columns", [15, 16])
def test_few_rows_of_bf16_have_the_same_bits_where_they_do_not_fit_at_once(columns: int) -> None:
    same_on_all("BF16", random_rows("BF16", 18, 9001), random_x(columns, 9001))


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name][1] <= 32])
@pytest.mark.parametrize("k", [32, 576, 896])
def test_sizes_that_are_not_multiples_of_256_work(name: str, k: int) -> None:
    same_on_all(name, random_rows(name, 17, k), random_x(2, k))


@each_isa
@each_format
def test_a_row_does_not_depend_on_the_rows_beside_it(isa: str, name: str) -> None:
    rows, k = 33, k_of(name, 1)
    packed, x = _core.pack(isa, name, random_rows(name, rows, k)), random_x(49, k)
    alone = np.concatenate([_core.product(isa, name, packed, rows, k, x[i : i + 1]) for i in range(49)])
    for n in [*range(1, 18), 20, 33, 49]:  # kernels for many rows begin at 32 (AMX) and 48
        assert same_bits(_core.product(isa, name, packed, rows, k, x[:n]), alone[:n]), n


@each_isa
@each_format
def test_a_product_may_be_split_anywhere(isa: str, name: str) -> None:
    rows, k = 16 * 11 + 3, k_of(name, 1)
    packed, x = _core.pack(isa, name, random_rows(name, rows, k)), random_x(18, k)
    whole = _core.product(isa, name, packed, rows, k, x)
    for splits in (2, 3, 7, 20):
        assert same_bits(_core.product(isa, name, packed, rows, k, x, splits=splits), whole)


@each_isa
@each_format
def test_bias_and_residual_are_added_in_that_order(isa: str, name: str) -> None:
    rows, k = 21, k_of(name, 1)
    packed, x = _core.pack(isa, name, random_rows(name, rows, k)), random_x(6, k)
    bias, residual = random_x(1, rows)[0], random_x(6, rows, seed=9)
    plain = _core.product(isa, name, packed, rows, k, x)
    both = _core.product(isa, name, packed, rows, k, x, bias=bias, residual=residual)
    assert same_bits(both, (plain + bias) + residual)


@each_isa
@each_format
def test_no_buffer_needs_alignment(isa: str, name: str) -> None:
    rows, k = 21, k_of(name, 1)
    packed, x = _core.pack(isa, name, random_rows(name, rows, k)), random_x(5, k)
    plain = _core.product(isa, name, packed, rows, k, x)
    for misalign in (4, 20):
        assert same_bits(_core.product(isa, name, packed, rows, k, x, misalign=misalign), plain)


@pytest.mark.parametrize("name", Q8_FORMATS)
@pytest.mark.parametrize("byte", [0x00, 0x7F, 0x80, 0xFF])
def test_extreme_weights_do_not_overflow(name: str, byte: int) -> None:
    k = k_of(name, 2)
    raw = random_rows(name, 16, k).copy().reshape(-1, FORMATS[name][2])
    keep = {at + i for at in SCALE_BYTES[name] for i in (0, 1)}
    keep |= {"MXFP4": {0}, "IQ1_M": {49, 51, 53, 55}}.get(name, set())
    raw[:, [i for i in range(raw.shape[1]) if i not in keep]] = byte
    raw = raw.reshape(16, -1)
    x = np.stack([np.ones(k), -np.ones(k), np.tile([1, -1], k // 2)]).astype(np.float32)
    x = np.tile(x, (17, 1))  # as many rows as every kernel wants
    got = same_on_all(name, raw, x)
    want = rounded(x)[0].astype(np.float64) / 127 @ decoded(name, raw).astype(np.float64).T
    assert np.abs(got - want).max() <= 1e-5 * np.abs(decoded(name, raw)).sum(1).max()


@each_format
def test_zero_activations_give_zero(name: str) -> None:
    k = k_of(name, 1)
    assert (same_on_all(name, random_rows(name, 17, k), np.zeros((5, k), np.float32)) == 0).all()


@each_format
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, 1e-45])
def test_extreme_activations_stay_in_their_row(name: str, bad: float) -> None:
    k = k_of(name, 1)
    raw, x = random_rows(name, 17, k), random_x(34, k)
    clean = same_on_all(name, raw, x)
    x[2, 5:7] = bad
    got = same_on_all(name, raw, x)
    assert same_bits(np.delete(got, 2, axis=0), np.delete(clean, 2, axis=0))
    if not np.isfinite(bad):
        assert not np.isfinite(got[2]).any()


def test_tiny_activations_do_not_trap() -> None:
    x = np.full((2, 64), 1e-45, np.float32)
    x[:, ::3] = 0
    for name in ("Q4_0", "Q8_0"):
        assert np.isfinite(same_on_all(name, random_rows(name, 16, 64), x)).all()


@pytest.mark.parametrize("name", [name for name in Q8_FORMATS if SCALE_BYTES[name]])
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 6e-8])
def test_extreme_scales_stay_in_their_weight_row(name: str, scale: float) -> None:
    k = k_of(name, 1)
    raw = random_rows(name, 17, k).copy()
    clean = same_on_all(name, raw, random_x(37, k))
    for at in SCALE_BYTES[name]:
        set_half(name, raw[3:4], at, np.array([scale], np.float16))
    got = same_on_all(name, raw, random_x(37, k))
    assert same_bits(np.delete(got, 3, axis=1), np.delete(clean, 3, axis=1))


def test_wrong_arguments_are_refused() -> None:
    isa, x = ISAS[0], random_x(2, 64)
    raw = random_rows("Q4_0", 16, 64)
    packed = _core.pack(isa, "Q4_0", raw)
    for call in (
        lambda: _core.pack("sse9", "Q4_0", raw),
        lambda: _core.pack(isa, "Q9_9", raw),
        lambda: _core.pack(isa, "Q4_0", raw[:, :-1]),
        lambda: _core.pack(isa, "Q4_0", raw[:0]),
        lambda: _core.product(isa, "Q4_0", packed, 17, 64, x),
        lambda: _core.product(isa, "Q4_0", packed, 16, 96, x),
        lambda: _core.product(isa, "Q4_0", packed, 16, 33, x),
        lambda: _core.product(isa, "Q4_0", packed, -16, 64, x),
        lambda: _core.product(isa, "Q4_0", packed[:-1], 16, 64, x),
        lambda: _core.product(isa, "Q4_0", packed, 16, 64, x[:, :32]),
        lambda: _core.product(isa, "Q4_0", packed, 16, 64, x[:0]),
        lambda: _core.product(isa, "Q4_0", packed, 16, 64, x, splits=0),
        lambda: _core.product(isa, "Q4_0", packed, 16, 64, x, misalign=3),
        lambda: _core.product(isa, "Q4_0", packed, 16, 64, x, bias=x[0]),
        lambda: _core.product(isa, "Q4_0", packed, 16, 64, x, residual=x),
        lambda: _core.decode_row(isa, "Q4_0", packed, 16, 64, 16),
        lambda: _core.decode_row(isa, "Q4_0", packed, 16, 64, -1),
        lambda: _core.quantize(isa, x[:, :33]),
    ):
        with pytest.raises((ValueError, TypeError)):
            call()


def chosen_isa(value: str | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TENTH_ISA": value or ""}
    code = "from tenth import _core; print(_core.kernel_isa())"
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


@each_isa
def test_an_environment_variable_chooses_the_instruction_set(isa: str) -> None:
    assert chosen_isa(isa).stdout.strip() == isa


def test_the_best_instruction_set_is_the_default() -> None:
    assert chosen_isa(None).stdout.strip() == ISAS[-1]


def test_instruction_sets_stand_from_slowest_to_fastest() -> None:
    """The last that a CPU has is used: AVX-VNNI before AVX2, but only without AVX-512."""
    assert [isa for isa in ("scalar", "avx2", "avxvnni", "avx512", "vbmi", "amx") if isa in ISAS] == ISAS
    flags = Path("/proc/cpuinfo").read_text().split()
    for isa, flag in (("avx2", "avx2"), ("avxvnni", "avx_vnni"), ("avx512", "avx512_vnni"), ("vbmi", "avx512vbmi")):
        assert (isa in ISAS) == (flag in flags), isa


def test_an_unknown_instruction_set_is_a_resource_error_with_a_hint() -> None:
    run = chosen_isa("sse9")
    assert run.returncode != 0
    assert "tenth.errors.ResourceError: TENTH_ISA=sse9 is not known; expected one of scalar, avx2" in run.stderr
    assert "hint: unset TENTH_ISA" in run.stderr


def finite_and_not(name: str) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """(byte of a block, what to put there): numbers at the edge of what is finite, and infinities and NaNs."""
    if name == "MXFP4":
        return [(0, b"\xfe")], [(0, b"\xff")]
    if name in ("F32", "BF16"):  # BF16 is the upper half of F32
        size = FORMATS[name][2]
        halves = [b"\xff\xff\x7f\x7f"[-size:]], [b"\x00\x00\x80\x7f"[-size:], b"\x01\x00\xc1\xff"[-size:]]
        return [(0, half) for half in halves[0]], [(0, half) for half in halves[1]]
    places = SCALE_BYTES.get(name, (0,))
    return (
        [(at, half) for at in places for half in (b"\xff\x7b", b"\x00\x80", b"\x01\x00")],
        [(at, half) for at in places for half in (b"\x00\x7c", b"\x00\xfc", b"\x00\x7e", b"\x01\xfd")],
    )


@each_isa
@each_format
def test_packing_notices_scales_and_weights_that_are_not_finite(isa: str, name: str) -> None:
    rows, k = 37, k_of(name, 2)
    raw, size = random_rows(name, rows, k), FORMATS[name][2]
    fine, wrong = finite_and_not(name)
    assert _core.not_finite_rows(isa, name, raw) == []
    for row in (0, 15, 16, 36):
        for block in (0, raw.shape[1] // size - 1):
            for number, (at, content) in enumerate([*fine, *wrong]):
                changed = raw.copy()
                start = block * size + at
                if name == "IQ1_M":
                    set_half(name, changed[row : row + 1, start - at :], at, np.frombuffer(content, np.float16))
                else:
                    changed[row, start : start + len(content)] = list(content)
                assert _core.not_finite_rows(isa, name, changed) == [row] * (number >= len(fine)), (row, block, content)
