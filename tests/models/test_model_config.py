import math

import numpy as np
import pytest

from tenth.errors import ModelFileError
from tenth.models import ARCHITECTURES, build
from tenth.models.tensors import match
from tenth.program.builder import Routing

OF_PLAIN_ATTENTION = [
    ({"attention.head_count_kv": 3}, "head_count 4 is not a multiple of attention.head_count_kv 3"),
    ({"attention.head_count": 5, "attention.head_count_kv": 5, "attention.key_length": None}, "64 is not a multiple"),
    ({"attention.key_length": 32, "attention.value_length": 16}, "key_length 32 differs from .*value_length 16"),
    ({"rope.dimension_count": 1024}, "rope.dimension_count 1024 is more than the head's"),
]
CONTRADICTIONS = [
    ({"rope.dimension_count": 7}, "dimension_count .* is 7, expected an even number"),
    ({"rope.freq_base": 1.0}, "rope.freq_base is 1.0, expected more than 1"),
    ({"rope.freq_base": -5.0}, "rope.freq_base is -5.0"),
    ({"rope.freq_base": math.inf}, "rope.freq_base is inf"),
    ({"rope.scaling.type": "longrope"}, "rope.scaling.type is 'longrope', expected none, linear or yarn"),
    ({"rope.scaling.type": "yarn", "rope.scaling.factor": 0.5}, "factor is 0.5, expected at least 1 for yarn"),
    (
        {"rope.scaling.type": "yarn", "rope.scaling.yarn_beta_slow": 40.0},
        r"yarn_beta_slow 40.0 is not below .*yarn_beta_fast 32.0",
    ),
    ({"rope.scaling.type": "yarn", "rope.scaling.yarn_ext_factor": 0.0}, "this variant of yarn is not supported"),
    ({"rope.scaling.factor": math.nan}, "rope.scaling.factor is nan"),
    ({"attention.layer_norm_rms_epsilon": 0.0}, "layer_norm_rms_epsilon is 0.0"),
    ({"attention.layer_norm_rms_epsilon": math.inf}, "layer_norm_rms_epsilon is inf"),
    ({"attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
    ({"block_count": 0}, "block_count is 0"),
    ({"block_count": 1 << 31}, "block_count is 2147483648"),
    ({"embedding_length": 0}, "embedding_length is 0"),
    ({"attention.head_count": 0}, "head_count is 0"),
    ({"attention.head_count": 1 << 40}, "head_count is 1099511627776"),
    ({"attention.head_count": [4, 4]}, "head_count is of type array of int, expected a whole number"),
    ({"feed_forward_length": "96"}, "feed_forward_length is of type str"),
    ({"context_length": 0}, "context_length is 0"),
    ({"attention.causal": False}, "causal is false"),
    ({"vocab_size": 36}, "vocab_size is 36, but token_embd.weight has 37 rows"),
]


def refuses(tiny, changes, message):
    changes = {f"{tiny.architecture}.{key}": value for key, value in changes.items()}
    tiny.values = {key: value for key, value in {**tiny.values, **changes}.items() if value is not None}
    with pytest.raises(ModelFileError, match=message):
        tiny.build()


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS, ids=[m[:40] for _, m in CONTRADICTIONS])
def test_values_that_contradict_each_other_are_named(one_of_each, changes, message):
    refuses(one_of_each, changes, message)


@pytest.mark.parametrize(("changes", "message"), OF_PLAIN_ATTENTION, ids=[m[:40] for _, m in OF_PLAIN_ATTENTION])
def test_so_are_those_of_attention_with_keys_and_values_by_head(one_of_each, changes, message):
    if one_of_each.architecture != "deepseek2":
        refuses(one_of_each, changes, message)


LATENT_CONTRADICTIONS = [
    ({"attention.kv_lora_rank": None}, "kv_lora_rank is missing"),
    ({"attention.kv_lora_rank": 40}, "the kv_lora_rank is 40, not a multiple of 16"),
    ({"attention.key_length_mla": 16}, "dimension_count is 16, but a head's key has 16 numbers"),
    ({"attention.key_length_mla": 40}, "key length less rope is 24, not a multiple of 16"),
    ({"attention.value_length_mla": 20}, "value length is 20, not a multiple of 16"),
    ({"attention.value_length_mla": None}, "value_length_mla is missing"),
    ({"attention.temperature_scale": 0.1}, "temperature_scale is 0.1: not supported"),
    ({"rope.dimension_count": None}, "rope.dimension_count is missing"),
    ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.yarn_log_multiplier": -2.0},
     "yarn_log_multiplier is -2.0"),
    ({"rope.scaling.type": "yarn", "rope.scaling.attn_factor": 0.5, "rope.scaling.yarn_log_multiplier": 0.1},
     "yarn_log_multiplier is 0.1, attn_factor 0.5"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), LATENT_CONTRADICTIONS, ids=[m[:40] for _, m in LATENT_CONTRADICTIONS])
