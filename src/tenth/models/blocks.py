"""Pieces of maths that three or more model files share."""

from __future__ import annotations

from tenth.models.config import Config, Pooling, require
from tenth.models.tensors import Declared
from tenth.program.builder import (
    Value,
    Weights,
    attention,
    heads,
    hidden_store,
    linear,
    rms_norm,
    rope,
    select_outputs,
    sequence_mean,
    softcap,
    swiglu,
)


def attend(
    x: Value, angles: Value, w: Weights, c: Config, i: int, *, window: int = 0, softcap: float = 0.0
) -> Value:
    """Grouped-query attention. x: [n, dim] -> [n, dim].

    With a norm per head of q and k, and a sink per head, where the model declares them and the file has them.
    ``window``: how many positions are seen, 0 for all. ``softcap``: of the scores, 0 for none.
    """
    q = heads(linear(x, w.attn_q), c.n_heads)  # [n, n_heads, head_dim]
    k = heads(linear(x, w.attn_k), c.n_kv_heads)  # [n, n_kv_heads, head_dim]
    v = heads(linear(x, w.attn_v), c.n_kv_heads)
    if w.attn_q_norm:
        q, k = rms_norm(q, w.attn_q_norm, c.eps), rms_norm(k, w.attn_k_norm, c.eps)
    q, k = rope(q, angles, c.rope.pairing), rope(k, angles, c.rope.pairing)
    seen = attention(
        q, k, v, layer=i, scale=c.attention_scale, window=window, softcap=softcap, sinks=w.attn_sinks
    )
    return linear(seen, w.attn_output)


def gated_feed_forward(x: Value, w: Weights) -> Value:
    """SwiGLU feed-forward (Shazeer 2020). x: [n, dim] -> [n, dim]."""
    return linear(swiglu(linear(x, w.ffn_gate), linear(x, w.ffn_up)), w.ffn_down)


def logits(x: Value, w: Weights, c: Config) -> Value:
    """Of the output rows; without ``output`` by the token table. x: [n, dim] -> [outputs, vocab].

    In a file that says how its rows are pooled, that instead. Where the file has a drafter (nextn.py) the normed state
    of every row is kept for it.
    """
    if c.pooling:
        return pooled(rms_norm(x, w.output_norm, c.eps), w, c.pooling)
    if w.blk[c.n_layers].nextn.eh_proj:
        x = rms_norm(x, w.output_norm, c.eps)
        hidden_store(x)
        return linear(select_outputs(x), w.output or w.token_embd)
    return linear(rms_norm(select_outputs(x), w.output_norm, c.eps), w.output or w.token_embd)


def pooled(x: Value, w: Weights, pooling: Pooling) -> Value:
    """What a model that writes no text gives. x: [n, dim] -> [outputs, dim], of a reranker [outputs, n_scores]."""
    if pooling.how == "mean":
        return sequence_mean(x)
    x = select_outputs(x)
    if not pooling.n_scores:
        return x
    require(bool(w.cls.output), "pooling_type is 4 (rank), but there is no tensor cls.output.weight to judge with")
    return linear(tanh(linear(x, w.cls)) if w.cls else x, w.cls.output)


def tanh(x: Value) -> Value:
    """The hyperbolic tangent."""
    return softcap(x, 1.0)


def dense_layer(c: Config) -> Declared:
    """Shapes of the tensors that every dense layer has."""
    return {**dense_attention(c), **dense_feed_forward(c)}


def dense_feed_forward(c: Config) -> Declared:
    """Shapes of a layer's feed-forward part."""
    return {
        "ffn_gate.weight": (c.n_ff, c.dim),
        "ffn_up.weight": (c.n_ff, c.dim),
        "ffn_down.weight": (c.dim, c.n_ff),
    }


def dense_attention(c: Config) -> Declared:
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


def attention_biases(c: Config) -> Declared:
    """Shapes of the biases of q, k and v."""
    return {
        "attn_q.bias": (c.n_heads * c.head_dim,),
        "attn_k.bias": (c.n_kv_heads * c.head_dim,),
        "attn_v.bias": (c.n_kv_heads * c.head_dim,),
    }


def head_norms(c: Config) -> Declared:
    """Shapes of the norms of each head's q and k."""
    return {"attn_q_norm.weight": (c.head_dim,), "attn_k_norm.weight": (c.head_dim,)}


def dense_ends(c: Config) -> Declared:
    """Shapes of what stands before and after the layers."""
    return {
        "token_embd.weight": ("vocab", c.dim),
        "output_norm.weight": (c.dim,),
        "output.weight?": ("vocab", c.dim),
        **pooling_head(c.pooling, c.dim),
    }


def pooling_head(pooling: Pooling | None, dim: int) -> Declared:
    """Shapes of the tensors with which a reranker judges."""
    if pooling is None or not pooling.n_scores:
        return {}
    return {
        "cls.weight?": (dim, dim),
        "cls.bias?": (dim,),
        "cls.output.weight?": (pooling.n_scores, dim),
        "cls.output.bias?": (pooling.n_scores,),
    }
