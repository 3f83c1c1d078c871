import numpy as np
import pytest

from tenth.program import builder as b
from tenth.program import passes
from tenth.program.check import check
from tenth.program.listing import listing
from tenth.program.reference import Batch, run


def ops(program):
    return [i.op for i in program.instructions]


BATCH = Batch.single([1, 5, 2, 10, 3, 0, 7], outputs=[3, 6])


def logits(program, weights):
    return run(program, weights, BATCH, dtype=np.float64)


@pytest.mark.parametrize("chosen", [(p,) for p in passes.PASSES] + [passes.PASSES], ids=lambda c: c[0].__name__)
def test_passes_keep_the_logits_of_unquantised_weights(program, weights, chosen):
    improved = passes.optimise(program, {}, chosen)
    assert np.allclose(logits(improved, weights), logits(program, weights), rtol=1e-12)


@pytest.mark.parametrize("left_out", passes.PASSES, ids=lambda p: p.__name__)
def test_any_pass_can_be_left_out_and_rounding_is_the_only_difference(program, weights, matrices, left_out):
    rounded = passes.optimise(program, matrices, (passes.round_once,))
    chosen = tuple(p for p in passes.PASSES if p is not left_out)
    improved = passes.optimise(program, matrices, chosen)
    expected = program if left_out is passes.round_once else rounded
    assert np.allclose(logits(improved, weights), logits(expected, weights), rtol=1e-12)


def test_q8_rounding_changes_the_logits_a_little(program, weights, matrices):
    exact, rounded = logits(program, weights), logits(passes.optimise(program, matrices), weights)
    nmse = ((rounded - exact) ** 2).sum() / (exact**2).sum()
    assert 1e-8 < nmse < 1e-2


def test_optimise_leaves_its_input_alone(program, matrices):
    before = listing(program)
    improved = passes.optimise(program, matrices)
    assert listing(program) == before
    mine = {v for i in program.instructions for v in (*i.inputs, *i.outputs)}
    assert not mine & {v for i in improved.instructions for v in (*i.inputs, *i.outputs)}


def test_linears_of_one_input_become_one(program, weights):
    merged = check(passes.merge_linears(program, {}))
    first = next(i for i in merged.instructions if i.op == "linear")
    assert [v.name for v in first.inputs[1:]] == ["attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_k.bias"]
    assert first.attrs == {"n_weights": 3, "biases": (0, 1, 0), "residual": 0}
    assert ops(merged).count("linear") == ops(program).count("linear") - 4


def test_each_value_is_rounded_once(program, matrices):
    rounded = check(passes.round_once(program, matrices))
    inputs = [i.inputs[0].storage for i in rounded.instructions if i.op == "quantize"]
    assert len(inputs) == len(set(inputs)) == 7
    assert all(i.inputs[0].dtype == "q8" for i in rounded.instructions if i.op == "linear")


def test_only_linears_of_quantised_weights_are_rounded(program):
    rounded = check(passes.round_once(program, {"ffn_down.weight": "q8"}))
    q8 = [i.inputs[1].name for i in rounded.instructions if i.op == "linear" and i.inputs[0].dtype == "q8"]
    assert q8 == ["ffn_down.weight", "ffn_down.weight"]


def test_residual_adds_vanish_into_linears(program):
    folded = check(passes.fold_residual(program, {}))
    assert "add" not in ops(folded)
    assert [i.attrs["residual"] for i in folded.instructions if i.op == "linear"].count(1) == 3


def test_norms_and_activations_write_q8_when_nobody_reads_their_floats(program, matrices):
    improved = passes.optimise(program, matrices)
    assert ops(improved).count("rms_norm_q8") == 2
    assert ops(improved).count("rms_norm") == 1  # of q, which rope reads
    assert "swiglu_q8" in ops(improved)
    assert "geglu_q8" in ops(improved)
    assert ops(passes.optimise(program, {"attn_q.weight": "q8"})).count("rms_norm_q8") == 0  # k and v read the floats


def test_one_instruction_turns_and_stores(program):
    joined = check(passes.optimise(program, {}, (passes.rope_and_store,)))
    assert [i.op for i in joined.instructions if i.op in ("rope", "kv_store", "rope_store")] == ["rope_store"]
    assert ops(joined).count("rms_norm") == ops(program).count("rms_norm")  # q's is its own: k has none


@pytest.mark.parametrize("same_eps", [True, False])
def test_norms_of_heads_go_into_it_when_they_are_alike(same_eps):
    made = b.Builder({"embd.weight": (11, 32), "q.weight": (8,), "k.weight": (8,)})
    w, angles = b.Weights(made), b.rope_angles(made.inputs["positions"], (1.0, 0.1))
    x = b.heads(b.embed(made.inputs["tokens"], w.embd), 4)
    q, k = b.rms_norm(x, w.q, 1e-5), b.rms_norm(x, w.k, 1e-5 if same_eps else 1e-6)
    seen = b.attention(b.rope(q, angles, "half"), b.rope(k, angles, "half"), x, layer=0, scale=0.3)
    program = made.finish(b.linear(b.select_outputs(seen), w.embd), "test", 64)
    joined = check(passes.optimise(program, {}))
    store = next(i for i in joined.instructions if i.op == "rope_store")
    assert [v.name for v in store.inputs[4:]] == (["k.weight", "q.weight"] if same_eps else [])
    assert ops(joined).count("rms_norm") == (0 if same_eps else 2)


def test_a_norm_adds_the_residual():
    made = b.Builder({"embd.weight": (11, 32), "norm.weight": (32,)})
    x = b.embed(made.inputs["tokens"], b.Weights(made).embd)
    y = b.select_outputs(x + b.rms_norm(x, b.Weights(made).norm, 1e-5))
    folded = check(passes.fold_residual(made.finish(b.linear(y, b.Weights(made).embd), "test", 64), {}))
    assert ops(folded)[:2] == ["embed", "rms_norm"]
    assert "add" not in ops(folded)


def test_only_output_rows_go_on_behind_the_last_attention(program):
    early = check(passes.select_early(program, {}))
    after = early.instructions[ops(early).index("attention") + 1 :]
    assert all(v.rows == "outputs" for i in after for v in i.outputs)
    before = early.instructions[: ops(early).index("attention") + 1]
    assert all(v.rows == "tokens" for i in before for v in i.outputs)


def test_copies_have_offsets_of_their_own(program):
    twin = passes.copy(program)
    twin.instructions[0].outputs[0].offset = 77
    assert program.instructions[0].outputs[0].offset == -1
    assert listing(passes.copy(program)) == listing(program)
