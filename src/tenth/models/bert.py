"""BERT and what is shaped like it: encoders, which make one vector of a text, or judge a document (cross-encoders).

all-MiniLM, bge, e5, gte, mxbai, arctic-embed; RoBERTa and XLM-RoBERTa (bge-m3, bge-reranker-v2), whose converter cuts
the rows of the table of positions that no text reaches. Unusual: every token sees all others, also those behind it, so
nothing is kept between steps; positions are learned; norms subtract the mean, have a bias, and stand behind each half
of a layer; GELU without an approximation. A reranker reads question and document as one sequence and knows by the token
type which is which; what stands behind [SEP] is of the next type. Sources: Devlin et al. 2018; the conversion in
llama.cpp's conversion/bert.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenth.models.blocks import pooled, pooling_head
from tenth.models.config import (
    MOST_CONTEXT,
    MOST_LAYERS,
    MOST_WIDTH,
    Metadata,
    Pooling,
    read_pooling,
    require,
)
from tenth.models.tensors import Declared, layers
from tenth.program.builder import (
    Value,
    Weights,
    embed,
    embed_segments,
    encoder_attention,
    gelu,
    heads,
    layer_norm,
    linear,
)


@dataclass(frozen=True)
class BertConfig:
    """Hyper-parameters. ``separator``: the token behind which the next token type begins; -1: all are of the first."""

    n_layers: int
    dim: int
    n_ff: int
    n_heads: int
    eps: float
    context_tokens: int
    pooling: Pooling
    separator: int


def read_config(metadata: Metadata) -> BertConfig:
    """Hyper-parameters of the file."""
    return read_encoder(metadata, "bert")


def read_encoder(m: Metadata, prefix: str) -> BertConfig:
    """The hyper-parameters that start with ``prefix``."""
    dim = m.get_int(f"{prefix}.embedding_length", low=1, high=MOST_WIDTH)
    n_heads = m.get_int(f"{prefix}.attention.head_count", low=1, high=MOST_WIDTH)
    require(dim % n_heads == 0, f"embedding_length {dim} is not a multiple of attention.head_count {n_heads}")
    key = f"{prefix}.attention.causal"
    require(not m.get_bool(key, False), f"{key} is true, expected false: {prefix} is an encoder")
    pooling = read_pooling(m, prefix, causal=False)
    assert pooling is not None, "an encoder without pooling"
    return BertConfig(
        n_layers=m.get_int(f"{prefix}.block_count", low=1, high=MOST_LAYERS),
        dim=dim,
        n_ff=m.get_int(f"{prefix}.feed_forward_length", low=1, high=MOST_WIDTH),
        n_heads=n_heads,
        eps=m.get_float(f"{prefix}.attention.layer_norm_epsilon", low=1e-14, high=0.1),
        context_tokens=m.get_int(f"{prefix}.context_length", low=1, high=MOST_CONTEXT),
        pooling=pooling,
        separator=_read_separator(m) if pooling.n_scores else -1,
    )


def _read_separator(m: Metadata) -> int:
    """[SEP]'s id; 102 where an old file does not say. Other vocabularies have one type of tokens only."""
    is_wordpiece = m.get_str("tokenizer.ggml.model", "") == "bert"
    return m.get_int("tokenizer.ggml.seperator_token_id", 102, low=0, high=MOST_WIDTH) if is_wordpiece else -1


def tensors(c: BertConfig) -> Declared:
    """Every tensor of the file; "?" marks those it may lack."""
    square = {f"attn_{part}.weight": (c.dim, c.dim) for part in ("q", "k", "v", "output")}
    layer = {**square, "ffn_up.weight": (c.n_ff, c.dim), "ffn_down.weight": (c.dim, c.n_ff)}
    biases = {name.replace("weight", "bias?"): shape[:1] for name, shape in layer.items()}
    norms = {**norm("attn_output_norm", c), **norm("layer_output_norm", c)}
    return {
        **ends(c),
        "position_embd.weight": (c.context_tokens, c.dim),
        **layers(c.n_layers, {**layer, **biases, **norms}),
    }


def ends(c: BertConfig) -> Declared:
    """Shapes of what stands before and after the layers."""
    return {
        "token_embd.weight": ("vocab", c.dim),
        "token_types.weight?": ("types", c.dim),
        **norm("token_embd_norm", c),
        **pooling_head(c.pooling, c.dim),
    }


def norm(name: str, c: BertConfig) -> Declared:
    """Shapes of a norm."""
    return {f"{name}.weight": (c.dim,), f"{name}.bias": (c.dim,)}


def forward(tokens: Value, positions: Value, w: Weights, c: BertConfig) -> Value:
    """tokens: [n] -> [outputs, dim], or scores."""
    x = embedded(tokens, w, c) + embed(positions, w.position_embd)
    x = layer_norm(x, w.token_embd_norm, c.eps)
    for i in range(c.n_layers):
        b = w.blk[i]
        x = layer_norm(x + attend(x, b, c), b.attn_output_norm, c.eps)
        x = layer_norm(x + linear(gelu(linear(x, b.ffn_up)), b.ffn_down), b.layer_output_norm, c.eps)
    return pooled(x, w, c.pooling)


def embedded(tokens: Value, w: Weights, c: BertConfig) -> Value:
    """tokens: [n] -> [n, dim], by token and type."""
    x = embed(tokens, w.token_embd)
    return x + embed_segments(tokens, w.token_types, c.separator) if w.token_types else x


def attend(x: Value, w: Weights, c: BertConfig) -> Value:
    """Every token over all others. x: [n, dim] -> [n, dim]."""
    q, k, v = (heads(linear(x, weight), c.n_heads) for weight in (w.attn_q, w.attn_k, w.attn_v))
    return linear(encoder_attention(q, k, v, scale=(c.dim // c.n_heads) ** -0.5), w.attn_output)
