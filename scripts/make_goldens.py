"""Makes tests/data/golden_<case>.gguf and .npz: tiny random models and the logits that transformers computes for them.

    python scripts/make_goldens.py            write all cases
    python scripts/make_goldens.py --check    make them again in a temporary folder and compare with tests/data

Needs the `reference` extra (torch, transformers, gguf). Weights are drawn with NumPy as the file holds them (float32,
or quantised and decoded again) and handed to a transformers model, undoing what llama.cpp's convert_hf_to_gguf.py does:
q and k rows of llama reordered for neighbour-pair RoPE, norms of gemma and qwen35 stored plus one, value heads of
qwen35 reordered. The model runs in float64 throughout: `AllFloat64` turns transformers' own float32 steps (norms,
softmax, angles) into float64. The result is checked against scripts/exact.py, which knows the models from the file
alone, and stored as float32.

Each .npz holds `tokens` int32 [n] and `logits` float32 [n, vocab]. Cases with quantised weights add `logits_q8`: the
same weights, but the input of every linear with a quantised weight rounded to int8 per 32 values (exact.round_to_int8).
golden_chat carries a small byte-level tokenizer; its .npz adds `text`, of which `tokens` is the encoding.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from exact import ExactModel
from golden_formats import decode_as, encode
from golden_tokenizer import add_tokenizer, example_tokens
from torch.overrides import TorchFunctionMode

DATA = Path(__file__).parent.parent / "tests" / "data"
N_TOKENS = 40
HYBRIDS = ("qwen35", "qwen35moe", "qwen3next")
AGREEMENT = 1e-20  # NMSE between transformers and exact.py, both float64: measured 2e-23; one float32 step gives 1e-15
HF_NAMES = {  # transformers' name of a parameter (without "model.") -> the file's
    r"embed_tokens\.": "token_embd.",
    r"lm_head\.": "output.",
    r"norm\.": "output_norm.",
    r"layers\.(\d+)\.self_attn\.([qkv])_proj\.": r"blk.\1.attn_\2.",
    r"layers\.(\d+)\.self_attn\.o_proj\.": r"blk.\1.attn_output.",
    r"layers\.(\d+)\.self_attn\.([qk])_norm\.": r"blk.\1.attn_\2_norm.",
    r"layers\.(\d+)\.mlp\.(gate|up|down)_proj\.": r"blk.\1.ffn_\2.",
    r"layers\.(\d+)\.self_attn\.(q_a|q_b)_proj\.": r"blk.\1.attn_\2.",
    r"layers\.(\d+)\.self_attn\.kv_a_proj_with_mqa\.": r"blk.\1.attn_kv_a_mqa.",
    r"layers\.(\d+)\.self_attn\.kv_b_proj\.": r"blk.\1.attn_kv_b.",
    r"layers\.(\d+)\.self_attn\.(q_a|kv_a)_layernorm\.": r"blk.\1.attn_\2_norm.",
    r"layers\.(\d+)\.mlp\.gate\.weight": r"blk.\1.ffn_gate_inp.weight",
    r"layers\.(\d+)\.mlp\.gate\.e_score_correction_bias": r"blk.\1.exp_probs_b.bias",
    r"layers\.(\d+)\.mlp\.shared_experts?\.(gate|up|down)_proj\.": r"blk.\1.ffn_\2_shexp.",
    r"layers\.(\d+)\.mlp\.shared_expert_gate\.": r"blk.\1.ffn_gate_inp_shexp.",
    r"layers\.(\d+)\.mlp\.experts\.(gate_up|down)_proj": r"blk.\1.ffn_\2_exps.weight",
    r"layers\.(\d+)\.input_layernorm\.": r"blk.\1.attn_norm.",
    r"layers\.(\d+)\.post_attention_layernorm\.": r"blk.\1.ffn_norm.",
    r"layers\.(\d+)\.pre_feedforward_layernorm\.": r"blk.\1.ffn_norm.",
    r"layers\.(\d+)\.post_feedforward_layernorm\.": r"blk.\1.post_ffw_norm.",
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


@dataclass(frozen=True)
class Case:
    """One tiny model: its transformers configuration and how each weight is stored."""

    architecture: str
    config: transformers.PretrainedConfig
    formats: dict[str, str] = field(default_factory=dict)  # tensor name -> format; others F32
    chat: bool = False
    old: bool = False  # deepseek2: as converters wrote it at first, attn_kv_b in one tensor and fewer keys


def cases() -> dict[str, Case]:
    """All cases by name."""
    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 256}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    wide = small | {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "vocab_size": 96}
    wide |= {"num_attention_heads": 4, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
    moe = {"num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "norm_topk_prob": True}
    moe |= {"tie_word_embeddings": False}
    moe_wide = moe | {"moe_intermediate_size": 256, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 64}
    latent = small | {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 96, "rms_norm_eps": 1e-6}
    latent |= {"kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
    latent |= {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16, "n_shared_experts": 2}
    blocks = {"kv_lora_rank": 64, "qk_nope_head_dim": 32, "v_head_dim": 32, "moe_intermediate_size": 32}
    blocks |= {"qk_rope_head_dim": 32}
    latent |= {"first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "tie_word_embeddings": False}
    lite = latent | {"q_lora_rank": None, "rope_parameters": yarn(0.707), "n_group": 1, "topk_group": 1}
    v2 = latent | {"q_lora_rank": 32, "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0}
    v3 = latent | {"q_lora_rank": 32, "norm_topk_prob": True, "routed_scaling_factor": 2.5}
    v3 |= {"rope_parameters": yarn(1.0)}
    deepseek2, deepseek3 = transformers.DeepseekV2Config, transformers.DeepseekV3Config
    one = small | {"num_hidden_layers": 1, "vocab_size": 96}
    glm = {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "n_shared_experts": 2}
    glm |= {"first_k_dense_replace": 1, "use_qk_norm": True, "attention_bias": True, "head_dim": 16, "n_group": 4}
    glm |= {"topk_group": 2, "routed_scaling_factor": 2.5, "tie_word_embeddings": False}
    glm |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}
    llama31 = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0}
    llama31 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # 32: so that it matters at 40 tokens
    llama, gemma = transformers.LlamaConfig, transformers.Gemma3TextConfig
    qwen2, qwen3 = transformers.Qwen2Config, transformers.Qwen3Config
    linear8 = {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    gemma3 = small | {"hidden_size": 32, "num_hidden_layers": 7, "vocab_size": 96}
    gemma3 |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 32}
    gemma3 |= {"sliding_window": 8, "rms_norm_eps": 1e-6}
    hybrid = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "full_attention_interval": 4}
    hybrid |= {"head_dim": 16, "vocab_size": 96, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
    # 2^-20: what a delta-net gives its norm may be small, so that eps rounded to float32 would be felt.
    hybrid |= {"rms_norm_eps": 2**-20, "linear_conv_kernel_dim": 4}
    hybrid |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    hybrid_moe = heads | hybrid | moe | {"num_hidden_layers": 2, "full_attention_interval": 2}
    hybrid_moe |= {"shared_expert_intermediate_size": 40, "max_position_embeddings": 256}
    return {
        "llama": Case(
            "llama", llama(**(small | {"intermediate_size": 96}), **heads, vocab_size=128, tie_word_embeddings=False)
        ),
        "llama_tied_scaled": Case(
            "llama", llama(**small, **heads, vocab_size=101, rope_parameters=llama31, tie_word_embeddings=True)
        ),
        "llama_bias": Case(
            "llama", llama(**(small | {"num_hidden_layers": 1}), **heads, vocab_size=96, attention_bias=True)
        ),
        "qwen2": Case("qwen2", qwen2(**small, **heads, vocab_size=128, tie_word_embeddings=True)),
        "qwen3": Case("qwen3", qwen3(**small, **heads, head_dim=32, vocab_size=128, tie_word_embeddings=True)),
        "qwen3moe": Case("qwen3moe", transformers.Qwen3MoeConfig(**small, **heads, head_dim=32, vocab_size=128, **moe)),
        "moe_quantised": Case("qwen3moe", transformers.Qwen3MoeConfig(**(wide | moe_wide)), EXPERT_FORMATS),
        "qwen2moe": Case("qwen2moe", transformers.Qwen2MoeConfig(
            **(one | heads | moe | {"norm_topk_prob": False}), shared_expert_intermediate_size=40)),
        "olmoe": Case("olmoe", transformers.OlmoeConfig(
            **(one | heads | moe | {"norm_topk_prob": False, "intermediate_size": 24}))),
        "mixtral": Case("llama", transformers.MixtralConfig(
            **(one | heads | {"intermediate_size": 24}), num_local_experts=7, num_experts_per_tok=2)),
        "glm4moe": Case("glm4moe", transformers.Glm4MoeConfig(**(small | {"vocab_size": 96}), **heads, **glm)),
        "gemma3": Case("gemma3", gemma(**gemma3)),
        "gemma3_scaled": Case(
            "gemma3", gemma(**(gemma3 | {"num_hidden_layers": 6, "intermediate_size": 32}), rope_parameters=linear8)
        ),
        "deepseek2_lite": Case("deepseek2", deepseek2(**lite), old=True),
        "deepseek2": Case("deepseek2", deepseek2(**v2)),
        "deepseek3": Case("deepseek2", deepseek3(**v3)),
        "deepseek2_quantised": Case("deepseek2", deepseek2(**(lite | blocks)), LATENT_FORMATS, old=True),
        "deepseek3_quantised": Case("deepseek2", deepseek3(**(v3 | blocks)), LATENT_FORMATS),
        "qwen35moe": Case("qwen35moe", transformers.Qwen3_5MoeTextConfig(**hybrid_moe)),
        "qwen3next": Case("qwen3next", transformers.Qwen3NextConfig(**hybrid_moe)),
        "qwen35": Case("qwen35", transformers.Qwen3_5TextConfig(**(small | heads | hybrid))),
        "qwen35_quantised": Case(
            "qwen35", transformers.Qwen3_5TextConfig(**(small | heads | hybrid)), HYBRID_FORMATS
        ),
        "chat": Case("llama", llama(**small, **heads, vocab_size=275, tie_word_embeddings=True), chat=True),
        "quantised": Case("llama", llama(**wide), MIXED_FORMATS),
        "kquants": Case("llama", llama(**wide), K_FORMATS),
    }


def yarn(mscale: float) -> dict:
    """DeepSeek's stretching, from 16 positions, so that it matters at 40 tokens; a tenth of mscale is a float32."""
    mscale = 10 * float(np.float32(0.1 * mscale))
    stretched = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 16.0, "original_max_position_embeddings": 16}
    return stretched | {"beta_fast": 32, "beta_slow": 1, "mscale": mscale, "mscale_all_dim": mscale}


