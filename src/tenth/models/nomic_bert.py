"""nomic-embed-text v1 and v1.5: BERT with rotary positions and a gated feed-forward part.

Unusual beside bert.py: rope in place of learned positions (number j turns with j + dims/2); SwiGLU; no biases but of
norms; q, k and v may be one matrix. Sources: Nussbaum et al. 2024; llama.cpp's conversion/bert.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenth.models.bert import BertConfig, embedded, ends, norm, read_encoder
from tenth.models.blocks import gated_feed_forward, pooled
from tenth.models.config import Metadata, Rope, read_rope, require
from tenth.models.tensors import Declared, layers
from tenth.program.builder import (
    Value,
    Weights,
    encoder_attention,
    heads,
    layer_norm,
    linear,
    rope,
    rope_angles,
    split,
)


@dataclass(frozen=True)
class NomicConfig(BertConfig):
    """Hyper-parameters."""

    rope: Rope


def read_config(metadata: Metadata) -> NomicConfig:
    """Hyper-parameters of the file."""
    c = read_encoder(metadata, "nomic-bert")
    head_dim = c.dim // c.n_heads
    require(head_dim % 2 == 0, f"a head has {head_dim} numbers, expected an even number")
    return NomicConfig(**vars(c), rope=read_rope(metadata, "nomic-bert", head_dim, "half", 1000.0))


def tensors(c: NomicConfig) -> Declared:
    """Every tensor of the file; "?" marks those it may lack."""
    layer: Declared = {
        "attn_qkv.weight?": (3 * c.dim, c.dim),
        **{f"attn_{part}.weight?": (c.dim, c.dim) for part in "qkv"},
        "attn_output.weight": (c.dim, c.dim),
        "ffn_gate.weight": (c.n_ff, c.dim),
        "ffn_up.weight": (c.n_ff, c.dim),
        "ffn_down.weight": (c.dim, c.n_ff),
        **norm("attn_output_norm", c),
        **norm("layer_output_norm", c),
    }
    return {**ends(c), **layers(c.n_layers, layer)}


def forward(tokens: Value, positions: Value, w: Weights, c: NomicConfig) -> Value:
    """tokens: [n] -> [outputs, dim], or scores."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    x = layer_norm(embedded(tokens, w, c), w.token_embd_norm, c.eps)
    for i in range(c.n_layers):
        b = w.blk[i]
        x = layer_norm(x + attend(x, angles, b, c), b.attn_output_norm, c.eps)
        x = layer_norm(x + gated_feed_forward(x, b), b.layer_output_norm, c.eps)
    return pooled(x, w, c.pooling)


def attend(x: Value, angles: Value, w: Weights, c: NomicConfig) -> Value:
    """Every token over all others. x: [n, dim] -> [n, dim]."""
    parts = split(linear(x, w.attn_qkv), c.dim, c.dim, c.dim) if w.attn_qkv else linears(x, w)
    q, k, v = (heads(part, c.n_heads) for part in parts)
    q, k = rope(q, angles, c.rope.pairing), rope(k, angles, c.rope.pairing)
    return linear(encoder_attention(q, k, v, scale=(c.dim // c.n_heads) ** -0.5), w.attn_output)


def linears(x: Value, w: Weights) -> tuple[Value, ...]:
    """Queries, keys and values by a matrix each."""
    matrices = (w.attn_q, w.attn_k, w.attn_v)
    require(all(matrices), "a layer has neither attn_qkv.weight nor attn_q.weight, attn_k.weight and attn_v.weight")
    return tuple(linear(x, matrix) for matrix in matrices)
