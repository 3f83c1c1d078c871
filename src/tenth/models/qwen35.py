"""Qwen3.5 and 3.6, dense sizes, text part: gated delta-net and gated attention as gated_delta.py describes them.

Unusual: the converter stores value heads in the order head 0 of every group, head 1 of every group, … ("tiled"); the
two numbers per head that gate the state, how much is kept and how much is written, have a matrix each.
"""

from __future__ import annotations

from tenth.models.blocks import dense_ends, dense_feed_forward, gated_feed_forward, logits
from tenth.models.config import Metadata
from tenth.models.gated_delta import HybridConfig, all_layers, attend, draft_block, read_hybrid, recur
from tenth.models.nextn import draft_logits
from tenth.models.tensors import Declared
from tenth.program.builder import Value, Weights, embed, linear, rms_norm, rope_angles


def read_config(metadata: Metadata) -> HybridConfig:
    """Hyper-parameters of the file."""
    return read_hybrid(metadata, "qwen35")


def tensors(c: HybridConfig) -> Declared:
    """Every tensor of the file; "?" marks those it may lack, "*" what is ignored."""
    return {**dense_ends(c), **all_layers(c, narrow(c), dense_feed_forward(c))}


def draft_tensors(c: HybridConfig) -> Declared:
    """Every tensor of the drafter."""
    return draft_block(c, dense_feed_forward(c))


def narrow(c: HybridConfig) -> Declared:
    """Shapes of what gates the state of a delta-net layer."""
    return {"ssm_alpha.weight": (c.n_v_heads, c.dim), "ssm_beta.weight": (c.n_v_heads, c.dim)}


def mix(x: Value, angles: Value, w: Weights, c: HybridConfig, i: int) -> Value:
    """Attention or delta-net, whichever layer i has. x: [n, dim] -> [n, dim]."""
    if c.is_attention(i):
        return attend(x, angles, w, c, i)
    return recur(x, linear(x, w.ssm_alpha), linear(x, w.ssm_beta), w, c, tiled=True)


def forward(tokens: Value, positions: Value, w: Weights, c: HybridConfig) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        x = layer(x, angles, w.blk[i], c, i)
    return logits(x, w, c)


def layer(x: Value, angles: Value, b: Weights, c: HybridConfig, i: int) -> Value:
    """x: [n, dim] -> [n, dim]."""
    x = x + mix(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i)
    return x + gated_feed_forward(rms_norm(x, b.post_attention_norm, c.eps), b)


def draft(tokens: Value, positions: Value, sources: Value, w: Weights, c: HybridConfig) -> Value:
    """tokens: [n], sources: [n] -> the drafter's logits: [outputs, vocab]."""
    angles, i = rope_angles(positions, c.rope.inv_freq, c.rope.scale), c.n_layers
    return draft_logits(tokens, sources, w, c, lambda x: layer(x, angles, w.blk[i], c, i))
