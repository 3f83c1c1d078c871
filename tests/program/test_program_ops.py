import inspect

import numpy as np
import pytest

from tenth.program import builder, ops, reference
from tenth.program.reference import Batch, Cache, Context, dequantize, quantize


def meaning(op, *inputs, batch=None, cache=None, dtype=np.float32, **attrs):
    context = Context(batch or Batch.single([0]), cache or Cache(), dtype)
    return reference.MEANINGS[op](list(inputs), attrs, context)


def test_two_ops_cannot_share_a_name():
    with pytest.raises(AssertionError, match="two ops are named add"):
        ops.table.op("a b")(ops.OPS["add"].rule)


def test_every_op_has_a_specification_and_a_reference():
    assert set(reference.MEANINGS) == set(ops.OPS)
    assert all(len(op.doc) > 20 and "->" in op.doc for op in ops.OPS.values())


def test_every_op_but_those_of_passes_can_be_written_in_a_model_file():
    of_passes = {
        "quantize", "round_bf16",
        "kv_store", "rope_store", "latent_store", "add", "expert_read", "expert_predict", "expert_trace", "route_lossy",
        "expanded_attention", "select_generated",
    }  # fmt: skip
    of_passes |= {name for name in ops.OPS if name.endswith(("_q8", "_bf16"))}
    functions = {name for name, f in vars(builder).items() if inspect.isfunction(f)}
    assert set(ops.OPS) - of_passes <= functions


def test_rms_norm_works_on_the_last_dimension():
    x = np.array([[[3.0, 4.0], [0.0, 2.0]]], np.float32)
    result = meaning("rms_norm", x, np.array([1.0, 10.0], np.float32), eps=0.0)
    root = np.sqrt(12.5)
    assert np.allclose(result, [[[3 / root, 40 / root], [0, 20 / np.sqrt(2)]]])


@pytest.mark.parametrize(("pairing", "index"), [("half", [0, 2, 1, 3]), ("pairs", [0, 1, 2, 3])])
def test_rope_multiplies_each_pair_as_a_complex_number(pairing, index):
    x = np.random.default_rng(0).standard_normal((3, 2, 6)).astype(np.float32)
    angles = meaning("rope_angles", np.array([0, 1, 7]), inv_freq=(1.0, 0.25), scale=1.0)
    result = meaning("rope", x, angles, pairing=pairing)
    pairs = x[..., index].reshape(3, 2, 2, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * np.outer([0, 1, 7], [1, 0.25]))[:, None]
    assert np.allclose(result[..., index], np.stack([turned.real, turned.imag], -1).reshape(3, 2, 4), atol=1e-6)
    assert np.array_equal(result[..., 4:], x[..., 4:])  # beyond dims nothing turns


def test_rope_angles_are_divided_by_factors_and_scaled():
    angles = meaning("rope_angles", np.array([3]), np.array([2.0, 4.0], np.float32), inv_freq=(1.0, 1.0), scale=2.0)
    assert np.allclose(angles, 2 * np.array([[np.cos(1.5), np.cos(0.75), np.sin(1.5), np.sin(0.75)]]))


def test_attention_sees_the_window_and_nothing_later():
    batch = Batch.single([0] * 5)
    v = np.eye(5, dtype=np.float32)[:, None, :]
    cache = Cache()
    meaning("kv_store", np.zeros_like(v), v, batch=batch, cache=cache, layer=0)
    attrs = {"layer": 0, "n_kv_heads": 1, "head_dim": 5, "scale": 1.0, "softcap": 0.0}
    everything = meaning("attention", np.zeros_like(v), batch=batch, cache=cache, window=0, **attrs)
    assert np.allclose(everything, np.tril(np.ones((5, 5))) / np.arange(1, 6)[:, None])
    two = meaning("attention", np.zeros_like(v), batch=batch, cache=cache, window=2, **attrs)
    assert np.allclose(two[0], [1, 0, 0, 0, 0])
    assert np.allclose(two[4], [0, 0, 0, 0.5, 0.5])