MIXED_FORMATS = {
    "token_embd.weight": "Q8_0",
    "output.weight": "Q4_0",
    "blk.0.attn_q.weight": "Q4_0",
    "blk.0.attn_k.weight": "F16",
    "blk.0.attn_v.weight": "BF16",
    "blk.0.attn_output.weight": "Q8_0",
    "blk.0.ffn_gate.weight": "Q4_1",
    "blk.0.ffn_up.weight": "Q5_0",
    "blk.0.ffn_down.weight": "Q5_1",
}
K_FORMATS = {
    "token_embd.weight": "Q6_K",
    "output.weight": "Q6_K",
    "blk.0.attn_q.weight": "Q4_K",
    "blk.0.attn_k.weight": "Q2_K",
    "blk.0.attn_v.weight": "Q6_K",
    "blk.0.attn_output.weight": "Q3_K",
    "blk.0.ffn_gate.weight": "Q4_K",
    "blk.0.ffn_up.weight": "Q5_K",
    "blk.0.ffn_down.weight": "Q6_K",
}
HYBRID_FORMATS = {"token_embd.weight": "Q8_0", "output.weight": "Q8_0"}
HYBRID_FORMATS |= {f"blk.{i}.ffn_{part}.weight": "Q4_0" for i in range(4) for part in ("gate", "up", "down")}
HYBRID_FORMATS |= {f"blk.3.attn_{part}.weight": "Q8_0" for part in ("q", "k", "v", "output")}
HYBRID_FORMATS |= {
    f"blk.{i}.{part}.weight": "Q8_0" for i in range(3) for part in ("attn_qkv", "attn_gate", "ssm_out", "ssm_alpha")
}  # ssm_beta stays F32: one of two weights that read the same numbers, the other rounded


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


