"""Llama 1 to 3.2 and everything published under the same architecture name: SmolLM2, Mistral 7B, Yi, TinyLlama …

Unusual: GGUF stores q and k with rows permuted, so rope turns neighbouring numbers ("pairs"); Llama 3.1's stretched
context comes as a tensor ``rope_freqs`` of divisors, not as metadata; any linear may have a bias; the output matrix may
be the token table. Sources: Touvron et al. 2023; the conversion in llama.cpp's convert_hf_to_gguf.py.
"""

from __future__ import annotations

from tenth.models.blocks import dense_ends, dense_layer, gated_feed_forward
from tenth.models.config import Config, Metadata, read_dense, refuse_sliding_window
from tenth.models.tensors import Declared, layers
from tenth.program.builder import (
    Value,
    Weights,
    attention,
    embed,
    heads,
    linear,
    rms_norm,
    rope,
    rope_angles,
    select_outputs,
)


def read_config(metadata: Metadata) -> Config:
    """Hyper-parameters of the file."""
    c = read_dense(metadata, "llama", pairing="pairs")
    refuse_sliding_window(metadata, "llama", c.context_tokens)
    return c


def tensors(c: Config) -> Declared:
    """Every tensor of the file; "?" marks those it may lack."""
    layer = dense_layer(c)
    biases = {
        name.replace("weight", "bias?"): shape[:1] for name, shape in layer.items() if not name.endswith("norm.weight")
    }
    return {**dense_ends(c), "rope_freqs.weight?": (c.rope.dims // 2,), **layers(c.n_layers, {**layer, **biases})}


def attend(x: Value, angles: Value, w: Weights, c: Config, i: int) -> Value:
    """Grouped-query attention. x: [n, dim] -> [n, dim]."""
    q = rope(heads(linear(x, w.attn_q), c.n_heads), angles, c.rope.pairing)  # [n, n_heads, head_dim]
    k = rope(heads(linear(x, w.attn_k), c.n_kv_heads), angles, c.rope.pairing)  # [n, n_kv_heads, head_dim]
    v = heads(linear(x, w.attn_v), c.n_kv_heads)
    return linear(attention(q, k, v, layer=i, scale=c.attention_scale), w.attn_output)


def forward(tokens: Value, positions: Value, w: Weights, c: Config) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale, w.rope_freqs)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        b = w.blk[i]
        x = x + attend(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i)
        x = x + gated_feed_forward(rms_norm(x, b.ffn_norm, c.eps), b)
    return linear(rms_norm(select_outputs(x), w.output_norm, c.eps), w.output or w.token_embd)
