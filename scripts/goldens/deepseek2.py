"""deepseek2: V2-Lite as the first converter wrote it, V2 and V3 as it is done now.

In old files attn_kv_b is one tensor, a head's sizes stand where the cache's do now, and groups of experts are not said.
"""

from __future__ import annotations

import gguf
import numpy as np
import transformers

from goldens.architecture import Architecture, Config, Shape, add_grouped_expert_keys
from goldens.case import SMALL, Case

NAMES = {
    r"layers\.(\d+)\.self_attn\.(q_a|q_b)_proj\.": r"blk.\1.attn_\2.",
    r"layers\.(\d+)\.self_attn\.kv_a_proj_with_mqa\.": r"blk.\1.attn_kv_a_mqa.",
    r"layers\.(\d+)\.self_attn\.kv_b_proj\.": r"blk.\1.attn_kv_b.",
    r"layers\.(\d+)\.self_attn\.(q_a|kv_a)_layernorm\.": r"blk.\1.attn_\2_norm.",
}
FORMATS = {
    "token_embd.weight": "Q8_0",
    "output.weight": "Q4_0",
    "blk.1.attn_q.weight": "Q4_0",
    "blk.1.attn_q_a.weight": "Q4_0",
    "blk.1.attn_q_b.weight": "Q5_0",
    "blk.1.attn_kv_a_mqa.weight": "Q4_0",
    "blk.1.attn_kv_b.weight": "Q5_0",
    "blk.1.attn_k_b.weight": "Q8_0",
    "blk.1.attn_v_b.weight": "Q4_0",
    "blk.1.attn_output.weight": "Q8_0",
    "blk.1.ffn_gate_exps.weight": "Q4_0",
    "blk.1.ffn_up_exps.weight": "Q4_0",
    "blk.1.ffn_down_exps.weight": "Q5_1",
    "blk.1.ffn_down_shexp.weight": "Q8_0",
}

DRAFTER_FORMATS = FORMATS | {name.replace("blk.1.", "blk.2."): kind for name, kind in FORMATS.items()}
DRAFTER_FORMATS |= {"blk.2.nextn.eh_proj.weight": "Q8_0"}


def yarn(mscale: float) -> dict:
    """DeepSeek's stretching, from 16 positions, so that it matters at 40 tokens; a tenth of mscale is a float32."""
    mscale = 10 * float(np.float32(0.1 * mscale))
    stretched = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 16.0, "original_max_position_embeddings": 16}
    return stretched | {"beta_fast": 32, "beta_slow": 1, "mscale": mscale, "mscale_all_dim": mscale}


LATENT = SMALL | {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 96, "rms_norm_eps": 1e-6}
LATENT |= {"kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
LATENT |= {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16, "n_shared_experts": 2}
LATENT |= {"first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "tie_word_embeddings": False}
LITE = LATENT | {"q_lora_rank": None, "rope_parameters": yarn(0.707), "n_group": 1, "topk_group": 1}
V2 = LATENT | {"q_lora_rank": 32, "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0}
V3 = LATENT | {"q_lora_rank": 32, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "rope_parameters": yarn(1.0)}
BLOCKS = {"kv_lora_rank": 64, "qk_nope_head_dim": 32, "v_head_dim": 32, "moe_intermediate_size": 32}  # of 32 weights
BLOCKS |= {"qk_rope_head_dim": 32}


class Deepseek2(Architecture):
    def __init__(self, *, old: bool = False, sigmoid: bool = False):
        super().__init__("deepseek2", names=NAMES)
        self._old, self._sigmoid = old, sigmoid

    def parts(self, name: str, shape: Shape, c: Config) -> dict[str, Shape]:
        if "attn_kv_b." not in name or self._old:
            return super().parts(name, shape, c)
        return {
            name.replace("kv_b", "k_b"): (c.num_attention_heads, c.kv_lora_rank, c.qk_nope_head_dim),
            name.replace("kv_b", "v_b"): (c.num_attention_heads, c.v_head_dim, c.kv_lora_rank),
        }

    def joined(self, parts: dict[str, np.ndarray], c: Config) -> np.ndarray:
        if "attn_k_b." not in next(iter(parts)):
            return super().joined(parts, c)
        keys, values = parts.values()
        keys = keys.swapaxes(1, 2)  # they are turned, and keys and values alternate head by head
        return np.concatenate([keys, values], axis=1).reshape(-1, keys.shape[-1])

    def add_attention_keys(self, writer: gguf.GGUFWriter, c: Config) -> None:
        head = c.qk_nope_head_dim + c.qk_rope_head_dim, c.v_head_dim
        cache = c.kv_lora_rank + c.qk_rope_head_dim, c.kv_lora_rank
        key, value = head if self._old else cache
        writer.add_head_count_kv(c.num_key_value_heads if self._old else 1)
        writer.add_key_length(key)
        writer.add_value_length(value)
        if not self._old:
            writer.add_key_length_mla(head[0])
            writer.add_value_length_mla(head[1])
        if c.q_lora_rank:
            writer.add_q_lora_rank(c.q_lora_rank)
        writer.add_kv_lora_rank(c.kv_lora_rank)
        writer.add_vocab_size(c.vocab_size)
        writer.add_rope_dimension_count(c.qk_rope_head_dim)

    def add_expert_keys(self, writer: gguf.GGUFWriter, c: Config) -> None:
        add_grouped_expert_keys(writer, c, groups=not self._old)
        if c.norm_topk_prob:
            writer.add_expert_weights_norm(True)
        if self._sigmoid:
            writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def deepseek2(sizes: dict, formats: dict[str, str] | None = None, *, old: bool = False) -> Case:
    config = transformers.DeepseekV2Config(**sizes)
    return Case(Deepseek2(old=old), transformers.DeepseekV2ForCausalLM, config, formats or {})


def deepseek3(sizes: dict, formats: dict[str, str] | None = None, *, drafter: str = "") -> Case:
    config = transformers.DeepseekV3Config(**sizes)
    architecture = Deepseek2(sigmoid=True)
    return Case(architecture, transformers.DeepseekV3ForCausalLM, config, formats or {}, drafter=drafter)


CASES = {
    "deepseek2_lite": deepseek2(LITE, old=True),
    "deepseek2": deepseek2(V2),
    "deepseek3": deepseek3(V3),
    "deepseek2_quantised": deepseek2(LITE | BLOCKS, FORMATS, old=True),
    "deepseek3_quantised": deepseek3(V3 | BLOCKS, DRAFTER_FORMATS, drafter="shared"),
}
