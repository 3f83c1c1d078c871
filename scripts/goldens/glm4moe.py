"""glm4moe: DeepSeek's way of choosing experts, grouped-query attention, half of each head rotated."""

from __future__ import annotations

import gguf
import transformers

from goldens.architecture import POST_ATTENTION, Architecture, Config, add_grouped_expert_keys
from goldens.case import HEADS, SMALL, Case

GLM = {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "n_shared_experts": 2}
GLM |= {"first_k_dense_replace": 1, "use_qk_norm": True, "attention_bias": True, "head_dim": 16, "n_group": 4}
GLM |= {"topk_group": 2, "routed_scaling_factor": 2.5, "tie_word_embeddings": False, "vocab_size": 96}
GLM |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}


class Glm4Moe(Architecture):
    def add_expert_keys(self, writer: gguf.GGUFWriter, c: Config) -> None:
        add_grouped_expert_keys(writer, c)
        writer.add_rope_dimension_count(int(c.head_dim * c.rope_parameters["partial_rotary_factor"]))
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_expert_weights_norm(c.norm_topk_prob)


CASES = {
    "glm4moe": Case(
        Glm4Moe("glm4moe", head_dim=True, names=POST_ATTENTION),
        transformers.Glm4MoeForCausalLM,
        transformers.Glm4MoeConfig(**SMALL, **HEADS, **GLM),
        drafter="copies",
    )
}
