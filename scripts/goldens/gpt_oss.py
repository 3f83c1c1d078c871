"""gpt-oss: sinks, biases everywhere; numbers of gate and up alternate in transformers' experts, which are turned."""

from __future__ import annotations

import gguf
import numpy as np
import transformers

from goldens.architecture import POST_ATTENTION, Architecture, Config, Shape
from goldens.case import HEADS, SMALL, Case

NAMES = POST_ATTENTION | {
    r"layers\.(\d+)\.mlp\.experts\.(gate_up|down)_proj_bias": r"blk.\1.ffn_\2_exps.bias",
    r"layers\.(\d+)\.mlp\.router\.": r"blk.\1.ffn_gate_inp.",
    r"layers\.(\d+)\.self_attn\.sinks": r"blk.\1.attn_sinks.weight",
}
# From 16 positions, so that it matters at 40 tokens.
YARN = {"rope_type": "yarn", "rope_theta": 150_000.0, "factor": 8.0, "original_max_position_embeddings": 16}
YARN |= {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
OSS = SMALL | HEADS | {"intermediate_size": 24, "head_dim": 16, "vocab_size": 96, "sliding_window": 8}
OSS |= {"num_local_experts": 7, "num_experts_per_tok": 3, "rope_parameters": YARN}
BLOCKS = OSS | {"intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 32, "num_local_experts": 4}
BLOCKS |= {"num_experts_per_tok": 2}
FORMATS = {"token_embd.weight": "Q8_0", "output.weight": "Q8_0"}
FORMATS |= {f"blk.0.attn_{part}.weight": "Q8_0" for part in ("q", "k", "v", "output")}
FORMATS |= {f"blk.0.ffn_{part}_exps.weight": "MXFP4" for part in ("gate", "up", "down")}


class GptOss(Architecture):
    def parts(self, name: str, shape: Shape, c: Config) -> dict[str, Shape]:
        if "_exps." not in name:
            return {name: shape}
        shape = (shape[0], *shape[:0:-1])  # of a bias nothing is turned
        if "gate_up" not in name:
            return {name: shape}
        half = (shape[0], shape[1] // 2, *shape[2:])
        return {name.replace("gate_up", part): half for part in ("gate", "up")}

    def joined(self, parts: dict[str, np.ndarray], c: Config) -> np.ndarray:
        name, values = next(iter(parts.items()))
        if "_exps." not in name:
            return values
        values = np.stack(list(parts.values()), axis=2).reshape(len(values), -1, *values.shape[2:])
        return np.ascontiguousarray(values.swapaxes(1, -1)) if values.ndim == 3 else values

    def add_expert_keys(self, writer: gguf.GGUFWriter, c: Config) -> None:
        super().add_expert_keys(writer, c)
        writer.add_sliding_window(c.sliding_window)
        writer.add_expert_feed_forward_length(c.intermediate_size)


ARCHITECTURE = GptOss("gpt-oss", head_dim=True, names=NAMES)
MODEL, CONFIG = transformers.GptOssForCausalLM, transformers.GptOssConfig
CASES = {
    # Wide experts, so that their clamps are felt.
    "gpt_oss": Case(ARCHITECTURE, MODEL, CONFIG(**OSS), expert_gain=3.0),
    "gpt_oss_quantised": Case(ARCHITECTURE, MODEL, CONFIG(**BLOCKS), FORMATS),
}
