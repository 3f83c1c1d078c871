"""Gemma 3, text part, 270M to 27B.

Unusual: embeddings times sqrt(dim); norms before and after both halves of a layer (GGUF's norm weights have the 1 of
"1 + w" added already); q and k normalised per head; five layers with a sliding window, whose rope has base 10000 and
no scaling, then one that sees everything; GeGLU with the tanh form of gelu; the 27B size scales scores by
1/sqrt(dim / heads) instead of 1/sqrt(head_dim), which no key says. Sources: Gemma 3 technical report (2025); the
conversion in llama.cpp's convert_hf_to_gguf.py and what src/llama-model.cpp derives from the layer count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tenth.models.blocks import attend, dense_ends, dense_layer, head_norms, logits
from tenth.models.config import (
    MOST_CONTEXT,
    MOST_LAYERS,
    Config,
    Metadata,
    Rope,
    inverse_frequencies,
    read_base,
    read_dense,
)
from tenth.models.tensors import Declared, layers
from tenth.program.builder import Value, Weights, embed, geglu, linear, rms_norm, rope_angles, softcap

LAYERS_OF_27B = 62


@dataclass(frozen=True)
class Gemma3Config(Config):
    """``period``: every period-th layer is global, the others see ``window`` positions (0: all layers are global)."""

    window: int
    period: int
    local_rope: Rope
    attention_softcap: float
    final_softcap: float

    def is_global(self, i: int) -> bool:
        """Whether layer i sees the whole context."""
        return self.window == 0 or (i + 1) % self.period == 0


def read_config(metadata: Metadata) -> Gemma3Config:
    """Hyper-parameters of the file."""
    m = metadata
    c = read_dense(m, "gemma3", pairing="half", default_rope_base=1e6, windows=True)
    local_base = read_base(m, "gemma3.rope.freq_base_swa", 10000.0)
    scale = c.attention_scale
    if c.n_layers == LAYERS_OF_27B and not m.get_float("gemma3.attention.scale", 0.0):
        scale = 1 / math.sqrt(c.dim / c.n_heads)
    return Gemma3Config(
        **{**vars(c), "attention_scale": scale},
        window=m.get_int("gemma3.attention.sliding_window", 0, low=0, high=MOST_CONTEXT),
        period=m.get_int("gemma3.attention.sliding_window_pattern", 6, low=1, high=MOST_LAYERS),
        local_rope=Rope(inverse_frequencies(c.rope.dims, local_base), "half"),
        attention_softcap=m.get_float("gemma3.attn_logit_softcapping", 0.0, low=0.0, high=1e6),
        final_softcap=m.get_float("gemma3.final_logit_softcapping", 0.0, low=0.0, high=1e6),
    )


def tensors(c: Gemma3Config) -> Declared:
    """Every tensor of the file; "?" marks those it may lack."""
    norms: Declared = {"post_attention_norm.weight": (c.dim,), "post_ffw_norm.weight": (c.dim,)}
    return {**dense_ends(c), **layers(c.n_layers, {**dense_layer(c), **head_norms(c), **norms})}


def feed_forward(x: Value, w: Weights) -> Value:
    """GeGLU feed-forward. x: [n, dim] -> [n, dim]."""
    return linear(geglu(linear(x, w.ffn_gate), linear(x, w.ffn_up)), w.ffn_down)


def forward(tokens: Value, positions: Value, w: Weights, c: Gemma3Config) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    global_angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    local_angles = rope_angles(positions, c.local_rope.inv_freq)
    x = embed(tokens, w.token_embd, scale=math.sqrt(c.dim))
    for i in range(c.n_layers):
        b = w.blk[i]
        angles, window = (global_angles, 0) if c.is_global(i) else (local_angles, c.window)
        h = rms_norm(x, b.attn_norm, c.eps)
        seen = attend(h, angles, b, c, i, window=window, softcap=c.attention_softcap)
        x = x + rms_norm(seen, b.post_attention_norm, c.eps)
        x = x + rms_norm(feed_forward(rms_norm(x, b.ffn_norm, c.eps), b), b.post_ffw_norm, c.eps)
    plain = logits(x, w, c)
    return softcap(plain, c.final_softcap) if c.final_softcap else plain
