"""qwen35, qwen35moe and qwen3next: most layers are gated delta-nets, of which the converter turns nearly everything.

Norms but the delta-net's own hold one more in the file. Value heads of qwen35 and qwen35moe go from group by group to
one of each group in turn; those of qwen3next stay, but there transformers keeps q, k, v and z of each group together.
"""

from __future__ import annotations

import gguf
import numpy as np
import transformers

from goldens.architecture import POST_ATTENTION, Architecture, Config, Shape
from goldens.case import HEADS, MOE, SMALL, Case

NAMES = POST_ATTENTION | {
    r"layers\.(\d+)\.linear_attn\.in_proj_qkvz\.": r"blk.\1.attn_qkv_gate.",
    r"layers\.(\d+)\.linear_attn\.in_proj_ba\.": r"blk.\1.ssm_ba.",
    r"layers\.(\d+)\.linear_attn\.in_proj_qkv\.": r"blk.\1.attn_qkv.",
    r"layers\.(\d+)\.linear_attn\.in_proj_z\.": r"blk.\1.attn_gate.",
    r"layers\.(\d+)\.linear_attn\.in_proj_a\.": r"blk.\1.ssm_alpha.",
    r"layers\.(\d+)\.linear_attn\.in_proj_b\.": r"blk.\1.ssm_beta.",
    r"layers\.(\d+)\.linear_attn\.out_proj\.": r"blk.\1.ssm_out.",
    r"layers\.(\d+)\.linear_attn\.norm\.": r"blk.\1.ssm_norm.",
    r"layers\.(\d+)\.linear_attn\.conv1d\.": r"blk.\1.ssm_conv1d.",
    r"layers\.(\d+)\.linear_attn\.A_log": r"blk.\1.ssm_a",
    r"layers\.(\d+)\.linear_attn\.dt_bias": r"blk.\1.ssm_dt.bias",
}
HYBRID = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "full_attention_interval": 4}
HYBRID |= {"head_dim": 16, "vocab_size": 96, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
# 2^-20: what a delta-net gives its norm may be small, so that eps rounded to float32 would be felt.
HYBRID |= {"rms_norm_eps": 2**-20, "linear_conv_kernel_dim": 4}
HYBRID |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
HYBRID_MOE = HEADS | HYBRID | MOE | {"num_hidden_layers": 2, "full_attention_interval": 2}
HYBRID_MOE |= {"shared_expert_intermediate_size": 40, "max_position_embeddings": 256}
FORMATS = {"token_embd.weight": "Q8_0", "output.weight": "Q8_0"}
FORMATS |= {f"blk.{i}.ffn_{part}.weight": "Q4_0" for i in range(4) for part in ("gate", "up", "down")}
FORMATS |= {f"blk.3.attn_{part}.weight": "Q8_0" for part in ("q", "k", "v", "output")}
FORMATS |= {
    f"blk.{i}.{part}.weight": "Q8_0" for i in range(3) for part in ("attn_qkv", "attn_gate", "ssm_out", "ssm_alpha")
}  # ssm_beta stays F32: one of two weights that read the same numbers, the other rounded


class GatedDelta(Architecture):
    """``by_groups``: value heads stay group by group."""

    def __init__(self, name: str, *, by_groups: bool = False):
        super().__init__(name, head_dim=True, names=NAMES)
        self._by_groups = by_groups

    def parts(self, name: str, shape: Shape, c: Config) -> dict[str, Shape]:
        if "attn_qkv_gate" in name:
            n_gate = c.linear_num_value_heads * c.linear_value_head_dim
            rows = {"attn_qkv": shape[0] - n_gate, "attn_gate": n_gate}
            return {name.replace("attn_qkv_gate", part): (n, shape[1]) for part, n in rows.items()}
        if "ssm_conv1d" in name:  # [channels, 1, taps] there
            return {name: (shape[0], shape[2])}
        return super().parts(name, shape, c)

    def joined(self, parts: dict[str, np.ndarray], c: Config) -> np.ndarray:
        name, values = next(iter(parts)), super().joined(parts, c)
        part = name.split(".")[2] if name.startswith("blk.") else ""
        if name.endswith("norm.weight") and part != "ssm_norm":
            return values - 1.0
        if len(parts) > 1 and part == "attn_qkv":
            sizes = [c.linear_num_key_heads * c.linear_key_head_dim] * 2
            sizes += [c.linear_num_value_heads * c.linear_value_head_dim]
            groups = [p.reshape(c.linear_num_key_heads, -1, p.shape[-1]) for p in np.split(values, np.cumsum(sizes))]
            return np.concatenate(groups, axis=1).reshape(values.shape)
        if part in ("attn_qkv", "ssm_conv1d"):
            first = 2 * c.linear_num_key_heads * c.linear_key_head_dim
            values = np.concatenate([values[:first], self._grouped(values[first:], c.linear_value_head_dim, c)])
            return values[:, None] if part == "ssm_conv1d" else values
        if part == "attn_gate":
            return self._grouped(values, c.linear_value_head_dim, c)
        if part == "ssm_out":
            turned = self._grouped(np.ascontiguousarray(values.T), c.linear_value_head_dim, c)
            return np.ascontiguousarray(turned.T)
        if part in ("ssm_alpha", "ssm_beta", "ssm_dt", "ssm_a"):
            values = self._grouped(values, 1, c)
        return np.log(-values) if part == "ssm_a" else values

    def _grouped(self, values: np.ndarray, numbers: int, c: Config) -> np.ndarray:
        """Value heads, of so many numbers of the first dimension each, group by group."""
        if self._by_groups:
            return values
        k_heads, v_heads = c.linear_num_key_heads, c.linear_num_value_heads
        turns = values.reshape(v_heads // k_heads, k_heads, numbers, -1)
        return np.ascontiguousarray(turns.swapaxes(0, 1).reshape(values.shape))

    def add_attention_keys(self, writer: gguf.GGUFWriter, c: Config) -> None:
        super().add_attention_keys(writer, c)
        writer.add_ssm_conv_kernel(c.linear_conv_kernel_dim)
        writer.add_ssm_state_size(c.linear_key_head_dim)
        writer.add_ssm_group_count(c.linear_num_key_heads)
        writer.add_ssm_time_step_rank(c.linear_num_value_heads)
        writer.add_ssm_inner_size(c.linear_value_head_dim * c.linear_num_value_heads)
        writer.add_full_attention_interval(c.layer_types.index("full_attention") + 1)
        writer.add_rope_dimension_count(int(c.head_dim * c.rope_parameters["partial_rotary_factor"]))
        writer.add_rope_dimension_sections([1, 1, 0, 0])


def qwen35(formats: dict[str, str] | None = None, *, drafter: str = "") -> Case:
    config = transformers.Qwen3_5TextConfig(**(SMALL | HEADS | HYBRID))
    return Case(GatedDelta("qwen35"), transformers.Qwen3_5ForCausalLM, config, formats or {}, drafter=drafter)


CASES = {
    "qwen35": qwen35(drafter="shared"),
    "qwen35_quantised": qwen35(FORMATS),
    "qwen35moe": Case(
        GatedDelta("qwen35moe"), transformers.Qwen3_5MoeForCausalLM, transformers.Qwen3_5MoeTextConfig(**HYBRID_MOE)
    ),
    "qwen3next": Case(
        GatedDelta("qwen3next", by_groups=True),
        transformers.Qwen3NextForCausalLM,
        transformers.Qwen3NextConfig(**HYBRID_MOE),
        drafter="copies",
    ),
}
