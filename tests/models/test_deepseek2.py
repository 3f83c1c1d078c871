"""Latent attention: absorbed as models run it, against heads with keys and values of their own as papers write it."""

import numpy as np
import pytest

from tenth.errors import ModelFileError
from tenth.program import passes
from tenth.program.builder import Routing
from tenth.program.reference import MEANINGS, Batch, Cache, Context, run

N, HEADS, LATENT, NOPE, ROPE, VALUE = 50, 6, 64, 32, 16, 48


def expanded(q, q_rope, latent, key_rope, k_b, v_b, scale):
    """Un-absorbed: every token's latent becomes keys and values of each head. [n, heads, value]."""
    keys = np.einsum("nl,hld->nhd", latent, k_b)  # k_b [heads, latent, nope] as in files
    values = np.einsum("nl,hvl->nhv", latent, v_b)
    scores = (np.einsum("ihd,jhd->hij", q, keys) + np.einsum("ihr,jr->hij", q_rope, key_rope)) * scale
    scores = np.where(np.tril(np.ones((len(q), len(q)), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hij,jhv->ihv", weights / weights.sum(-1, keepdims=True), values)


def drawn(dtype=np.float64):
    rng = np.random.default_rng(11)
    shapes = {
        "q": (N, HEADS, NOPE), "q_rope": (N, HEADS, ROPE), "latent": (N, LATENT), "key_rope": (N, ROPE),
        "k_b": (HEADS, LATENT, NOPE), "v_b": (HEADS, VALUE, LATENT),
    }  # fmt: skip
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def test_absorbed_is_expanded():
    d, scale = drawn(), 0.125
    context = Context(Batch.single([0] * N), Cache(), np.float64)

    def op(name, *inputs, **attrs):
        return MEANINGS[name](list(inputs), attrs, context)

    heads = {"n_heads": HEADS, "first": 0}
    q = op("head_linear", d["q"].reshape(N, -1), d["k_b"].reshape(-1, NOPE), n_rows=LATENT, **heads)
    op("latent_store", d["latent"], d["key_rope"], layer=0)
    seen = op("latent_attention", q, d["q_rope"], layer=0, scale=scale)
    absorbed = op("head_linear", seen.reshape(N, -1), d["v_b"].reshape(-1, LATENT), n_rows=VALUE, **heads)
    assert np.abs(absorbed - expanded(**d, scale=scale)).max() < 1e-12


def test_the_cache_holds_the_latent_and_the_rotated_part_and_nothing_else(make_tiny):
    keys = {"attention.kv_lora_rank": 512, "rope.dimension_count": 64, "attention.key_length_mla": 192}
    model = make_tiny("deepseek2", **keys, **{"attention.value_length_mla": 128, "attention.q_lora_rank": 1536})
    state = model.reshaped().build().state
    assert [layer.numbers_per_token for layer in state] == [576, 576]  # V3's shape


def test_the_reference_keeps_one_row_per_token(make_tiny):
    model, cache = make_tiny("deepseek2"), Cache()
    run(model.build(), model.weights(), Batch.single([1, 2, 3]), cache)
    assert {kept.shape for kept in cache.kv.values()} == {(1, 3, 1, 64 + 16)}


def test_old_files_hold_keys_and_values_together(make_tiny):
    """One tensor attn_kv_b, or the same numbers as attn_k_b (turned) and attn_v_b: the same logits."""
    old, new = make_tiny("deepseek2_lite_old_yarn"), make_tiny("deepseek2_lite_old_yarn")
    heads, nope, value, latent = 4, 16, 32, 32
    weights, both = old.weights(), {}
    for name, array in weights.items():
        if not name.endswith("attn_kv_b.weight"):
            both[name] = array
            continue
        keys, values = np.split(array.reshape(heads, nope + value, latent), [nope], 1)
        both[name.replace("kv_b", "k_b")], both[name.replace("kv_b", "v_b")] = keys.swapaxes(1, 2), values
    new.shapes = {name: array.shape for name, array in both.items()}
    programs = [old.build(), new.build()]
    assert [len(program.derived) for program in programs] == [2, 0]
    batch = Batch.single([3, 1, 4, 1, 5])
    found = [run(p, w, batch, dtype=np.float64) for p, w in zip(programs, (weights, both), strict=True)]
    assert np.allclose(*found, rtol=1e-12)


def test_yarn_magnifies_scores_and_not_the_rotated_part(make_tiny):
    c = make_tiny("deepseek2_lite_old_yarn").config()
    assert c.rope.scale == 1
    assert c.attention_scale == pytest.approx((1 + 0.0707 * np.log(4)) ** 2 / 24**0.5)
    plain = make_tiny("deepseek2_lite_old_yarn", **{"rope.scaling.yarn_log_multiplier": None}).config()
    assert plain.rope.scale == pytest.approx(1 + 0.1 * np.log(4))
    assert plain.attention_scale == pytest.approx(24**-0.5)


def test_an_optimised_layer_has_five_linears_and_two_by_head_and_rounds_seven_times(make_tiny):
    program = make_tiny("deepseek2_dense", **{"attention.q_lora_rank": 96}).reshaped().build()
    matrices = {name: "q8" for name, value in program.weights.items() if len(value.shape) == 2}
    ops = [i.op for i in passes.optimise(program, matrices).instructions]
    assert ops.count("linear") == 5 * 2 + 1  # q_a with kv_a; q_b; output; gate with up; down … and the logits
    assert ops.count("head_linear") == 2 * 2
    assert ops.count("quantize") + sum(op.endswith("_q8") for op in ops) == 7 * 2 + 1


def test_routing_is_that_of_v2_or_of_v3(make_tiny):
    v3 = make_tiny("deepseek2").config()
    assert (v3.n_dense_layers, v3.n_shared_ff) == (1, 32)
    assert v3.routing == Routing(3, "sigmoid", True, 2.5, 4, 2, "top2")
    lite = make_tiny("deepseek2_lite_old_yarn").config()
    assert (lite.n_dense_layers, lite.n_shared_ff) == (0, 64)
    assert lite.routing == Routing(3, "softmax", False, 1.0, 1, 1, "max")


@pytest.mark.parametrize(("n_experts", "groups"), [(160, (8, 3)), (256, (8, 4)), (384, (1, 1)), (64, (1, 1))])
def test_files_that_do_not_say_have_the_groups_their_model_was_trained_with(make_tiny, n_experts, groups):
    routing = make_tiny("deepseek2_lite_old_yarn", expert_count=n_experts).config().routing
    assert (routing.n_groups, routing.groups_used) == groups
    routing = make_tiny("deepseek2_lite_old_yarn", expert_count=n_experts, expert_group_count=1).config().routing
    assert (routing.n_groups, routing.groups_used) == (1, 1)


def test_a_file_whose_layers_have_neither_experts_nor_anything_dense_is_refused(make_tiny):
    with pytest.raises(ModelFileError, match="expert_count is missing or 0, but only 1 of 2 layers are dense"):
        make_tiny("deepseek2_dense", leading_dense_block_count=1).build()


def test_a_file_without_keys_or_values_is_refused(make_tiny):
    model = make_tiny("deepseek2")
    del model.shapes["blk.1.attn_v_b.weight"]
    with pytest.raises(ModelFileError, match="layer 1 has neither tensors attn_k_b and attn_v_b nor attn_kv_b"):
        model.build()
