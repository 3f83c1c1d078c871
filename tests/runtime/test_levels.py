"""Keys whose biases differ by orders of magnitude keep their small numbers when they are rounded to int8."""

import numpy as np
import pytest

from tenth.program import builder as b
from tenth.program import passes
from tenth.runtime.levels import key_levels
from tests.golden_files import nmse
from tests.runtime.native import all_logits, open_program

VOCAB, DIM, HEADS, KV_HEADS, HEAD_DIM = 48, 64, 4, 2, 64
SHAPES = {
    "embd.weight": (VOCAB, DIM), "q.weight": (HEADS * HEAD_DIM, DIM), "k.weight": (KV_HEADS * HEAD_DIM, DIM),
    "k.bias": (KV_HEADS * HEAD_DIM,), "v.weight": (KV_HEADS * HEAD_DIM, DIM), "o.weight": (DIM, HEADS * HEAD_DIM),
    "out.weight": (VOCAB, DIM),
}  # fmt: skip


def program_of(pairing):
    builder = b.Builder(SHAPES)
    w = b.Weights(builder)
    angles = b.rope_angles(builder.inputs["positions"], tuple(1e6 ** (-j / 32) for j in range(32)))
    x = b.embed(builder.inputs["tokens"], w.embd)
    q, k, v = b.heads(b.linear(x, w.q), HEADS), b.heads(b.linear(x, w.k), KV_HEADS), b.heads(b.linear(x, w.v), KV_HEADS)
    seen = b.attention(b.rope(q, angles, pairing), b.rope(k, angles, pairing), v, layer=0, scale=HEAD_DIM**-0.5)
    return builder.finish(b.linear(b.select_outputs(b.linear(seen, w.o)), w.out), "test", 256)


def weights(slowest, size=200.0):
    """As Qwen2.5 has them: the biases of the numbers that rope turns slowest are large."""
    rng = np.random.default_rng(3)
    drawn = {name: rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32) for name, shape in SHAPES.items()}
    bias = rng.normal(0, 0.5, (KV_HEADS, HEAD_DIM)).astype(np.float32)
    bias[:, slowest] = size * np.array([1, -0.5], np.float32)
    return drawn | {"k.bias": bias.ravel(), "embd.weight": 8 * drawn["embd.weight"]}


SLOWEST = {"half": [31, 63], "pairs": [62, 63]}


@pytest.mark.parametrize("pairing", SLOWEST)
def test_levels_are_powers_of_two_shared_by_what_rope_turns(pairing):
    drawn = weights(SLOWEST[pairing])
    levels = key_levels(program_of(pairing), drawn)[0].reshape(KV_HEADS, HEAD_DIM)
    expected = np.ones_like(levels)
    expected[:, SLOWEST[pairing]] = 32  # near hypot(200, 100) / 8
    assert (levels == expected).all()
    merged = passes.optimise(program_of(pairing), {})
    assert (key_levels(merged, drawn)[0] == levels.ravel()).all()


def test_ordinary_biases_and_none_leave_keys_alone():
    assert key_levels(program_of("half"), weights(SLOWEST["half"], size=1.0)) == {}


@pytest.mark.parametrize("pairing", SLOWEST)
def test_large_biases_do_not_drown_the_other_numbers(pairing, tmp_path, monkeypatch):
    program, drawn = program_of(pairing), weights(SLOWEST[pairing])
    tokens = np.random.default_rng(1).integers(0, VOCAB, 60)
    exact = all_logits(open_program(program, drawn, tmp_path, kv_format="f32"), tokens)
    levelled = all_logits(open_program(program, drawn, tmp_path, kv_format="q8_0"), tokens)
    for threads, chunk in ((1, 7), (3, 20)):
        runtime = open_program(program, drawn, tmp_path, kv_format="q8_0", threads=threads)
        assert np.array_equal(all_logits(runtime, tokens, chunk), levelled)
    monkeypatch.setattr("tenth.runtime.building.key_levels", lambda *_: {})
    plain = all_logits(open_program(program, drawn, tmp_path, kv_format="q8_0"), tokens)
    assert nmse(levelled, exact) < nmse(plain, exact) / 10
    assert nmse(levelled, exact) < 1e-2
