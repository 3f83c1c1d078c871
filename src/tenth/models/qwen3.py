"""Qwen3, all dense sizes.

Unusual: each head of q and k is normalised before rope; no biases; head_dim is a key of its own (heads times head_dim
need not be dim); rope turns number j with j + dims/2 ("half"). Source: Qwen3 technical report (2025).
"""

from __future__ import annotations

from tenth.models.blocks import attend, dense_ends, dense_layer, gated_feed_forward, head_norms, logits
from tenth.models.config import Config, Metadata, read_dense
from tenth.models.tensors import Declared, layers
from tenth.program.builder import Value, Weights, embed, rms_norm, rope_angles


def read_config(metadata: Metadata) -> Config:
    """Hyper-parameters of the file."""
    return read_dense(metadata, "qwen3", pairing="half")


def tensors(c: Config) -> Declared:
    """Every tensor of the file; "?" marks those it may lack."""
    return {**dense_ends(c), **layers(c.n_layers, {**dense_layer(c), **head_norms(c)})}


def forward(tokens: Value, positions: Value, w: Weights, c: Config) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        b = w.blk[i]
        x = x + attend(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i)
        x = x + gated_feed_forward(rms_norm(x, b.ffn_norm, c.eps), b)
    return logits(x, w, c)
