"""What has to hold for every architecture, on tiny random models, in the NumPy reference."""

import numpy as np
import pytest

from tenth.models import ARCHITECTURES
from tenth.program import memory, passes
from tenth.program.reference import Batch, Cache, run

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3]


@pytest.fixture
def ready(tiny):
    return tiny.build(), tiny.weights()


def logits(program, weights, batch, cache=None):
    return run(program, weights, batch, cache, dtype=np.float64)


def same(a, b):
    return np.allclose(a, b, rtol=1e-9, atol=1e-11)


def test_every_architecture_is_in_the_runner(tiny_architectures):
    assert tiny_architectures == set(ARCHITECTURES)


def test_logits_have_a_row_per_output(ready):
    program, weights = ready
    result = run(program, weights, Batch.single(TOKENS, outputs=[2, 15]))
    assert result.shape == (2, program.vocab_size)
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert result.std() > 0.01


def test_chunked_equals_whole(ready):
    program, weights = ready
    whole, cache, parts = logits(program, weights, Batch.single(TOKENS)), Cache(), []
    for start, end in ((0, 7), (7, 8), (8, 16)):
        parts.append(logits(program, weights, Batch.single(TOKENS[start:end], start), cache))
    assert same(np.concatenate(parts), whole)


def test_batched_equals_alone(ready):
    program, weights = ready
    alone = [logits(program, weights, Batch.single(tokens)) for tokens in (TOKENS, TOKENS[5:], TOKENS[::-1])]
    cache = Cache()
    logits(program, weights, Batch.single(TOKENS[:15]), cache)  # sequence 0 is ahead: its last token joins the others
    batch = Batch(
        tokens=np.array(TOKENS[15:] + TOKENS[5:] + TOKENS[::-1]),
        positions=np.concatenate([[15], np.arange(11), np.arange(16)]),
        row_starts=np.array([0, 1, 12, 28]),
        outputs=np.array([0, 11, 13, 27]),
    )
    expected = [alone[0][15], alone[1][10], alone[2][1], alone[2][15]]
    assert same(logits(program, weights, batch, cache), expected)


def test_later_tokens_change_nothing_earlier(ready):
    program, weights = ready
    other = [*TOKENS[:9], *(t + 1 for t in TOKENS[9:])]
    a, b = (logits(program, weights, Batch.single(tokens)) for tokens in (TOKENS, other))
    assert same(a[:9], b[:9])
    assert not same(a[9], b[9])


def test_positions_matter(ready):
    program, weights = ready
    a, b = (logits(program, weights, Batch.single(tokens)) for tokens in (TOKENS[:4], [1, 3, 4, 1]))
    assert not same(a[3], b[3])


def test_a_planned_arena_changes_nothing(ready):
    program, weights = ready
    for made in (program, passes.optimise(program, quantised(program))):
        arena = memory.plan(made, {"tokens": 16, "outputs": 4})
        batch = Batch.single(TOKENS, outputs=[0, 7, 15])
        assert np.array_equal(run(made, weights, batch, arena_bytes=arena), run(made, weights, batch))


@pytest.mark.parametrize("chosen", [(p,) for p in passes.PASSES] + [passes.PASSES], ids=lambda c: c[0].__name__)
def test_passes_keep_results(ready, chosen):
    program, weights = ready
    batch = Batch.single(TOKENS, outputs=[0, 7, 15])
    improved = passes.optimise(program, {}, chosen)
    assert same(logits(improved, weights, batch), logits(program, weights, batch))


def test_with_q8_inputs_all_passes_equal_rounding_alone(ready):
    program, weights = ready
    batch = Batch.single(TOKENS, outputs=[0, 7, 15])
    rounded = passes.optimise(program, quantised(program), (passes.round_once,))
    improved = passes.optimise(program, quantised(program))
    exact, q8 = logits(program, weights, batch), logits(rounded, weights, batch)
    assert same(logits(improved, weights, batch), q8)
    assert 1e-9 < ((q8 - exact) ** 2).sum() / (exact**2).sum() < 5e-2  # a token may come to another expert


def test_a_layer_has_four_linears_and_rounds_four_times(ready):
    program, _ = ready
    if program.architecture == "deepseek2":  # has more, see test_deepseek2.py
        return
    ops = [i.op for i in passes.optimise(program, quantised(program)).instructions]
    n_layers = len(program.state) + len(program.recurrences) // 2  # a delta-net layer keeps two things
    times = 4 * n_layers + 1  # q k v; output; gate up; down … and the logits
    routers = sum("ffn_gate_inp.weight" in name for name in program.weights)  # they multiply floats
    shared = sum("ffn_down_shexp" in name for name in program.weights)  # gate up, of the same input; down
    assert ops.count("linear") + ops.count("expert_linear") == times + routers + 2 * shared
    assert ops.count("quantize") + sum(op.endswith("_q8") for op in ops) == times + shared


def quantised(program):
    """What a quantised file holds in blocks, for products with int8: all but norms, biases, convolutions, routers."""
    plain = {*passes.kept_as_floats(program), *program.derived}
    return {name: "q8" for name in program.weights if name not in plain and "gate_inp" not in name}
