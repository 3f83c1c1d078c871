"""qwen2, qwen3 and both with experts."""

from __future__ import annotations

import transformers

from goldens.architecture import Architecture
from goldens.case import HEADS, MOE, ONE, SMALL, WIDE, Case

EXPERT_FORMATS = {
    "token_embd.weight": "Q8_0",
    "output.weight": "Q6_K",
    "blk.0.attn_q.weight": "Q4_0",
    "blk.0.attn_k.weight": "Q4_0",
    "blk.0.attn_v.weight": "Q4_0",
    "blk.0.attn_output.weight": "Q4_0",
    "blk.0.ffn_gate_exps.weight": "Q4_K",
    "blk.0.ffn_up_exps.weight": "Q5_0",
    "blk.0.ffn_down_exps.weight": "Q6_K",
}
MOE_WIDE = MOE | {"moe_intermediate_size": 256, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 64}


def qwen3moe(formats: dict[str, str] | None = None, **sizes: object) -> Case:
    config = transformers.Qwen3MoeConfig(**sizes)
    return Case(Architecture("qwen3moe", head_dim=True), transformers.Qwen3MoeForCausalLM, config, formats or {})


CASES = {
    "qwen2": Case(Architecture("qwen2"), transformers.Qwen2ForCausalLM, transformers.Qwen2Config(
        **SMALL, **HEADS, vocab_size=128, tie_word_embeddings=True)),
    "qwen3": Case(Architecture("qwen3", head_dim=True), transformers.Qwen3ForCausalLM, transformers.Qwen3Config(
        **SMALL, **HEADS, head_dim=32, vocab_size=128, tie_word_embeddings=True)),
    "qwen2moe": Case(Architecture("qwen2moe"), transformers.Qwen2MoeForCausalLM, transformers.Qwen2MoeConfig(
        **(ONE | HEADS | MOE | {"norm_topk_prob": False}), shared_expert_intermediate_size=40)),
    "qwen3moe": qwen3moe(**SMALL, **HEADS, **MOE, head_dim=32, vocab_size=128),
    "moe_quantised": qwen3moe(EXPERT_FORMATS, **(WIDE | MOE_WIDE)),
}  # fmt: skip