def test_and_those_of_latent_attention(make_tiny, changes, message):
    refuses(make_tiny("deepseek2"), changes, message)


HYBRID_CONTRADICTIONS = [
    ({"ssm.group_count": None}, "ssm.group_count is missing"),
    ({"ssm.group_count": 4}, "ssm.time_step_rank 6 is not a multiple of ssm.group_count 4"),
    ({"ssm.inner_size": 100}, "ssm.inner_size 100 is not a multiple of ssm.time_step_rank 6"),
    ({"ssm.state_size": 1 << 20}, "ssm.state_size 1048576 times ssm.group_count 2 is too large"),
    ({"ssm.conv_kernel": 1}, "ssm.conv_kernel is 1, expected at least 2"),
    ({"ssm.conv_kernel": 17}, "ssm.conv_kernel is 17, expected .*at most 16"),
    ({"full_attention_interval": 0}, "full_attention_interval is 0"),
    ({"nextn_predict_layers": 3}, "nextn_predict_layers is 3 of block_count 3"),
    ({"attention.recurrent_layers": [True, False, True]}, "attention.recurrent_layers has another order"),
    ({"attention.recurrent_layers": [True, True, False, False]}, "recurrent_layers has 4 elements, expected 3"),
    ({"rope.dimension_count": 18}, "rope.dimension_count 18 is more than the head's 16"),
    ({"attention.sliding_window": 7}, "sliding_window is 7 with context_length 128"),
]


@pytest.mark.parametrize(("changes", "message"), HYBRID_CONTRADICTIONS, ids=[m[:40] for _, m in HYBRID_CONTRADICTIONS])
def test_values_of_a_recurrent_model_that_contradict_each_other_are_named(make_tiny, changes, message):
    tiny = make_tiny("qwen35", **changes)
    with pytest.raises(ModelFileError, match=message):
        tiny.build()


def test_every_third_layer_has_attention_and_the_others_keep_a_state(make_tiny):
    program = make_tiny("qwen35").build()
    assert [layer.layer for layer in program.state] == [2]
    conv, delta = (3, 2 * 16 + 96), (6, 8, 16)  # taps - 1 and channels; value heads, k_dim, v_dim
    assert [recurrence.shape for recurrence in program.recurrences] == [conv, delta, conv, delta]
    rope = next(i for i in program.instructions if i.op == "rope_angles")
    assert len(rope.attrs["inv_freq"]) == 4


def test_value_heads_of_qwen3next_stand_beside_those_of_their_key_head(make_tiny):
    for name, tiled in (("qwen35", 1), ("qwen35moe", 1), ("qwen3next", 0)):
        found = {i.attrs["tiled"] for i in make_tiny(name).build().instructions if i.op == "delta_net"}
        assert found == {tiled}