LATENT_FORMATS = {
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


class AllFloat64(TorchFunctionMode):
    """While active, whatever asks torch for float32 gets float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """One torch call with float32 replaced in its arguments."""

        def widen(value: object) -> object:
            return torch.float64 if value is torch.float32 else value

        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*map(widen, args), **{key: widen(value) for key, value in (kwargs or {}).items()})


def make(name: str, case: Case, folder: Path) -> str:
    """Write one case to the folder; one line that says how well transformers and exact.py agree."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    with AllFloat64():
        torch.set_default_dtype(torch.float64)
        model = model_class(case)._from_config(
            case.config, attn_implementation="eager", experts_implementation="eager"
        ).eval()
        stored = {}  # name in the file -> (format, raw array as the file holds it)
        biases = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("_bias")]
        for hf_name, parameter in [*model.named_parameters(), *biases]:
            parts = parts_in_file(name_in_file(hf_name, case), tuple(parameter.shape), case)
            for part, shape in parts.items():
                stored[part] = encode(draw(part, shape, rng), case.formats.get(part, "F32"), rng)
            decoded = {part: decode_as(*stored[part], shape).astype(np.float64) for part, shape in parts.items()}
            parameter.data = torch.from_numpy(as_transformers_has_it(decoded, case))
        divisors = as_stored_divisors(model, case.config) if has_divisors(case) else None
        text, tokens = example_tokens() if case.chat else ("", rng.integers(0, case.config.vocab_size, N_TOKENS))
        with torch.no_grad():
            logits = model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0].numpy()
    assert logits.dtype == np.float64, "some step of transformers escaped AllFloat64"
    path = folder / f"golden_{name}.gguf"
    if divisors is not None:
        stored["rope_freqs.weight"] = (gguf.GGMLQuantizationType.F32, divisors)
    write_file(path, name, case, stored)
    arrays = {"tokens": tokens.astype(np.int32), "logits": logits.astype(np.float32)}
    if case.chat:
        arrays["text"] = np.array(text)
    if case.formats:
        arrays["logits_q8"] = ExactModel(path, activations="q8").logits(tokens).astype(np.float32)
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    error = nmse(ExactModel(path).logits(tokens), logits)
    assert error < AGREEMENT, f"{name}: transformers and exact.py differ, NMSE {error:.1e}"
    q8 = f", int8 inputs cost {nmse(arrays['logits_q8'], logits):.1e}" if case.formats else ""
    return f"{name}: {path.stat().st_size} bytes, logits std {logits.std():.2f}, NMSE to exact.py {error:.1e}{q8}"