def test_attention_caps_scores_before_the_softmax_and_groups_heads():
    batch, cache = Batch.single([0, 0]), Cache()
    k = np.array([[[1.0], [0.0]], [[3.0], [0.0]]], np.float32)  # [2 positions, 2 kv heads, 1]
    v = np.array([[[1.0], [5.0]], [[2.0], [7.0]]], np.float32)
    meaning("kv_store", k, v, batch=batch, cache=cache, layer=3)
    attrs = {"layer": 3, "n_kv_heads": 2, "head_dim": 1, "scale": 2.0, "softcap": 1.5, "window": 0}
    result = meaning("attention", np.ones((2, 4, 1), np.float32), batch=batch, cache=cache, **attrs)
    scores = 1.5 * np.tanh(np.array([2.0, 6.0]) / 1.5)
    first = np.exp(scores) @ [1, 2] / np.exp(scores).sum()
    assert np.allclose(result[1], [first, first, 6, 6])


def test_a_sink_takes_its_share_of_the_softmax_and_gives_nothing():
    batch, cache = Batch.single([0, 0]), Cache()
    v = np.array([[[3.0]], [[6.0]]], np.float32)
    meaning("kv_store", np.zeros_like(v), v, batch=batch, cache=cache, layer=0)
    attrs = {"layer": 0, "n_kv_heads": 1, "head_dim": 1, "scale": 1.0, "softcap": 0.0, "window": 0}
    sinks = np.log([1.0, 2.0]).astype(np.float32)  # as much as one key of score 0, and as two
    result = meaning("attention", np.ones((2, 2, 1), np.float32), sinks, batch=batch, cache=cache, **attrs)
    assert np.allclose(result, [[3 / 2, 3 / 3], [9 / 3, 9 / 4]])


def test_activations_are_what_their_formulas_say():
    g, up = np.array([[-200.0, -1.0, 0.0, 2.0]], np.float32), np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    assert np.allclose(meaning("swiglu", g, up), g / (1 + np.exp(-g.astype(np.float64))) * up)
    gelu = g / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (g + 0.044715 * g.astype(np.float64) ** 3)))
    assert np.allclose(meaning("geglu", g, up), gelu * up)
    clamped = np.minimum(g, 1.5).astype(np.float64)
    glu = clamped / (1 + np.exp(-1.702 * clamped)) * (np.minimum(up, 1.5) + 1)
    assert np.allclose(meaning("clamped_swiglu", g, up, alpha=1.702, limit=1.5), glu)
    assert meaning("clamped_swiglu", g, -up, alpha=1.0, limit=1.0).tolist() == [[0, 0, 0, 0]]
    assert np.allclose(meaning("softcap", 100 * g, cap=5.0), [[-5, -5, 0, 5]])


def test_sigmoid_and_what_a_state_keeps_are_what_their_formulas_say():
    x, y = np.array([[-200.0, -1.0, 0.0, 2.0]], np.float32), np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert np.allclose(meaning("sigmoid", x), exact)
    assert np.allclose(meaning("sigmoid_gate", x, y), exact * y)
    factor, bias = np.array([-0.5, -2.0, -1.0, 0.0], np.float32), np.array([0.0, 1.0, 0.5, 3.0], np.float32)
    softplus = np.log1p(np.exp(x.astype(np.float64) + bias))
    assert np.allclose(meaning("decay", x, factor, bias), np.exp(factor * softplus))


def test_l2_norm_makes_heads_as_long_as_one():
    x = np.array([[[3.0, 4.0], [0.0, 0.0]]], np.float32)
    assert np.allclose(meaning("l2_norm", x, eps=0.25), [[[3 / 25.25**0.5, 4 / 25.25**0.5], [0, 0]]])