def test_a_recurrent_model_with_experts_need_not_say_how_wide_a_dense_part_would_be(make_tiny):
    tiny = make_tiny("qwen35moe", feed_forward_length=None)
    c = tiny.config()
    assert (c.n_ff, c.n_expert_ff, c.n_shared_ff, c.period, c.routing.normalise) == (32, 32, 64, 3, True)
    tiny.build()


def test_files_of_the_first_converter_of_qwen3next_are_told_to_be_old(make_tiny):
    tiny = make_tiny("qwen3next")
    for i in (0, 1):
        del tiny.shapes[f"blk.{i}.attn_qkv.weight"], tiny.shapes[f"blk.{i}.attn_gate.weight"]
        tiny.shapes[f"blk.{i}.ssm_in.weight"] = (224, 64)
    with pytest.raises(ModelFileError, match=r"in one tensor \(blk.0.ssm_in.weight\)") as caught:
        tiny.build()
    assert caught.value.hint == "get a newer conversion of the model"


def test_blocks_that_predict_further_tokens_are_known_and_left_out(make_tiny):
    tiny = make_tiny("qwen35_nextn")
    tiny.shapes |= {"blk.3.nextn.eh_proj.weight": (64, 128), "blk.3.attn_q.weight": (128, 64)}
    assert not any(name.startswith("blk.3.") for name in tiny.build().weights)
    tiny.shapes["blk.4.nextn.eh_proj.weight"] = (64, 128)
    with pytest.raises(ModelFileError, match=r"no place for tensor blk.4.nextn.eh_proj.weight"):
        tiny.build()


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gemma3"])
def test_experts_are_refused_where_the_architecture_has_none(make_tiny, name):
    with pytest.raises(ModelFileError, match=f"expert_count is 8: {name} is known without experts only"):
        make_tiny(name, expert_count=8).build()


