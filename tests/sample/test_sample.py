"""Native sampling against its NumPy meaning, bit for bit, and against what probability theory says."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tenth import _core
from tenth.batch import SAMPLE_NOT_A_NUMBER, SAMPLE_NOTHING_ALLOWED, Sampling

from . import meaning

SIZES = [1, 5, 63, 64, 65, 200, 1000, 4999, 20011]


def settings(m, **changes):
    """Sampling for m rows at temperature 1, seed = row number, with whole columns changed."""
    s = Sampling.greedy(m)
    s.temperature[:] = 1
    s.seed[:] = np.arange(m)
    for name, value in changes.items():
        column = getattr(s, name)
        if isinstance(column, np.ndarray):
            column[:] = value
        else:
            setattr(s, name, value)
    return s


def rows(m, vocab, seed=0, spread=3.0):
    return (np.random.default_rng(seed).standard_normal((m, vocab)) * spread).astype(np.float32)


@np.errstate(over="ignore", invalid="ignore")
def same(logits, s):
    tokens, logprobs, top_ids, top_logprobs = _core.sample_rows(logits, s.packed())
    want = meaning.sample_rows(logits, s)
    np.testing.assert_array_equal(tokens, want[0])
    np.testing.assert_array_equal(logprobs, want[1])
    for i, n in enumerate(s.n_top):
        np.testing.assert_array_equal(top_ids[i, : min(n, logits.shape[1])], want[2][i])
        np.testing.assert_array_equal(top_logprobs[i, : min(n, logits.shape[1])], want[3][i])
    return tokens


FILTERS = {
    "none": {},
    "greedy": {"temperature": 0},
    "cold": {"temperature": 0.01},
    "coldest": {"temperature": 1e-45},
    "hot": {"temperature": 5},
    "top_k_1": {"top_k": 1},
    "top_k_40": {"top_k": 40},
    "top_k_above_blocks": {"top_k": 700},
    "top_k_all": {"top_k": 1 << 20},
    "top_p_small": {"top_p": 0.05},
    "top_p_90": {"top_p": 0.9},
    "top_p_hot": {"top_p": 0.97, "temperature": 3},
    "top_p_nearly_all": {"top_p": 0.9999999},
    "min_p": {"min_p": 0.05},
    "min_p_one": {"min_p": 1},
    "all": {"temperature": 0.7, "top_k": 50, "top_p": 0.8, "min_p": 0.02},
    "top_p_min_p": {"temperature": 1.3, "top_p": 0.95, "min_p": 0.1},
}


@pytest.mark.parametrize("vocab", SIZES)
@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_equals_a_full_sort(name, vocab):
    same(rows(6, vocab, seed=vocab), settings(6, **FILTERS[name], n_top=min(vocab, 5)))


@pytest.mark.parametrize("name", FILTERS)
def test_equal_logits_are_taken_by_lower_id(name):
    logits = np.round(rows(6, 3000, seed=7)).astype(np.float32)  # many ties
    logits[5] = 0
    logits[4, ::2] = -0.0
    same(logits, settings(6, **FILTERS[name], n_top=20))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("spread", [0.0, 1e-3, 30.0, 1e4, 1e38])
def test_extreme_spreads_agree_and_are_finite(name, spread):
    logits = rows(4, 777, seed=3, spread=1)
    logits = np.clip(logits, -3, 3) * np.float32(spread)
    logits[:, ::5] = -np.inf
    same(logits, settings(4, **FILTERS[name]))


def test_a_whole_vocabulary_agrees():
    logits = rows(2, 152_064, seed=1)
    for name in ("none", "greedy", "top_k_40", "top_p_90", "top_p_hot", "min_p", "all"):
        same(logits, settings(2, **FILTERS[name], n_top=20))


def test_penalties_and_bias_and_mask_agree():
    random = np.random.default_rng(4)
    m, vocab = 8, 1000
    allowed = random.random((m, 1024)) < 0.5
    mask = np.packbits(allowed, axis=1, bitorder="little").view(np.uint32)
    history = [random.integers(0, vocab, 50 * i).astype(np.int32) % 300 for i in range(m)]
    ids, values = random.integers(0, vocab, (m, 9)), random.normal(0, 5, (m, 9))
    bias = list(zip(ids.astype(np.int32), values.astype(np.float32), strict=True))
    for temperature in (0, 0.8):
        for extra in ({}, {"mask": mask}):
            s = settings(m, temperature=temperature, repetition=1.3, presence=0.4, frequency=0.2, bias=bias,
                         n_prompt=[20 * i for i in range(m)], history=history, n_top=3)
            same(rows(m, vocab, seed=5), dataclasses.replace(s, **extra))


def test_presence_and_frequency_pass_over_the_prompt_but_repetition_does_not():
    logits = np.array([[2.0, 1.5, 0.0]], np.float32)
    history = [np.array([0], np.int32)]

    def token(**changes):
        return _core.sample_rows(logits, settings(1, temperature=0, history=history, **changes).packed())[0][0]

    assert token(presence=1, n_prompt=1) == 0
    assert token(presence=1) == 1
    assert token(frequency=1) == 1
    assert token(repetition=2, n_prompt=1) == 1


@pytest.mark.parametrize("change", [{"temperature": 0}, {}, {"top_p": 0.9}, {"top_k": 40, "n_top": 5}])
@pytest.mark.parametrize("vocab", [(1 << 16) - 1, 1 << 16, 70001])
def test_a_single_row_is_the_same_however_many_share_it(vocab, change):
    for seed in range(3):
        s, logits = settings(1, seed=seed, **change), rows(1, vocab, seed=seed)
        if seed == 2:
            logits[0, -1] = np.nan  # in the last block, which is not whole
        alone, *shared = (_core.sample_rows(logits, s.packed(), threads) for threads in (1, 2, 3))
        assert alone[0][0] == SAMPLE_NOT_A_NUMBER if seed == 2 else alone[0][0] >= 0
        for other in shared:
            for one, same_one in zip(alone, other, strict=True):
                np.testing.assert_array_equal(one, same_one)


def test_log_probabilities_are_those_of_the_raw_row():
    logits = rows(3, 5000, seed=8)
    bias = [(np.array([17], np.int32), np.array([100], np.float32))] * 3
    s = settings(3, temperature=0.1, top_k=1, bias=bias, n_top=4)
    tokens, logprobs, top_ids, top_logprobs = _core.sample_rows(logits, s.packed())
    wide = logits.astype(np.float64)
    exact = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    assert (tokens == 17).all()
    np.testing.assert_allclose(logprobs, exact[:, 17], atol=2e-6)
    np.testing.assert_array_equal(top_ids, np.argsort(-logits, axis=1, kind="stable")[:, :4])
    np.testing.assert_allclose(top_logprobs, np.take_along_axis(exact, top_ids, axis=1), atol=2e-6)


def test_exp_is_accurate_to_two_units():
    x = np.linspace(-86.9, 0, 200_001).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(meaning.exp(x) - exact) / exact) < 2 * 2.0**-23


def test_random_numbers_match_the_published_vectors():
    # Known answers of Random123, kat_vectors, philox4x32 10.
    ones = 0xFFFFFFFF
    assert meaning.philox((0, 0, 0, 0), (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert meaning.philox((ones,) * 4, (ones, ones)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    for seed, counter in [(0, 0), (1, 2), (2**64 - 1, 2**63), (12345678901234567, 3)]:
        assert _core.random_unit(seed, counter) == meaning.random_unit(seed, counter)


def test_the_same_seed_and_counter_give_the_same_token_in_any_company():
    logits = rows(1, 3000, seed=2, spread=1)
    alone = _core.sample_rows(logits, settings(1, seed=9, counter=4).packed())[0][0]
    crowd = settings(5, seed=[1, 9, 2, 9, 9], counter=[4, 4, 4, 5, 4])
    tokens = _core.sample_rows(np.repeat(logits, 5, axis=0), crowd.packed())[0]
    assert tokens[1] == tokens[4] == alone
    assert len(set(tokens.tolist())) > 2


@pytest.mark.parametrize("name", ["none", "all", "top_p_90"])
def test_draws_follow_the_distribution(name):
    n, vocab = 20_000, 12
    logits = np.repeat(rows(1, vocab, seed=6, spread=1), n, axis=0)
    s = settings(n, **FILTERS[name], counter=np.arange(n))
    s.seed[:] = 77
    counts = np.bincount(_core.sample_rows(logits, s.packed())[0], minlength=vocab)
    weights = np.exp(logits[0].astype(np.float64) / s.temperature[0])
    kept = counts > 0  # which tokens are kept is tested above; here their proportions
    expected = n * weights[kept] / weights[kept].sum()
    chi_square = ((counts[kept] - expected) ** 2 / expected).sum()
    assert chi_square < 35  # p < 0.001 for 11 degrees of freedom is 31.3; seeds are fixed


def test_a_row_that_is_not_a_number_is_flagged_and_the_others_go_on():
    for bad in (np.nan, np.inf):
        for place in (0, 70, 129):
            logits = rows(3, 130)
            logits[1, place] = bad
            for temperature in (0, 1):
                tokens = _core.sample_rows(logits, settings(3, temperature=temperature, n_top=2).packed())[0]
                assert tokens[1] == SAMPLE_NOT_A_NUMBER
                assert tokens[0] >= 0
                assert tokens[2] >= 0


def test_a_row_with_nothing_allowed_is_flagged():
    logits = rows(2, 100)
    logits[0] = -np.inf
    mask = np.full((2, 4), 0xFFFFFFFF, np.uint32)
    assert _core.sample_rows(logits, settings(2, mask=mask).packed())[0][0] == SAMPLE_NOTHING_ALLOWED
    mask[1] = 0
    assert _core.sample_rows(logits, settings(2, mask=mask).packed())[0].tolist() == [SAMPLE_NOTHING_ALLOWED] * 2


def test_bits_of_the_mask_beyond_the_vocabulary_are_ignored():
    mask = np.zeros((1, 2), np.uint32)
    mask[0, 1] = 0b1010  # token 33, and 35 which is not there
    assert _core.sample_rows(rows(1, 34), settings(1, mask=mask).packed())[0][0] == 33


def test_penalties_leave_nothing_behind_for_the_next_row():
    logits = rows(1, 300)
    history = [np.arange(300, dtype=np.int32), np.zeros(0, np.int32)]
    s = settings(2, temperature=0, presence=2, frequency=1, repetition=3, history=history)
    tokens = _core.sample_rows(np.repeat(logits, 2, axis=0), s.packed())[0]
    assert tokens[1] == logits[0].argmax()


REFUSED = [
    {"temperature": -1}, {"temperature": np.nan}, {"temperature": np.inf}, {"top_p": 0}, {"top_p": 1.5},
    {"top_p": np.nan}, {"min_p": -0.1}, {"min_p": 2}, {"top_k": -1}, {"repetition": 0}, {"repetition": np.nan},
    {"presence": np.inf}, {"frequency": np.nan}, {"n_top": -1}, {"n_top": 11}, {"n_prompt": 1},
    {"history": [np.array([10], np.int32)]}, {"history": [np.array([-1], np.int32)]}, {"history": []},
    {"bias": [(np.array([10], np.int32), np.ones(1, np.float32))]},
    {"bias": [(np.array([1], np.int32), np.array([np.inf], np.float32))]},
    {"bias": [(np.array([1], np.int32), np.ones(2, np.float32))]},
    {"mask": np.zeros((1, 2), np.uint32)}, {"mask": np.zeros((2, 1), np.uint32)},
]


@pytest.mark.parametrize("changes", REFUSED, ids=lambda changes: next(iter(changes)))
def test_settings_out_of_range_are_refused(changes):
    s = settings(1)
    for name, value in changes.items():
        column = getattr(s, name)
        setattr(s, name, np.full(1, value, column.dtype) if isinstance(column, np.ndarray) else value)
    with pytest.raises(ValueError, match=r"\w"):
        _core.sample_rows(np.zeros((1, 10), np.float32), s.packed())


def test_arrays_of_the_wrong_type_are_refused():
    s = settings(1)
    s.temperature = s.temperature.astype(np.float64)
    with pytest.raises(ValueError, match="temperature"):
        _core.sample_rows(np.zeros((1, 10), np.float32), s.packed())
    with pytest.raises(ValueError, match="17"):
        _core.sample_rows(np.zeros((1, 10), np.float32), ())


def test_every_instruction_set_gives_the_same_bits():
    """Runs this file's comparison with the meaning once per set; one the CPU lacks falls back to the plain one."""
    code = (
        "import tests.sample.test_sample as t\n"
        "for n in t.FILTERS: t.same(t.rows(3, 999, 5), t.settings(3, **t.FILTERS[n], n_top=9))"
    )
    root = Path(__file__).parents[2]
    for isa in ("scalar", "avx2", "avxvnni", "avx512", "vbmi", "amx"):
        environment = {**os.environ, "TENTH_ISA": isa}
        done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (isa, done.stderr)
