"""Llama 1 to 3.2 and everything published under the same architecture name: SmolLM2, Mistral 7B, Yi, Mixtral …

Unusual: GGUF stores q and k with rows permuted, so rope turns neighbouring numbers ("pairs"); Llama 3.1's stretched
context comes as a tensor ``rope_freqs`` of divisors, not as metadata; any linear may have a bias; the output matrix may
be the token table. With experts (Mixtral) every layer has them, and the weights of a token's experts sum to 1.
Sources: Touvron et al. 2023; Jiang et al. 2024; the conversion in llama.cpp's convert_hf_to_gguf.py.
"""

from __future__ import annotations

from tenth.models.blocks import attend, dense_attention, dense_ends, dense_layer, gated_feed_forward, logits
from tenth.models.config import Config, Metadata, read_dense
from tenth.models.experts import MoeConfig, expert_tensors, read_moe, sparse_feed_forward
from tenth.models.tensors import Declared, layers
from tenth.program.builder import Routing, Value, Weights, embed, rms_norm, rope_angles


def read_config(metadata: Metadata) -> Config:
    """Hyper-parameters of the file."""
    c = read_dense(metadata, "llama", pairing="pairs", experts=True)
    return read_moe(metadata, "llama", c, Routing(k=1)) if metadata.get_int("llama.expert_count", 0) else c


def tensors(c: Config) -> Declared:
    """Every tensor of the file; "?" marks those it may lack."""
    layer = {**dense_attention(c), **expert_tensors(c)} if isinstance(c, MoeConfig) else dense_layer(c)
    biases = {
        name.replace("weight", "bias?"): shape[:1]
        for name, shape in layer.items()
        if not name.endswith("norm.weight") and len(shape) == 2
    }
    return {**dense_ends(c), "rope_freqs.weight?": (c.rope.dims // 2,), **layers(c.n_layers, {**layer, **biases})}


def forward(tokens: Value, positions: Value, w: Weights, c: Config) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale, w.rope_freqs)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        b = w.blk[i]
        x = x + attend(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i)
        h = rms_norm(x, b.ffn_norm, c.eps)
        x = x + (sparse_feed_forward(h, b, c) if isinstance(c, MoeConfig) else gated_feed_forward(h, b))
    return logits(x, w, c)
