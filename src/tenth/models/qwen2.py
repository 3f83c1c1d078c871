"""Qwen2 and Qwen2.5, all dense sizes.

Unusual: biases on q, k and v and nowhere else; rope turns number j with j + dims/2 ("half"); small sizes use the token
table as output matrix. Source: Qwen2 technical report (2024).
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
    c = read_dense(metadata, "qwen2", pairing="half")
    refuse_sliding_window(metadata, "qwen2", c.context_tokens)
    return c


def tensors(c: Config) -> Declared:
    """Every tensor of the file; "?" marks those it may lack."""
    return {**dense_ends(c), **layers(c.n_layers, {**dense_layer(c), **attention_biases(c)})}


def attention_biases(c: Config) -> Declared:
    """Shapes of one layer's biases."""
    return {
        "attn_q.bias": (c.n_heads * c.head_dim,),
        "attn_k.bias": (c.n_kv_heads * c.head_dim,),
        "attn_v.bias": (c.n_kv_heads * c.head_dim,),
    }


def attend(x: Value, angles: Value, w: Weights, c: Config, i: int) -> Value:
    """Grouped-query attention; q, k and v have biases. x: [n, dim] -> [n, dim]."""
    q = rope(heads(linear(x, w.attn_q), c.n_heads), angles, c.rope.pairing)  # [n, n_heads, head_dim]
    k = rope(heads(linear(x, w.attn_k), c.n_kv_heads), angles, c.rope.pairing)  # [n, n_kv_heads, head_dim]
    v = heads(linear(x, w.attn_v), c.n_kv_heads)
    return linear(attention(q, k, v, layer=i, scale=c.attention_scale), w.attn_output)


def forward(tokens: Value, positions: Value, w: Weights, c: Config) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        b = w.blk[i]
        x = x + attend(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i)
        x = x + gated_feed_forward(rms_norm(x, b.ffn_norm, c.eps), b)
    return linear(rms_norm(select_outputs(x), w.output_norm, c.eps), w.output or w.token_embd)
