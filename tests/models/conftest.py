"""Tiny random models of every architecture: one fixture that runs each test on all of them."""

from dataclasses import dataclass

import numpy as np
import pytest

from tenth.models import ARCHITECTURES, build
from tenth.program.check import check
from tenth.weights.metadata import Metadata

VOCAB = 37
COMMON = {
    "embedding_length": 64,
    "block_count": 2,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "context_length": 128,
    "rope.freq_base": 10000.0,
}
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 32,
}
HYBRID = {
    "block_count": 3,
    "full_attention_interval": 3,
    "rope.dimension_count": 8,
    "ssm.conv_kernel": 4,
    "ssm.group_count": 2,
    "ssm.inner_size": 96,
    "ssm.state_size": 8,
    "ssm.time_step_rank": 6,
}
MIXTRAL = {"expert_count": 8, "expert_used_count": 3}
EXPERTS = {**MIXTRAL, "expert_feed_forward_length": 32}
LATENT = {
    "attention.kv_lora_rank": 64,
    "rope.dimension_count": 16,
    "attention.key_length": 80,
    "attention.value_length": 64,
    "attention.key_length_mla": 48,
    "attention.value_length_mla": 32,
}
LATENT_OLD = {
    "attention.kv_lora_rank": 32,
    "rope.dimension_count": 8,
    "attention.key_length": 24,
    "attention.value_length": 32,
}
SIGMOID_GROUPS = {
    "expert_gating_func": 2,
    "expert_weights_norm": True,
    "expert_weights_scale": 2.5,
    "expert_group_count": 4,
    "expert_group_used_count": 2,
    "expert_shared_count": 1,
}
MULTIPLIED = {"rope.scaling.yarn_log_multiplier": 0.0707}
HEAD_32 = {"attention.key_length": 32, "attention.value_length": 32}
# name: architecture, keys beside COMMON, optional tensors that this file has
TINY = {
    "llama": ("llama", {"vocab_size": VOCAB}, ("output",)),
    "llama_tied_scaled": ("llama", {}, ("rope_freqs",)),
    "llama_biases_part_rope": ("llama", {"rope.dimension_count": 8, **YARN}, ("output", "bias")),
    "qwen2": ("qwen2", {}, ("output",)),
    "qwen2_tied_yarn": ("qwen2", YARN, ()),
    "qwen3": ("qwen3", HEAD_32, ()),
    "qwen3moe": ("qwen3moe", {**HEAD_32, **EXPERTS}, ()),
    "llama_experts": ("llama", MIXTRAL, ("output",)),
    "olmoe": ("olmoe", EXPERTS, ("output",)),
    "qwen2moe": ("qwen2moe", {**EXPERTS, "expert_shared_feed_forward_length": 64}, ("output",)),
    "glm4moe": (
        "glm4moe",
        {
            **EXPERTS,
            "block_count": 4,
            "nextn_predict_layers": 1,
            "leading_dense_block_count": 1,
            "expert_shared_count": 2,
            "expert_weights_scale": 2.5,
            "rope.dimension_count": 8,
        },
        ("output", "attn_q_norm", "attn_k_norm"),
    ),
    "glm4moe_groups": (
        "glm4moe",
        {**EXPERTS, "expert_group_count": 4, "expert_group_used_count": 2, "expert_weights_norm": False},
        (),
    ),
    "gpt-oss": ("gpt-oss", {**HEAD_32, **EXPERTS, **YARN, "attention.sliding_window": 5}, ("output",)),
    "gemma3": ("gemma3", {"block_count": 7, "attention.sliding_window": 5, **HEAD_32}, ()),
    "deepseek2": (
        "deepseek2",
        {"attention.q_lora_rank": 96, **LATENT, **EXPERTS, **SIGMOID_GROUPS, "leading_dense_block_count": 1},
        ("output", "attn_k_b", "attn_v_b", "exp_probs_b"),
    ),
    "deepseek2_lite_old_yarn": (
        "deepseek2",
        {**LATENT_OLD, **YARN, **MULTIPLIED, **EXPERTS, "expert_shared_count": 2},
        ("attn_kv_b",),
    ),
    "deepseek2_dense": ("deepseek2", {**LATENT, "leading_dense_block_count": 2}, ("attn_k_b", "attn_v_b")),
    "qwen35": ("qwen35", HYBRID, ()),
    "qwen35moe": ("qwen35moe", {**HYBRID, **EXPERTS, "expert_shared_feed_forward_length": 64}, ("output",)),
    "qwen3next": ("qwen3next", {**HYBRID, **EXPERTS}, ("output",)),
    "qwen35_nextn": ("qwen35", {**HYBRID, "block_count": 4, "nextn_predict_layers": 1}, ("output", "blk")),
    "gemma3_capped_linear": (
        "gemma3",
        {
            "attention.sliding_window": 5,
            "attention.sliding_window_pattern": 2,
            "final_logit_softcapping": 3.0,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
        ("output",),
    ),
}

ENCODER = {
    "attention.head_count_kv": None,
    "attention.layer_norm_rms_epsilon": None,
    "attention.layer_norm_epsilon": 1e-12,
    "attention.causal": False,
    "pooling_type": 1,
}
# As TINY, of those that write no text
ENCODERS = {
    "bert": ("bert", ENCODER, ("bias", "token_types")),
    "bert_rerank": ("bert", {**ENCODER, "pooling_type": 4}, ("bias", "token_types", "cls")),
    "nomic-bert": ("nomic-bert", ENCODER, ("token_types", "attn_qkv")),
    "nomic-bert_apart": ("nomic-bert", {**ENCODER, "pooling_type": 2}, ("attn_q", "attn_k", "attn_v")),
}


@dataclass
class TinyModel:
    architecture: str
    values: dict
    shapes: dict
    optional: tuple

    def reshaped(self):
        """The same with tensors as the keys ask for."""
        self.shapes = shapes_of(self.architecture, self.values, self.optional)
        return self

    @property
    def metadata(self):
        return Metadata(self.values)

    def build(self):
        return check(build(self.architecture, self.metadata, self.shapes))

    def config(self):
        return ARCHITECTURES[self.architecture].read_config(self.metadata)

    def weights(self):
        rng = np.random.default_rng(7)
        drawn = {name: rng.standard_normal(shape) * shape[-1] ** -0.5 for name, shape in self.shapes.items()}
        norms = {name: 1 + 0.2 * w * w.size**0.5 for name, w in drawn.items() if name.endswith("norm.weight")}
        factors = {name: 1 + np.abs(w) for name, w in drawn.items() if name == "rope_freqs.weight"}
        kept = {name: -np.abs(w) for name, w in drawn.items() if name.endswith("ssm_a")}
        return {name: w.astype(np.float32) for name, w in {**drawn, **norms, **factors, **kept}.items()}


def make(name, **changes):
    """The tiny model of that name; then some keys are changed (None: removed), its tensors are not."""
    architecture, keys, optional = (TINY | ENCODERS)[name]
    values = {f"{architecture}.{key}": value for key, value in {**COMMON, **keys}.items() if value is not None}
    shapes = shapes_of(architecture, values, optional)
    for key, value in changes.items():
        values[f"{architecture}.{key}"] = value
    return TinyModel(architecture, {k: v for k, v in values.items() if v is not None}, shapes, optional)


def shapes_of(architecture, values, optional):
    """Shapes of the tensors that a file with these keys has."""
    model = ARCHITECTURES[architecture]
    declared = model.tensors(model.read_config(Metadata(values)))
    return {
        tensor.rstrip("?"): tuple({"vocab": VOCAB, "types": 2}.get(size, size) for size in shape)
        for tensor, shape in declared.items()
        if not tensor.endswith(("?", "*"))
        or (tensor.endswith("?") and any(part in tensor.rstrip("?").split(".") for part in optional))
    }


@pytest.fixture(params=TINY)
def tiny(request):
    return make(request.param)


@pytest.fixture(params=sorted(ARCHITECTURES.keys() - ENCODERS.keys()))
def one_of_each(request):
    """One tiny decoder per architecture: for what does not depend on variants."""
    return make(request.param)


@pytest.fixture(params=ENCODERS)
def encoder(request):
    return make(request.param)


@pytest.fixture
def make_tiny():
    return make


@pytest.fixture
def tiny_architectures():
    return {architecture for architecture, _, _ in (TINY | ENCODERS).values()}