WRONG_EXPERTS = [
    ({"expert_count": None}, "expert_count is missing"),
    ({"expert_count": 0}, "expert_count is 0"),
    ({"expert_count": 1 << 20}, "expert_count is 1048576"),
    ({"expert_count": 7}, r"ffn_gate_inp.weight has shape \[8, 64\], expected \[7, 64\]"),
    ({"expert_used_count": None}, "expert_used_count is missing"),
    ({"expert_used_count": 0}, "expert_used_count is 0"),
    ({"expert_used_count": 9}, "expert_used_count is 9, but expert_count is 8"),
    ({"expert_feed_forward_length": 48}, r"ffn_gate_exps.weight has shape \[8, 32, 64\], expected \[8, 48, 64\]"),
    ({"expert_gating_func": 9}, "expert_gating_func is 9, expected 1"),
    ({"expert_weights_scale": math.inf}, "expert_weights_scale is inf"),
    ({"expert_group_count": 3}, "3 of 8 experts cannot be chosen from 3 of 3 groups"),
    ({"expert_group_count": 4, "expert_group_used_count": 1}, "3 of 8 experts cannot be chosen from 1 of 4 groups"),
    ({"expert_group_count": 4, "expert_group_used_count": 5}, "3 of 8 experts cannot be chosen from 5 of 4 groups"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_EXPERTS, ids=[m[:40] for _, m in WRONG_EXPERTS])
def test_counts_of_experts_that_contradict_each_other_are_named(make_tiny, changes, message):
    with pytest.raises(ModelFileError, match=message):
        make_tiny("qwen3moe", **changes).build()


def test_files_with_a_tensor_per_expert_are_refused_with_the_reason(make_tiny):
    tiny = make_tiny("llama_experts")
    tiny.shapes = {name.replace("_exps", ".0"): shape for name, shape in tiny.shapes.items()}
    with pytest.raises(ModelFileError, match=r"tensor of its own \(blk.0.ffn_gate.0.weight\)") as caught:
        tiny.build()
    assert caught.value.hint == "get a newer conversion of the model"


def test_layers_that_guess_further_tokens_are_known_and_not_used(make_tiny):
    tiny = make_tiny("glm4moe")
    tiny.shapes |= {"blk.3.nextn.eh_proj.weight": (64, 128), "blk.3.attn_q.weight": (64, 64)}
    program = tiny.build()
    assert len(program.state) == 3
    assert not any(name.startswith("blk.3.") for name in program.weights)
    with pytest.raises(ModelFileError, match="nextn_predict_layers is 4, but block_count is 4"):
        make_tiny("glm4moe", nextn_predict_layers=4).build()
    tiny.shapes["blk.4.attn_q.weight"] = (64, 64)
    with pytest.raises(ModelFileError, match=r"no place for tensor blk.4"):
        tiny.build()


def test_the_first_layers_of_glm4moe_are_dense_and_its_bias_only_chooses(make_tiny):
    program = make_tiny("glm4moe").build()
    assert "blk.0.ffn_gate.weight" in program.weights
    assert "blk.1.ffn_gate_exps.weight" in program.weights
    routes = [i for i in program.instructions if i.op == "route"]
    assert [i.inputs[1].name for i in routes] == ["blk.1.exp_probs_b.bias", "blk.2.exp_probs_b.bias"]
    assert (routes[0].attrs["score"], routes[0].attrs["scale"], routes[0].attrs["normalise"]) == ("sigmoid", 2.5, 1)


def test_every_second_layer_of_gpt_oss_looks_back_over_the_window_and_all_have_sinks(make_tiny):
    program = make_tiny("gpt-oss").build()
    attentions = [i for i in program.instructions if i.op == "attention"]
    assert [i.attrs["window"] for i in attentions] == [5, 0]
    assert [i.inputs[1].name for i in attentions] == ["blk.0.attn_sinks.weight", "blk.1.attn_sinks.weight"]
    with pytest.raises(ModelFileError, match=r"gpt-oss.attention.sliding_window is missing"):
        make_tiny("gpt-oss", **{"attention.sliding_window": None}).build()


def test_the_ramp_of_gpt_oss_begins_and_ends_between_dimensions(make_tiny):
    scaled = {"rope.freq_base": 150000.0, "rope.scaling.factor": 32.0, "rope.scaling.original_context_length": 4096}
    heads = {"attention.key_length": 64, "attention.value_length": 64}
    rope = make_tiny("gpt-oss", **scaled, **heads).config().rope
    plain = np.array([150000.0 ** (-j / 32) for j in range(32)])
    # The pairs that turn 32 times and once over 4096 tokens are numbers 8.09 and 17.40 (transformers: truncate false).
    low, high = (32 * np.log(4096 / (turns * 2 * np.pi)) / np.log(150000.0) for turns in (32, 1))
    stretched = np.clip((np.arange(32) - low) / (high - low), 0, 1)
    assert np.allclose(rope.inv_freq, plain * (1 - stretched) + plain / 32 * stretched, rtol=1e-12)
    assert rope.inv_freq[17] > plain[17] / 32 * 1.1
    assert np.isclose(rope.scale, 1 + 0.1 * np.log(32))


def test_olmoe_that_clamps_is_refused(make_tiny):
    with pytest.raises(ModelFileError, match=r"clamp_kqv is 8.0: clamping q, k and v is not supported"):
        make_tiny("olmoe", **{"attention.clamp_kqv": 8.0}).build()


def test_experts_of_several_shapes_are_refused(make_tiny):
    tiny = make_tiny("qwen3moe")
    tiny.shapes["blk.1.ffn_down_exps.weight"] = (4, 64, 32)
    with pytest.raises(ModelFileError, match=r"ffn_down_exps.weight has shape \[4, 64, 32\], expected \[8, 64, 32\]"):
        tiny.build()


def test_keys_of_experts_say_how_they_are_chosen(make_tiny):
    assert make_tiny("qwen3moe").config().routing == Routing(k=3)
    keys = {"expert_gating_func": 2, "expert_weights_norm": False, "expert_weights_scale": 2.5, "expert_group_count": 4,
            "expert_group_used_count": 2}
    chosen = make_tiny("qwen3moe", **keys).config().routing
    assert chosen == Routing(k=3, score="sigmoid", normalise=False, scale=2.5, n_groups=4, groups_used=2)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_a_window_that_would_be_felt_is_refused_where_layers_have_none(make_tiny, name):
    make_tiny(name, **{"attention.sliding_window": 128}).build()
    with pytest.raises(ModelFileError, match="sliding_window is 127 with context_length 128"):
        make_tiny(name, **{"attention.sliding_window": 127}).build()


def test_an_unknown_architecture_is_refused_with_the_list_of_known_ones(make_tiny):
    with pytest.raises(ModelFileError) as caught:
        build("mamba", make_tiny("llama").metadata, {})
    assert "'mamba' is not supported" in caught.value.message
    assert all(name in caught.value.hint for name in ARCHITECTURES)


def test_linear_scaling_divides_frequencies_and_old_files_need_no_type(make_tiny):
    plain = np.array(make_tiny("qwen2").config().rope.inv_freq)
    assert np.allclose(plain, 10000.0 ** (-np.arange(8) / 8))
    for keys in (
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        {"rope.scaling.factor": 4.0},
        {"rope.scale_linear": 4.0},
    ):
        assert np.allclose(make_tiny("qwen2", **keys).config().rope.inv_freq, plain / 4)
    off = make_tiny("qwen2", **{"rope.scaling.type": "none", "rope.scaling.factor": 4.0})
    assert np.allclose(off.config().rope.inv_freq, plain)


def test_yarn_keeps_fast_dimensions_stretches_slow_ones_and_scales(make_tiny):
    plain = np.array(make_tiny("qwen2").config().rope.inv_freq)
    keys = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 4096}
    rope = make_tiny("qwen2", **keys).config().rope
    ratio = plain / np.array(rope.inv_freq)
    # Turns over 4096 positions: 652 206 65 21 6.5 2.1 0.65 0.21; 32 turns lie at pair 2.6, one at 5.6.
    assert np.allclose(ratio[:3], 1)
    assert np.allclose(ratio[6:], 4)
    assert (np.diff(ratio) >= -1e-12).all()
    assert 1 < ratio[3] < ratio[4] < ratio[5] < 4
    assert rope.scale == pytest.approx(1 + 0.1 * math.log(4))
    # What transformers 5.23's ROPE_INIT_FUNCTIONS["yarn"] gives for these values, in float32.
    recorded = [1.0, 0.3162278, 0.1, 0.02569351, 0.00625, 0.001383497, 0.00025, 7.905695e-05]
    assert np.allclose(rope.inv_freq, recorded, rtol=3e-7)


