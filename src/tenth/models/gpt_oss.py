"""gpt-oss, 20B and 120B.

Unusual: every head has a sink, a learned score that joins its softmax and whose weight goes nowhere; every second
layer, from the first on, looks back over a window; q, k, v, the output of attention, router and experts have biases; a
token's experts are chosen by their logits and weighed by the softmax over the chosen ones; gate and up are clamped, and
experts compute g sigmoid(1.702 g) (u + 1). YaRN's ramp begins and ends between two dimensions, where other models round
outwards to whole ones (llama.cpp does so here too, so its rotations differ a little). The norm before the experts is
named post_attention_norm. Of all this, keys say the window and YaRN's factor.
Sources: gpt-oss model card (arXiv 2508.10925); openai/gpt-oss, gpt_oss/torch/model.py; transformers 5.23's gpt_oss; the
keys and tensors of llama.cpp's converter.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenth.models.blocks import attend, attention_biases, dense_attention, dense_ends, logits
from tenth.models.config import MOST_CONTEXT, Metadata, YarnKind, read_dense, read_rope
from tenth.models.experts import MoeConfig, expert_biases, expert_tensors, read_moe, sparse_feed_forward
from tenth.models.tensors import Declared, layers
from tenth.program.builder import Routing, Value, Weights, clamped_swiglu, embed, rms_norm, rope_angles

ALPHA, LIMIT = 1.702, 7.0
ROPE_BASE = 150000.0


@dataclass(frozen=True)
class GptOssConfig(MoeConfig):
    """``window``: how far back layers 0, 2, 4 … look; the others see everything."""

    window: int


def read_config(metadata: Metadata) -> GptOssConfig:
    """Hyper-parameters of the file."""
    m = metadata
    c = read_dense(m, "gpt-oss", pairing="half", default_rope_base=ROPE_BASE, experts=True, windows=True)
    moe = vars(read_moe(m, "gpt-oss", c, Routing(k=1, score="softmax_selected", normalise=False)))
    moe["rope"] = read_rope(m, "gpt-oss", c.head_dim, "half", ROPE_BASE, YarnKind(whole=False))
    return GptOssConfig(**moe, window=m.get_int("gpt-oss.attention.sliding_window", low=1, high=MOST_CONTEXT))


def tensors(c: GptOssConfig) -> Declared:
    """Every tensor of the file; "?" marks those it may lack."""
    layer = dense_attention(c) | attention_biases(c) | expert_tensors(c) | expert_biases(c)
    layer["post_attention_norm.weight"] = layer.pop("ffn_norm.weight")
    layer |= {"attn_output.bias": (c.dim,), "attn_sinks.weight": (c.n_heads,)}
    return {**dense_ends(c), **layers(c.n_layers, layer)}


def joined(gate: Value, up: Value) -> Value:
    """What an expert makes of its gate and up."""
    return clamped_swiglu(gate, up, alpha=ALPHA, limit=LIMIT)


def forward(tokens: Value, positions: Value, w: Weights, c: GptOssConfig) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        b = w.blk[i]
        window = c.window if i % 2 == 0 else 0
        x = x + attend(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i, window=window)
        x = x + sparse_feed_forward(rms_norm(x, b.post_attention_norm, c.eps), b, c, joined=joined)
    return logits(x, w, c)
