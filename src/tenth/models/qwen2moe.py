"""Qwen1.5-MoE-A2.7B and Qwen2-57B-A14B.

Attention is qwen2's. Unusual: beside the chosen experts a shared one works on every token, weighed by the sigmoid of a
number that each token gives it; the weights of the chosen do not sum to 1. Source: Qwen2 technical report (2024).
"""

from __future__ import annotations

from dataclasses import replace

from tenth.models.blocks import attend, attention_biases, dense_attention, dense_ends, logits
from tenth.models.config import MOST_WIDTH, Metadata, read_dense
from tenth.models.experts import (
    MoeConfig,
    expert_tensors,
    gated_shared_expert,
    read_moe,
    shared_tensors,
    sparse_feed_forward,
)
from tenth.models.tensors import Declared, layers
from tenth.program.builder import Routing, Value, Weights, embed, rms_norm, rope_angles


def read_config(metadata: Metadata) -> MoeConfig:
    """Hyper-parameters of the file."""
    c = read_dense(metadata, "qwen2moe", pairing="half", experts=True)
    c = read_moe(metadata, "qwen2moe", c, Routing(k=1, normalise=False))
    shared = metadata.get_int("qwen2moe.expert_shared_feed_forward_length", c.n_ff, low=1, high=MOST_WIDTH)
    return replace(c, n_shared_ff=shared)


def tensors(c: MoeConfig) -> Declared:
    """Every tensor of the file; "?" marks those it may lack."""
    gate: Declared = {"ffn_gate_inp_shexp.weight": (1, c.dim)}
    parts = dense_attention(c) | attention_biases(c) | expert_tensors(c) | shared_tensors(c) | gate
    return {**dense_ends(c), **layers(c.n_layers, parts)}


def forward(tokens: Value, positions: Value, w: Weights, c: MoeConfig) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        b = w.blk[i]
        x = x + attend(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i)
        h = rms_norm(x, b.ffn_norm, c.eps)
        x = x + gated_shared_expert(h, b) + sparse_feed_forward(h, b, c)
    return logits(x, w, c)