def model_class(case: Case) -> type[transformers.PreTrainedModel]:
    if hasattr(case.config, "num_local_experts") and case.architecture == "llama":
        return transformers.MixtralForCausalLM
    if case.architecture == "deepseek2":
        version3 = isinstance(case.config, transformers.DeepseekV3Config)
        return transformers.DeepseekV3ForCausalLM if version3 else transformers.DeepseekV2ForCausalLM
    return {
        "llama": transformers.LlamaForCausalLM,
        "qwen2": transformers.Qwen2ForCausalLM,
        "qwen3": transformers.Qwen3ForCausalLM,
        "qwen35": transformers.Qwen3_5ForCausalLM,
        "qwen35moe": transformers.Qwen3_5MoeForCausalLM,
        "qwen3next": transformers.Qwen3NextForCausalLM,
        "qwen3moe": transformers.Qwen3MoeForCausalLM,
        "qwen2moe": transformers.Qwen2MoeForCausalLM,
        "olmoe": transformers.OlmoeForCausalLM,
        "glm4moe": transformers.Glm4MoeForCausalLM,
        "gemma3": transformers.Gemma3ForCausalLM,
    }[case.architecture]


def name_in_file(hf_name: str, case: Case) -> str:
    """The GGUF name of a transformers parameter, as llama.cpp's converter gives it."""
    short = hf_name.removeprefix("model.")
    # gemma's norm after attention is not the one before the feed-forward part; that of the others is, but has the name
    if case.architecture in ("gemma3", "glm4moe", *HYBRIDS):
        short = re.sub(r"layers\.(\d+)\.post_attention_layernorm\.", r"blk.\1.post_attention_norm.", short)
    for pattern, name in HF_NAMES.items():
        short, found = re.subn("^" + pattern, name, short)
        if found:
            break
    return short


