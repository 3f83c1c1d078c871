"""Qwen3.5 and 3.6 with experts, text part: qwen35's layers, each with experts and a shared one.

Unusual: the weights of a token's experts (softmax over all of them) are made to sum to 1; the shared expert is weighed
by the sigmoid of a number that each token gives it. Sources: those of gated_delta.py; modeling_qwen3_5_moe.py.
"""

from __future__ import annotations

from tenth.models.blocks import dense_ends, logits
from tenth.models.config import Metadata
from tenth.models.experts import gated_shared_expert, sparse_feed_forward
from tenth.models.gated_delta import HybridMoeConfig, all_layers, draft_block, read_hybrid_moe, sparse_tensors
from tenth.models.nextn import draft_logits
from tenth.models.qwen35 import mix, narrow
from tenth.models.tensors import Declared
from tenth.program.builder import Value, Weights, embed, rms_norm, rope_angles


def read_config(metadata: Metadata) -> HybridMoeConfig:
    """Hyper-parameters of the file."""
    return read_hybrid_moe(metadata, "qwen35moe")


def tensors(c: HybridMoeConfig) -> Declared:
    """Every tensor of the file; "?" marks those it may lack, "*" what is ignored."""
    return {**dense_ends(c), **all_layers(c, narrow(c), sparse_tensors(c))}


def draft_tensors(c: HybridMoeConfig) -> Declared:
    """Every tensor of the drafter."""
    return draft_block(c, sparse_tensors(c))


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
