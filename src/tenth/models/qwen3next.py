"""Qwen3-Next: gated delta-net and gated attention as gated_delta.py describes them, with experts in every layer.

Unusual beside qwen35moe: value heads that share a key head stand together, and the two numbers per value head that gate
its state come out of one matrix, ``ssm_ba``: for each key head first how much is written, then how much is kept.
"""

from __future__ import annotations

from tenth.models.blocks import dense_ends, logits
from tenth.models.config import Metadata
from tenth.models.experts import gated_shared_expert, sparse_feed_forward
from tenth.models.gated_delta import (
    HybridMoeConfig,
    all_layers,
    attend,
    draft_block,
    read_hybrid_moe,
    recur,
    sparse_tensors,
)
from tenth.models.nextn import draft_logits
from tenth.models.tensors import Declared
from tenth.program.builder import Value, Weights, embed, flat, heads, linear, rms_norm, rope_angles, split


def read_config(metadata: Metadata) -> HybridMoeConfig:
    """Hyper-parameters of the file."""
    return read_hybrid_moe(metadata, "qwen3next")


def tensors(c: HybridMoeConfig) -> Declared:
    """Every tensor of the file; "?" marks those it may lack, "*" what is ignored."""
    narrow: Declared = {"ssm_ba.weight": (2 * c.n_v_heads, c.dim)}
    return {**dense_ends(c), **all_layers(c, narrow, sparse_tensors(c))}


def draft_tensors(c: HybridMoeConfig) -> Declared:
    """Every tensor of the drafter."""
    return draft_block(c, sparse_tensors(c))


def mix(x: Value, angles: Value, w: Weights, c: HybridMoeConfig, i: int) -> Value:
    """Attention or delta-net, whichever layer i has. x: [n, dim] -> [n, dim]."""
    if c.is_attention(i):
        return attend(x, angles, w, c, i)
    n_each = c.n_v_heads // c.n_k_heads
    beta, alpha = split(heads(linear(x, w.ssm_ba), c.n_k_heads), n_each, n_each)  # [n, n_k_heads, n_each] each
    return recur(x, flat(alpha), flat(beta), w, c, tiled=False)


def forward(tokens: Value, positions: Value, w: Weights, c: HybridMoeConfig) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        x = layer(x, angles, w.blk[i], c, i)
    return logits(x, w, c)


def layer(x: Value, angles: Value, b: Weights, c: HybridMoeConfig, i: int) -> Value:
    """x: [n, dim] -> [n, dim]."""
    x = x + mix(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i)
    h = rms_norm(x, b.post_attention_norm, c.eps)
    return x + gated_shared_expert(h, b) + sparse_feed_forward(h, b, c)


def draft(tokens: Value, positions: Value, sources: Value, w: Weights, c: HybridMoeConfig) -> Value:
    """tokens: [n], sources: [n] -> the drafter's logits: [outputs, vocab]."""
    angles, i = rope_angles(positions, c.rope.inv_freq, c.rope.scale), c.n_layers
    return draft_logits(tokens, sources, w, c, lambda x: layer(x, angles, w.blk[i], c, i))