def parts_in_file(name: str, shape: tuple[int, ...], case: Case) -> dict[str, tuple[int, ...]]:
    """The file's tensors that one of transformers' holds: of experts gates and ups, of latents keys and values …"""
    if len(shape) == 3 and shape[1] == 1:  # a convolution's has no 1 in the middle there
        shape = (shape[0], shape[2])
    if "attn_qkv_gate" in name:
        n_gate = case.config.linear_num_value_heads * case.config.linear_value_head_dim
        rows = {"attn_qkv": shape[0] - n_gate, "attn_gate": n_gate}
        return {name.replace("attn_qkv_gate", part): (n, shape[1]) for part, n in rows.items()}
    both = "ffn_gate_up_exps"
    if both in name:
        half = (*shape[:-2], shape[-2] // 2, shape[-1])
        return {name.replace(both, f"ffn_{part}_exps"): half for part in ("gate", "up")}
    if "attn_kv_b." in name and not case.old:
        c = case.config
        heads, rank = c.num_attention_heads, c.kv_lora_rank
        return {
            name.replace("kv_b", "k_b"): (heads, rank, c.qk_nope_head_dim),
            name.replace("kv_b", "v_b"): (heads, c.v_head_dim, rank),
        }
    return {name: shape}


def shapes_in_file(parts: list[str], shape: tuple[int, ...], case: Case) -> list[tuple[int, ...]]:
    """Their shapes; a convolution's has no 1 in the middle there."""
    if len(shape) == 3 and shape[1] == 1:
        shape = (shape[0], shape[2])
    if "attn_gate" in parts[-1] and len(parts) == 2:
        n_gate = case.config.linear_num_value_heads * case.config.linear_value_head_dim
        return [(shape[0] - n_gate, shape[1]), (n_gate, shape[1])]
    each = (*shape[:-2], shape[-2] // len(parts), shape[-1]) if len(shape) > 1 else shape
    return [each] * len(parts)


def draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random float32 weights: logits get a standard deviation near 2, norms and biases differ from 1 and 0."""
    if name.endswith("norm.weight"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("ssm_a"):  # with ssm_dt: what is kept per token lies between 0.02 and 0.99
        return (-rng.uniform(0.1, 2.0, shape)).astype(np.float32)
    if name.endswith(".bias"):
        return (0.5 * rng.standard_normal(shape)).astype(np.float32)
    gain = {"token_embd.weight": 2.0, "output.weight": 2.0}.get(name, 1.6 if ".attn_" in name else 1.0)
    return (gain / shape[-1] ** 0.5 * rng.standard_normal(shape)).astype(np.float32)


def as_transformers_has_it(parts: dict[str, np.ndarray], case: Case) -> np.ndarray:
    """Undo the converter: what is several tensors in the file is one again.

    Also, norms of gemma and HYBRIDS hold one more, and llama's q and k rows alternate the two halves of a head.
    """
    name, values = next(iter(parts.items()))
    if "attn_k_b." in name:  # keys are turned; keys and values alternate head by head
        keys, heads = values.swapaxes(1, 2), parts[name.replace("k_b", "v_b")]
        return np.concatenate([keys, heads], axis=1).reshape(-1, keys.shape[-1])
    if len(parts) > 1:
        values = np.concatenate(list(parts.values()), axis=-2)
    if case.architecture in HYBRIDS:
        return as_hybrid(name, values, case)
    if len(parts) > 1:
        return values
    if case.architecture == "gemma3" and name.endswith("norm.weight"):
        return values - 1.0
    if case.architecture == "llama" and (found := re.search(r"attn_([qk])\.", name)):
        config = case.config
        n_heads = config.num_attention_heads if found[1] == "q" else config.num_key_value_heads
        pairs = values.reshape(n_heads, -1, 2, *values.shape[1:])  # [head, pair, half, …]
        return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))
    return values


def as_hybrid(name: str, values: np.ndarray, case: Case) -> np.ndarray:
    """Undo it for HYBRIDS: value heads go from one of each group in turn back to group by group.

    Those of qwen3next are group by group in the file, but there q, k, v and z of each group stand together.
    """
    c = case.config
    k_heads, v_heads, v_dim = c.linear_num_key_heads, c.linear_num_value_heads, c.linear_value_head_dim
    part = name.split(".")[2] if name.startswith("blk.") else ""

    def grouped(values: np.ndarray, numbers: int) -> np.ndarray:
        if case.architecture == "qwen3next":
            return values
        turns = values.reshape(v_heads // k_heads, k_heads, numbers, -1)  # first dimension: heads of so many numbers
        return np.ascontiguousarray(turns.swapaxes(0, 1).reshape(values.shape))

    if name.endswith("norm.weight") and part != "ssm_norm":
        return values - 1.0
    if part == "attn_qkv" and case.architecture == "qwen3next":
        sizes = [k_heads * c.linear_key_head_dim] * 2 + [v_heads * v_dim]
        groups = [p.reshape(k_heads, -1, p.shape[-1]) for p in np.split(values, np.cumsum(sizes))]
        return np.concatenate(groups, axis=1).reshape(values.shape)
    if part in ("attn_qkv", "ssm_conv1d"):
        first = 2 * k_heads * c.linear_key_head_dim
        values = np.concatenate([values[:first], grouped(values[first:], v_dim)])
        return values[:, None] if part == "ssm_conv1d" else values
    if part == "attn_gate":
        return grouped(values, v_dim)
    if part == "ssm_out":
        return np.ascontiguousarray(grouped(np.ascontiguousarray(values.T), v_dim).T)
    if part in ("ssm_alpha", "ssm_beta", "ssm_dt", "ssm_a"):
        values = grouped(values, 1)
    return np.log(-values) if part == "ssm_a" else values


def write_file(
    path: Path, name: str, case: Case, stored: dict, add: Callable[[gguf.GGUFWriter], None] | None = None
) -> None:
    """The GGUF file, with the metadata llama.cpp's converter writes for the architecture; ``add`` adds more."""
    c = case.config
    writer = gguf.GGUFWriter(path, case.architecture)
    writer.add_name(f"tenth golden {name}")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(1 if case.architecture == "deepseek2" and not case.old else c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    if case.architecture in HYBRIDS:
        add_hybrid_keys(writer, c)
    if case.architecture in ("qwen3", "qwen3moe", "gemma3", "glm4moe", *HYBRIDS):
        writer.add_key_length(c.head_dim)
        writer.add_value_length(c.head_dim)
    if case.architecture == "deepseek2":
        add_latent_keys(writer, case)
    elif hasattr(c, "num_experts_per_tok"):
        add_expert_keys(writer, case)
    if case.architecture == "llama":
        writer.add_vocab_size(c.vocab_size)
        writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    rope = c.rope_parameters
    if case.architecture == "gemma3":
        writer.add_sliding_window(c.sliding_window)
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])
    if case.chat:
        add_tokenizer(writer)
    if add:
        add(writer)
    for tensor, (kind, raw) in stored.items():
        writer.add_tensor(tensor, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_hybrid_keys(writer: gguf.GGUFWriter, c: transformers.PretrainedConfig) -> None:
    writer.add_ssm_conv_kernel(c.linear_conv_kernel_dim)
    writer.add_ssm_state_size(c.linear_key_head_dim)
    writer.add_ssm_group_count(c.linear_num_key_heads)
    writer.add_ssm_time_step_rank(c.linear_num_value_heads)
    writer.add_ssm_inner_size(c.linear_value_head_dim * c.linear_num_value_heads)
    writer.add_full_attention_interval(c.layer_types.index("full_attention") + 1)
    writer.add_rope_dimension_count(int(c.head_dim * c.rope_parameters["partial_rotary_factor"]))
    writer.add_rope_dimension_sections([1, 1, 0, 0])


def add_latent_keys(writer: gguf.GGUFWriter, case: Case) -> None:
    """What the converter writes for deepseek2 alone; in old files a head's sizes stand where the cache's do now."""
    c = case.config
    head = c.qk_nope_head_dim + c.qk_rope_head_dim, c.v_head_dim
    cache = c.kv_lora_rank + c.qk_rope_head_dim, c.kv_lora_rank
    writer.add_vocab_size(c.vocab_size)
    writer.add_key_length((head if case.old else cache)[0])
    writer.add_value_length((head if case.old else cache)[1])
    if not case.old:
        writer.add_key_length_mla(head[0])
        writer.add_value_length_mla(head[1])
        writer.add_expert_group_count(c.n_group)
        writer.add_expert_group_used_count(c.topk_group)
    if c.q_lora_rank:
        writer.add_q_lora_rank(c.q_lora_rank)
    writer.add_kv_lora_rank(c.kv_lora_rank)
    writer.add_rope_dimension_count(c.qk_rope_head_dim)
    writer.add_leading_dense_block_count(c.first_k_dense_replace)
    writer.add_expert_count(c.n_routed_experts)
    writer.add_expert_used_count(c.num_experts_per_tok)
    writer.add_expert_shared_count(c.n_shared_experts)
    writer.add_expert_feed_forward_length(c.moe_intermediate_size)
    writer.add_expert_weights_scale(c.routed_scaling_factor)
    if c.norm_topk_prob:
        writer.add_expert_weights_norm(True)
    if isinstance(c, transformers.DeepseekV3Config):
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def add_expert_keys(writer: gguf.GGUFWriter, case: Case) -> None:
    """What the converter writes of a mixture of experts."""
    c = case.config
    writer.add_expert_count(c.num_local_experts if hasattr(c, "num_local_experts") else c.num_experts)
    writer.add_expert_used_count(c.num_experts_per_tok)
    if hasattr(c, "moe_intermediate_size"):
        writer.add_expert_feed_forward_length(c.moe_intermediate_size)
    if case.architecture in ("qwen2moe", "qwen35moe", "qwen3next"):
        writer.add_expert_shared_feed_forward_length(c.shared_expert_intermediate_size)
    if case.architecture == "glm4moe":
        writer.add_rope_dimension_count(int(c.head_dim * c.rope_parameters["partial_rotary_factor"]))
        writer.add_expert_group_count(c.n_group)
        writer.add_expert_group_used_count(c.topk_group)
        writer.add_expert_shared_count(c.n_shared_experts)
        writer.add_leading_dense_block_count(c.first_k_dense_replace)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_expert_weights_scale(c.routed_scaling_factor)
        writer.add_expert_weights_norm(c.norm_topk_prob)


def has_divisors(case: Case) -> bool:
    return case.architecture == "llama" and case.config.rope_parameters["rope_type"] == "llama3"


def as_stored_divisors(model: transformers.PreTrainedModel, config: transformers.PretrainedConfig) -> np.ndarray:
    """Float32 [head_dim / 2]: plain inverse frequency over the scaled one, as rope_freqs.weight holds it.

    The model's own frequencies become the plain ones over these rounded divisors, so that file and model mean the same.
    """
    head_dim = config.hidden_size // config.num_attention_heads
    plain = config.rope_parameters["rope_theta"] ** -(np.arange(0, head_dim, 2) / head_dim)
    divisors = (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    model.model.rotary_emb.inv_freq = torch.from_numpy(plain / divisors)
    return divisors


def nmse(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean squared error over the mean square of what was expected."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return float(np.mean((found - expected) ** 2) / np.mean(expected**2))


def differences(name: str, folder: Path) -> list[str]:
    """What differs between a fresh case in the folder and the one in tests/data; tensors and tokens must be equal."""
    fresh, kept = (gguf.GGUFReader(f / f"golden_{name}.gguf") for f in (folder, DATA))
    found = []
    ours, theirs = ({t.name: (t.tensor_type, t.data.tobytes()) for t in reader.tensors} for reader in (fresh, kept))
    found += [f"tensor {key}" for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
    metadata = [{key: f.contents() for key, f in reader.fields.items()} for reader in (fresh, kept)]
    found += [
        f"key {key}" for key in metadata[0].keys() | metadata[1].keys() if metadata[0].get(key) != metadata[1].get(key)
    ]
    arrays = [dict(np.load(f / f"golden_{name}.npz")) for f in (folder, DATA)]
    found += [f"array {key}" for key in arrays[0].keys() | arrays[1].keys() if not alike(*(a.get(key) for a in arrays))]
    return [f"{name}: {what} differs" for what in found]


def alike(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Whether two arrays are equal; logits may differ as much as another processor's rounding makes them."""
    if a is None or b is None or a.shape != b.shape:
        return False
    return nmse(a, b) < 1e-12 if a.dtype == np.float32 else np.array_equal(a, b)


def main() -> int:
    """Write or check the cases named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="*", help=f"of: {', '.join(cases())}; all when none is named")
    parser.add_argument("--check", action="store_true", help="compare with tests/data and change nothing")
    options = parser.parse_args()
    chosen = {name: case for name, case in cases().items() if not options.case or name in options.case}
    if unknown := set(options.case) - set(chosen):
        parser.error(f"no case named {', '.join(sorted(unknown))}")
    if not options.check:
        DATA.mkdir(exist_ok=True)
        for name, case in chosen.items():
            print(make(name, case, DATA))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name, case in chosen.items():
            make(name, case, Path(folder))
            found += differences(name, Path(folder))
    print("\n".join(found) or f"{len(chosen)} cases are as committed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