def test_gemma3_has_one_global_layer_in_six_and_a_local_base(make_tiny):
    c = make_tiny("gemma3", **{"rope.freq_base": None}).config()
    assert [c.is_global(i) for i in range(7)] == [False] * 5 + [True, False]
    assert c.rope.inv_freq[1] == pytest.approx(1e6 ** (-1 / 16))
    assert c.local_rope.inv_freq[1] == pytest.approx(1e4 ** (-1 / 16))
    state = make_tiny("gemma3").build().state
    assert [s.window for s in state] == [5, 5, 5, 5, 5, 0, 5]
    assert all(make_tiny("gemma3", **{"attention.sliding_window": None}).config().is_global(i) for i in range(7))


def test_gemma3_scaling_stretches_global_layers_only(make_tiny):
    c = make_tiny("gemma3", **{"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}).config()
    assert (c.rope.inv_freq[0], c.local_rope.inv_freq[0]) == (1 / 8, 1)


def test_gemma3_of_62_layers_scales_scores_by_the_share_of_dim(make_tiny):
    assert make_tiny("gemma3").config().attention_scale == pytest.approx(32**-0.5)
    assert make_tiny("gemma3", block_count=62).config().attention_scale == pytest.approx((64 / 4) ** -0.5)
    explicit = {"block_count": 62, "attention.scale": 0.25}
    assert make_tiny("gemma3", **explicit).config().attention_scale == 0.25


def test_a_missing_tensor_is_named(one_of_each):
    name = next(name for name in one_of_each.shapes if name.startswith("blk.1.ffn_up"))
    del one_of_each.shapes[name]
    with pytest.raises(ModelFileError, match=f"tensor {name} is missing"):
        one_of_each.build()


def test_a_file_without_tensors_is_refused(one_of_each):
    one_of_each.shapes = {}
    with pytest.raises(ModelFileError, match=r"tensor token_embd.weight \(and \d+ more\) is missing"):
        one_of_each.build()


def test_a_tensor_without_a_place_is_named(one_of_each):
    one_of_each.shapes["blk.0.ffn_gate_more.weight"] = (4, 8, 8)
    with pytest.raises(ModelFileError, match=r"no place for tensor blk.0.ffn_gate_more.weight"):
        one_of_each.build()


def test_a_layer_too_many_is_refused(one_of_each):
    one_of_each.shapes["blk.99.attn_norm.weight"] = one_of_each.shapes["blk.0.attn_norm.weight"]
    with pytest.raises(ModelFileError, match=r"no place for tensor blk.99"):
        one_of_each.build()


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("blk.0.attn_norm.weight", (64, 31), r"shape \[64, 31\], expected \[64\]"),
        ("output_norm.weight", (65,), r"shape \[65\], expected \[64\]"),
        ("token_embd.weight", (37, 63), r"shape \[37, 63\], expected \[37, 64\]"),
        ("token_embd.weight", (0, 64), r"shape \[0, 64\]"),
        ("token_embd.weight", (37, 64, 1), r"shape \[37, 64, 1\]"),
        ("blk.1.attn_norm.weight", (), r"shape \[\], expected \[64\]"),
    ],
)
def test_a_misshapen_tensor_is_named_with_the_shape_it_should_have(one_of_each, name, shape, expected):
    one_of_each.shapes[name] = shape
    with pytest.raises(ModelFileError, match=expected):
        one_of_each.build()


