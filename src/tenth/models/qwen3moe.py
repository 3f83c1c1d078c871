"""Qwen3 with experts: 30B-A3B, 235B-A22B, Qwen3-Coder and what is made like them.

Attention is qwen3's. Unusual: every layer is sparse; the weights of a token's experts (softmax over all of them) are
made to sum to 1; no shared expert. Source: Qwen3 technical report (2025).
"""

from __future__ import annotations

from tenth.models.blocks import attend, dense_attention, dense_ends, head_norms, logits
from tenth.models.config import Metadata, read_dense
from tenth.models.experts import MoeConfig, expert_tensors, read_moe, sparse_feed_forward
from tenth.models.tensors import Declared, layers
from tenth.program.builder import Routing, Value, Weights, embed, rms_norm, rope_angles


def read_config(metadata: Metadata) -> MoeConfig:
    """Hyper-parameters of the file."""
    c = read_dense(metadata, "qwen3moe", pairing="half", experts=True)
    return read_moe(metadata, "qwen3moe", c, Routing(k=1))


def tensors(c: MoeConfig) -> Declared:
    """Every tensor of the file; "?" marks those it may lack."""
    return {**dense_ends(c), **layers(c.n_layers, {**dense_attention(c), **head_norms(c), **expert_tensors(c)})}


def forward(tokens: Value, positions: Value, w: Weights, c: MoeConfig) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        b = w.blk[i]
        x = x + attend(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i)
        x = x + sparse_feed_forward(rms_norm(x, b.ffn_norm, c.eps), b, c)
    return logits(x, w, c)
