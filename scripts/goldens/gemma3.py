"""gemma3: norms hold one more in the file; two bases of rope; four norms a layer."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import transformers

from goldens.architecture import POST_ATTENTION, Architecture, Config
from goldens.case import SMALL, Case

NAMES = POST_ATTENTION | {
    r"layers\.(\d+)\.pre_feedforward_layernorm\.": r"blk.\1.ffn_norm.",
    r"layers\.(\d+)\.post_feedforward_layernorm\.": r"blk.\1.post_ffw_norm.",
}
GEMMA = SMALL | {"hidden_size": 32, "num_hidden_layers": 7, "vocab_size": 96}
GEMMA |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 32}
GEMMA |= {"sliding_window": 8, "rms_norm_eps": 1e-6}
LINEAR8 = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


class Gemma3(Architecture):
    def joined(self, parts: dict[str, np.ndarray], c: Config) -> np.ndarray:
        values = super().joined(parts, c)
        return values - 1.0 if next(iter(parts)).endswith("norm.weight") else values

    def rope(self, c: Config) -> dict[str, Any]:
        return c.rope_parameters["full_attention"]

    def add_attention_keys(self, writer: gguf.GGUFWriter, c: Config) -> None:
        super().add_attention_keys(writer, c)
        writer.add_sliding_window(c.sliding_window)
        writer.add_rope_freq_base_swa(c.rope_parameters["sliding_attention"]["rope_theta"])


def gemma3(**sizes: object) -> Case:
    config = transformers.Gemma3TextConfig(**sizes)
    return Case(Gemma3("gemma3", head_dim=True, names=NAMES), transformers.Gemma3ForCausalLM, config)


CASES = {
    "gemma3": gemma3(**GEMMA),
    "gemma3_scaled": gemma3(
        **(GEMMA | {"num_hidden_layers": 6, "intermediate_size": 32}), rope_parameters=LINEAR8
    ),
}