def test_output_and_token_table_agree_on_the_vocabulary(make_tiny):
    tiny = make_tiny("llama")
    tiny.shapes["output.weight"] = (38, 64)
    with pytest.raises(ModelFileError, match=r"output.weight has shape \[38, 64\], expected \[37, 64\]"):
        tiny.build()


def test_tensors_known_to_mean_nothing_are_ignored():
    assert match({"a.weight": ("n",)}, {"a.weight": (2,), "blk.0.attn_rot_embd.weight": (4,)}) == {"a.weight": (2,)}


def test_a_file_may_leave_out_a_leading_dimension_of_one():
    declared = {"gate.weight": (1, 4)}
    assert match(declared, {"gate.weight": (4,)}) == match(declared, {"gate.weight": (1, 4)}) == {"gate.weight": (1, 4)}
    with pytest.raises(ModelFileError, match=r"expected \[1, 4\]"):
        match(declared, {"gate.weight": (5,)})


def test_optional_tensors_are_used_when_there(make_tiny):
    tied, with_all = make_tiny("llama_tied_scaled").build(), make_tiny("llama_biases_part_rope").build()
    assert "output.weight" not in tied.weights
    assert tied.instructions[0].inputs[1].name == "rope_freqs.weight"
    assert tied.instructions[-1].inputs[1].name == "token_embd.weight"
    assert {"blk.0.attn_output.bias", "blk.1.ffn_down.bias", "output.weight"} <= set(with_all.weights)


def test_the_program_knows_its_architecture_and_context(make_tiny):
    program = make_tiny("qwen3").build()
    assert (program.architecture, program.context_tokens, program.vocab_size) == ("qwen3", 128, 37)
