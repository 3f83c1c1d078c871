"""How llama.cpp's converter writes a model: names, tensors, keys. Here a plain one's; others override what differs."""

from __future__ import annotations

import re
from typing import Any

import gguf
import numpy as np
import transformers

from goldens import nextn

Config = transformers.PretrainedConfig
Shape = tuple[int, ...]

# transformers' name of a parameter (without "model."), as a regular expression -> the file's
NAMES = {
    r"embed_tokens\.": "token_embd.",
    r"lm_head\.": "output.",
    r"norm\.": "output_norm.",
    r"layers\.(\d+)\.self_attn\.([qkv])_proj\.": r"blk.\1.attn_\2.",
    r"layers\.(\d+)\.self_attn\.o_proj\.": r"blk.\1.attn_output.",
    r"layers\.(\d+)\.self_attn\.([qk])_norm\.": r"blk.\1.attn_\2_norm.",
    r"layers\.(\d+)\.mlp\.(gate|up|down)_proj\.": r"blk.\1.ffn_\2.",
    r"layers\.(\d+)\.mlp\.gate\.weight": r"blk.\1.ffn_gate_inp.weight",
    r"layers\.(\d+)\.mlp\.gate\.e_score_correction_bias": r"blk.\1.exp_probs_b.bias",
    r"layers\.(\d+)\.mlp\.shared_experts?\.(gate|up|down)_proj\.": r"blk.\1.ffn_\2_shexp.",
    r"layers\.(\d+)\.mlp\.shared_expert_gate\.": r"blk.\1.ffn_gate_inp_shexp.",
    r"layers\.(\d+)\.mlp\.experts\.(gate_up|down)_proj": r"blk.\1.ffn_\2_exps.weight",
    r"layers\.(\d+)\.input_layernorm\.": r"blk.\1.attn_norm.",
    r"layers\.(\d+)\.post_attention_layernorm\.": r"blk.\1.ffn_norm.",
}
# Where the norm after attention is not the one before the feed-forward part, or is, but has this name.
POST_ATTENTION = {r"layers\.(\d+)\.post_attention_layernorm\.": r"blk.\1.post_attention_norm."}


class Architecture:
    """A dense or sparse decoder. ``head_dim``: whether the file says it; ``names``: beside and before NAMES."""

    def __init__(self, name: str, *, head_dim: bool = False, names: dict[str, str] | None = None):
        self.name = name
        self._head_dim = head_dim
        self._names = {**(names or {}), **nextn.NAMES, **{k: v for k, v in NAMES.items() if k not in (names or {})}}

    def name_in_file(self, hf_name: str) -> str:
        """The GGUF name of a transformers parameter."""
        short = hf_name.removeprefix("model.")
        for pattern, name in self._names.items():
            if re.match(pattern, short):
                return re.sub("^" + pattern, name, short)
        return short

    def parts(self, name: str, shape: Shape, c: Config) -> dict[str, Shape]:
        """The file's tensors that one of transformers' holds: of experts gates and ups …"""
        both = "ffn_gate_up_exps"
        if both not in name:
            return {name: shape}
        half = (*shape[:-2], shape[-2] // 2, shape[-1])
        return {name.replace(both, f"ffn_{part}_exps"): half for part in ("gate", "up")}

    def joined(self, parts: dict[str, np.ndarray], c: Config) -> np.ndarray:
        """What transformers holds, from the file's parts of it: undoes the converter."""
        return next(iter(parts.values())) if len(parts) == 1 else np.concatenate(list(parts.values()), axis=-2)

    def further_tensors(self, model: transformers.PreTrainedModel, c: Config) -> dict[str, np.ndarray]:
        """Float32 tensors of the file that are no parameters of the model. May change the model to mean the same."""
        return {}

    def rope(self, c: Config) -> dict[str, Any]:
        """The parameters that the keys of rope say."""
        return c.rope_parameters

    def add_keys(self, writer: gguf.GGUFWriter, c: Config, n_nextn: int = 0) -> None:
        """The metadata that the converter writes. ``n_nextn``: blocks behind the model's own."""
        writer.add_context_length(c.max_position_embeddings)
        writer.add_embedding_length(c.hidden_size)
        writer.add_block_count(c.num_hidden_layers + n_nextn)
        if n_nextn:
            writer.add_nextn_predict_layers(n_nextn)
        writer.add_feed_forward_length(c.intermediate_size)
        writer.add_head_count(c.num_attention_heads)
        writer.add_layer_norm_rms_eps(c.rms_norm_eps)
        self.add_attention_keys(writer, c)
        if hasattr(c, "num_experts_per_tok"):
            self.add_expert_keys(writer, c)
        add_rope_keys(writer, self.rope(c))

    def add_attention_keys(self, writer: gguf.GGUFWriter, c: Config) -> None:
        """Of these, the sizes of heads, beside their count."""
        writer.add_head_count_kv(c.num_key_value_heads)
        if self._head_dim:
            writer.add_key_length(c.head_dim)
            writer.add_value_length(c.head_dim)

    def add_expert_keys(self, writer: gguf.GGUFWriter, c: Config) -> None:
        """Of these, what a mixture of experts has."""
        writer.add_expert_count(c.num_local_experts if hasattr(c, "num_local_experts") else c.num_experts)
        writer.add_expert_used_count(c.num_experts_per_tok)
        if hasattr(c, "moe_intermediate_size"):
            writer.add_expert_feed_forward_length(c.moe_intermediate_size)
        if hasattr(c, "shared_expert_intermediate_size"):
            writer.add_expert_shared_feed_forward_length(c.shared_expert_intermediate_size)


def add_rope_keys(writer: gguf.GGUFWriter, rope: dict[str, Any]) -> None:
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if "mscale_all_dim" in rope:
            writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])


def add_grouped_expert_keys(writer: gguf.GGUFWriter, c: Config, *, groups: bool = True) -> None:
    """What is written of DeepSeek's experts, and of those made like them."""
    writer.add_expert_count(c.n_routed_experts)
    writer.add_expert_used_count(c.num_experts_per_tok)
    writer.add_expert_feed_forward_length(c.moe_intermediate_size)
    writer.add_expert_shared_count(c.n_shared_experts)
    writer.add_leading_dense_block_count(c.first_k_dense_replace)
    writer.add_expert_weights_scale(c.routed_scaling_factor)
    if groups:
        writer.add_expert_group_count(c.n_group)
        writer.add_expert_group_used_count(c.topk_group)