def test_split_cuts_the_numbers_of_each_head():
    first, second = meaning("split", np.arange(8.0).reshape(1, 2, 4), sizes=(1, 3))
    assert first.tolist() == [[[0], [4]]]
    assert second.tolist() == [[[1, 2, 3], [5, 6, 7]]]


def test_short_conv_looks_back_over_steps_and_begins_with_nothing():
    x = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
    weight = np.array([[10.0, 1.0, 0.1]], np.float32)
    sums = np.array([0.1, 1.2, 12.3, 23.4])  # 10 x[t-2] + x[t-1] + 0.1 x[t]
    cache, parts = Cache(), []
    for first, last in ((0, 1), (1, 3), (3, 4)):
        batch = Batch.single([0] * (last - first), first)
        parts.append(meaning("short_conv", x[first:last], weight, batch=batch, cache=cache, state=5))
    assert np.allclose(np.concatenate(parts)[:, 0], sums / (1 + np.exp(-sums)))
    again = meaning("short_conv", x[:1], weight, batch=Batch.single([0]), cache=cache, state=5)
    assert np.allclose(again, parts[0])  # position 0: a new sequence


def test_delta_net_writes_what_a_key_should_say_and_forgets():
    batch, cache = Batch.single([0, 0, 0]), Cache()
    k = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]], np.float32)  # the third token writes where the first did
    v = np.array([[[4.0], [8.0]], [[6.0], [1.0]], [[2.0], [3.0]]], np.float32)  # two value heads share the key head
    decay = np.array([[1.0, 1.0], [0.5, 1.0], [1.0, 1.0]], np.float32)
    beta = np.array([[1.0, 1.0], [1.0, 1.0], [0.5, 1.0]], np.float32)
    result = meaning("delta_net", k, k, v, decay, beta, batch=batch, cache=cache, state=0, tiled=0, scale=2.0)
    assert result[:2, :, 0].tolist() == [[8, 16], [12, 2]]  # what was just written is read, twice as large
    assert result[2, :, 0].tolist() == [2 * (2 + (2 - 2) * 0.5), 6]  # 4 was halved to 2; head 1 overwrites 8 by 3
    assert cache.recurrent[0, 0][:, :, 0].tolist() == [[2, 6], [3, 1]]


@pytest.mark.parametrize(("tiled", "key_heads"), [(0, [0, 0, 1, 1]), (1, [0, 1, 0, 1])])
def test_delta_net_gives_value_heads_the_key_heads_it_says(tiled, key_heads):
    q = np.array([[[1.0], [10.0]]], np.float32)
    ones = np.ones((1, 4), np.float32)
    attrs = {"state": 0, "tiled": tiled, "scale": 1.0}
    result = meaning("delta_net", q, np.ones_like(q), ones[:, :, None], ones, ones, **attrs)
    assert result.ravel().tolist() == [q[0, head, 0] for head in key_heads]


def test_quantize_rounds_half_to_even_and_keeps_the_largest():
    x = np.zeros((2, 64), np.float32)
    x[0, :5] = [127, 0.5, 1.5, -2.5, -127]
    q = quantize(x)
    assert q.q[0, :5].tolist() == [127, 0, 2, -2, -127]
    assert q.scale.tolist() == [[1, 0], [0, 0]]
    assert np.array_equal(dequantize(q)[1], np.zeros(64))


def test_quantize_is_off_by_at_most_half_a_step():
    x = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    q = quantize(x)
    error = np.abs(dequantize(q) - x).reshape(5, 3, 32)
    assert (error <= q.scale[..., None] * 0.5001).all()


def test_linear_has_several_weights_some_with_bias():
    rng = np.random.default_rng(0)
    x, a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (5, 4), (2, 4)))
    bias = np.array([1.0, 2.0], np.float32)
    first, second = meaning("linear", x, a, b, bias, n_weights=2, biases=(0, 1), residual=0)
    assert np.allclose(first, x @ a.T)
    assert np.allclose(second, x @ b.T + bias)
    (added,) = meaning("linear", x, b, bias, second, n_weights=1, biases=(1,), residual=1)
    assert np.allclose(added, 2 * second)


