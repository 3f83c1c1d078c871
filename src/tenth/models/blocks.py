"""Pieces of maths that three or more model files share."""

from __future__ import annotations

from tenth.models.config import Config
from tenth.program.builder import Value, Weights, linear, swiglu


def gated_feed_forward(x: Value, w: Weights) -> Value:
    """SwiGLU feed-forward (Shazeer 2020). x: [n, dim] -> [n, dim]."""
    return linear(swiglu(linear(x, w.ffn_gate), linear(x, w.ffn_up)), w.ffn_down)


def dense_layer(c: Config) -> dict[str, tuple[int | str, ...]]:
    """Shapes of the tensors that every dense layer has."""
    return {**dense_attention(c), **dense_feed_forward(c)}


def dense_feed_forward(c: Config) -> dict[str, tuple[int | str, ...]]:
    """Shapes of a layer's feed-forward part."""
    return {
        "ffn_gate.weight": (c.n_ff, c.dim),
        "ffn_up.weight": (c.n_ff, c.dim),
        "ffn_down.weight": (c.dim, c.n_ff),
    }


def dense_attention(c: Config) -> dict[str, tuple[int | str, ...]]:
    """Shapes of a layer's norms and attention."""
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    return {
        "attn_norm.weight": (c.dim,),
        "attn_q.weight": (q, c.dim),
        "attn_k.weight": (kv, c.dim),
        "attn_v.weight": (kv, c.dim),
        "attn_output.weight": (c.dim, q),
        "ffn_norm.weight": (c.dim,),
    }


def dense_ends(c: Config) -> dict[str, tuple[int | str, ...]]:
    """Shapes of what stands before and after the layers; without ``output`` the logits use the token table."""
    return {
        "token_embd.weight": ("vocab", c.dim),
        "output_norm.weight": (c.dim,),
        "output.weight?": ("vocab", c.dim),
    }
