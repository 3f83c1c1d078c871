"""GLM-4.5, 4.6 and 4.7, with and without "Air".

Unusual: the first layers are dense; experts are scored by sigmoids, chosen with a bias that does not count, their
weights made to sum to 1 and scaled; a shared expert works on every token; rope turns the first half of each head only;
q, k and v have biases, and in some sizes q and k a norm per head; the norm before the feed-forward part is named
post_attention_norm. The last ``nextn_predict_layers`` of the file's blocks guess further tokens: the first is a drafter
(nextn.py), built like the last layer. Sources: GLM-4.5 technical report (2025); the conversion in llama.cpp's
convert_hf_to_gguf.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenth.models.blocks import (
    attend,
    attention_biases,
    dense_attention,
    dense_ends,
    dense_feed_forward,
    gated_feed_forward,
    head_norms,
    logits,
)
from tenth.models.config import MOST_LAYERS, MOST_WIDTH, Metadata, read_dense, require
from tenth.models.experts import MoeConfig, expert_tensors, read_moe, shared_expert, shared_tensors, sparse_feed_forward
from tenth.models.nextn import draft_logits, nextn_tensors
from tenth.models.tensors import Declared, layers
from tenth.program.builder import Routing, Value, Weights, embed, rms_norm, rope_angles


@dataclass(frozen=True)
class Glm4MoeConfig(MoeConfig):
    """``n_dense``: leading layers without experts; ``n_nextn``: blocks of the file behind the ``n_layers``."""

    n_dense: int
    n_nextn: int


def read_config(metadata: Metadata) -> Glm4MoeConfig:
    """Hyper-parameters of the file."""
    m = metadata
    c = read_dense(m, "glm4moe", pairing="half", experts=True)
    moe = vars(read_moe(m, "glm4moe", c, Routing(k=1, score="sigmoid", group_score="top2")))
    n_nextn = m.get_int("glm4moe.nextn_predict_layers", 0, low=0, high=MOST_LAYERS)
    require(n_nextn < c.n_layers, f"glm4moe.nextn_predict_layers is {n_nextn}, but block_count is {c.n_layers}")
    n_dense = m.get_int("glm4moe.leading_dense_block_count", 0, low=0, high=MOST_LAYERS)
    n_shared = m.get_int("glm4moe.expert_shared_count", 0, low=0, high=MOST_WIDTH)
    moe |= {"n_layers": c.n_layers - n_nextn, "n_shared_ff": n_shared * moe["n_expert_ff"]}
    require(moe["n_shared_ff"] <= MOST_WIDTH, f"glm4moe.expert_shared_count is {n_shared}")
    return Glm4MoeConfig(**moe, n_dense=min(n_dense, c.n_layers - n_nextn), n_nextn=n_nextn)


def tensors(c: Glm4MoeConfig) -> Declared:
    """Every tensor of the file; "?" marks those it may lack, "*" what is ignored."""
    return {
        **dense_ends(c),
        **layers(c.n_layers, _every(c)),
        **layers(range(c.n_dense), dense_feed_forward(c)),
        **layers(range(c.n_dense, c.n_layers), _sparse(c)),
        **{f"blk.{i}.*": () for i in range(c.n_layers, c.n_layers + c.n_nextn)},
    }


def draft_tensors(c: Glm4MoeConfig) -> Declared:
    """Every tensor of the drafter."""
    return _every(c) | _sparse(c) | nextn_tensors(c)


def _every(c: Glm4MoeConfig) -> Declared:
    parts = dense_attention(c) | attention_biases(c)
    parts["post_attention_norm.weight"] = parts.pop("ffn_norm.weight")
    return parts | {f"{name}?": shape for name, shape in head_norms(c).items()}


def _sparse(c: Glm4MoeConfig) -> Declared:
    return expert_tensors(c) | shared_tensors(c) | {"exp_probs_b.bias": (c.n_experts,)}


def forward(tokens: Value, positions: Value, w: Weights, c: Glm4MoeConfig) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        x = layer(x, angles, w.blk[i], c, i)
    return logits(x, w, c)


def layer(x: Value, angles: Value, b: Weights, c: Glm4MoeConfig, i: int) -> Value:
    """x: [n, dim] -> [n, dim]."""
    x = x + attend(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i)
    h = rms_norm(x, b.post_attention_norm, c.eps)
    if i < c.n_dense:
        return x + gated_feed_forward(h, b)
    if c.n_shared_ff:
        x = x + shared_expert(h, b)
    return x + sparse_feed_forward(h, b, c, b.exp_probs_b)


def draft(tokens: Value, positions: Value, sources: Value, w: Weights, c: Glm4MoeConfig) -> Value:
    """tokens: [n], sources: [n] -> the drafter's logits: [outputs, vocab]."""
    angles, i = rope_angles(positions, c.rope.inv_freq, c.rope.scale), c.n_layers
    return draft_logits(tokens, sources, w, c, lambda x: layer(x, angles, w.blk[i], c, i))
