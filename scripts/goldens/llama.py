"""llama, and Mixtral under the same name: q and k rows alternate the two halves of a head; Llama 3.1's rope_freqs."""

from __future__ import annotations

import re

import gguf
import numpy as np
import torch
import transformers

from goldens.architecture import Architecture, Config
from goldens.case import HEADS, ONE, SMALL, WIDE, Case

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
LLAMA31 = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA31 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # 32: so that it matters at 40 tokens


class Llama(Architecture):
    def joined(self, parts: dict[str, np.ndarray], c: Config) -> np.ndarray:
        values = super().joined(parts, c)
        if found := re.search(r"attn_([qk])\.", next(iter(parts))):
            n_heads = c.num_attention_heads if found[1] == "q" else c.num_key_value_heads
            pairs = values.reshape(n_heads, -1, 2, *values.shape[1:])  # [head, pair, half, …]
            return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))
        return values

    def further_tensors(self, model: transformers.PreTrainedModel, c: Config) -> dict[str, np.ndarray]:
        """rope_freqs.weight [head_dim / 2]: plain inverse frequency over the scaled one.

        The model's own frequencies become the plain ones over these rounded divisors: file and model mean the same.
        """
        if c.rope_parameters["rope_type"] != "llama3":
            return {}
        head_dim = c.hidden_size // c.num_attention_heads
        plain = c.rope_parameters["rope_theta"] ** -(np.arange(0, head_dim, 2) / head_dim)
        divisors = (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
        model.model.rotary_emb.inv_freq = torch.from_numpy(plain / divisors)
        return {"rope_freqs.weight": divisors}

    def add_attention_keys(self, writer: gguf.GGUFWriter, c: Config) -> None:
        super().add_attention_keys(writer, c)
        writer.add_vocab_size(c.vocab_size)
        writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)


def llama(formats: dict[str, str] | None = None, chat: bool = False, **sizes: object) -> Case:
    config = transformers.LlamaConfig(**sizes)
    return Case(Llama("llama"), transformers.LlamaForCausalLM, config, formats or {}, chat=chat)


CASES = {
    "llama": llama(**(SMALL | {"intermediate_size": 96}), **HEADS, vocab_size=128, tie_word_embeddings=False),
    "llama_tied_scaled": llama(**SMALL, **HEADS, vocab_size=101, rope_parameters=LLAMA31, tie_word_embeddings=True),
    "llama_bias": llama(**ONE, **HEADS, attention_bias=True),
    "chat": llama(chat=True, **SMALL, **HEADS, vocab_size=275, tie_word_embeddings=True),
    "quantised": llama(MIXED_FORMATS, **WIDE),
    "kquants": llama(K_FORMATS, **WIDE),
    "mixtral": Case(Llama("llama"), transformers.MixtralForCausalLM, transformers.MixtralConfig(
        **(ONE | HEADS | {"intermediate_size": 24}), num_local_experts=7, num_experts_per_tok=2)),
}  # fmt: skip