ROUTE = {**vars(builder.Routing(k=2)), "normalise": 0}


def routed(logits, bias=None, **attrs):
    inputs = [np.array([logits])] if bias is None else [np.array([logits]), np.array(bias)]
    experts, weights = meaning("route", *inputs, **{**ROUTE, **attrs})
    return experts[0].tolist(), weights[0]


def test_route_lists_the_best_experts_and_their_shares():
    logits = np.log([1.0, 4.0, 2.0, 1.0])
    experts, weights = routed(logits)
    assert experts == [1, 2]
    assert np.allclose(weights, [4 / 8, 2 / 8])
    assert np.allclose(routed(logits, normalise=1, scale=3.0)[1], [2, 1])
    assert np.allclose(routed(logits, score="softmax_selected")[1], [2 / 3, 1 / 3])
    assert np.allclose(routed([0.0, 1.0, -1.0], score="sigmoid")[1], 1 / (1 + np.exp([-1.0, 0.0])))


def test_route_gives_ties_to_the_lower_number():
    assert routed([1.0, 2.0, 2.0, 2.0], k=3)[0] == [1, 2, 3]
    assert routed([5.0, 5.0, 5.0, 5.0])[0] == [0, 1]


def test_the_bias_of_route_chooses_but_does_not_count():
    experts, weights = routed([0.0, 0.0, 0.0], bias=[0.0, 1.0, 2.0], score="sigmoid")
    assert experts == [2, 1]
    assert np.allclose(weights, 0.5)


def test_route_looks_into_the_best_groups_only():
    logits = [9.0, 0.0, 6.0, 5.0, 1.0, 1.0]  # groups of two: by the best 9, 6, 1; by two 9, 11, 2
    grouped = {"score": "softmax_selected", "n_groups": 3, "groups_used": 1}
    assert routed(logits, **grouped)[0] == [0, 1]
    assert routed(logits, **grouped, group_score="top2")[0] == [2, 3]
    assert routed(logits, **{**grouped, "groups_used": 2}, k=3)[0] == [0, 2, 3]


def test_experts_multiply_the_rows_that_were_routed_to_them():
    rng = np.random.default_rng(0)
    x, w, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 4), (3, 5, 4), (3, 5)))
    experts = np.array([[2, 0], [2, 1]], np.int32)
    (y,) = meaning("expert_linear", x, experts, w, bias, n_weights=1, biases=(1,))
    for row in range(2):
        for slot, e in enumerate(experts[row]):
            assert np.allclose(y[row, slot], w[e] @ x[row] + bias[e], atol=1e-6)
    (z,) = meaning("expert_linear", y, experts, w.transpose(0, 2, 1), n_weights=1, biases=(0,))
    assert np.allclose(z[1, 1], w[1].T @ y[1, 1], atol=1e-5)
    weights = np.array([[0.25, 2.0], [1.0, 0.0]], np.float32)
    assert np.allclose(meaning("expert_sum", z, weights, x)[1], z[1, 0] + x[1], atol=1e-5)


def test_a_batch_keeps_its_sequences_apart():
    batch = Batch(np.zeros(3), np.array([0, 1, 0]), np.array([0, 2, 3]), np.array([2]), sequences=(7, 4))
    cache = Cache()
    k = np.arange(3, dtype=np.float32).reshape(3, 1, 1)
    meaning("kv_store", k, k, batch=batch, cache=cache, layer=0)
    assert cache.kv[0, 7][0].ravel().tolist() == [0, 1]
    assert cache.kv[0, 4][0].ravel().tolist() == [2]
    assert meaning("select_outputs", k, batch=batch).ravel().tolist() == [2]
