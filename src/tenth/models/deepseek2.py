"""DeepSeek V2, V2-Lite, V3 and R1, Kimi K2, and what else is published under the architecture name deepseek2.

Unusual: multi-head latent attention. A layer caches one row per token, a normed latent and a rotated key part that all
heads share; each head's keys and values are linear in the latent. Those matrices are moved over to the query and the
result ("absorbed"): scores are taken with the latent itself, so that no key or value of a head is ever made. Where
prompts are to be expanded, a pass makes that of it (program/expanding.py). Files carry the matrices as attn_k_b
(transposed) and attn_v_b, old ones together as attn_kv_b. Queries go through a low rank, except in V2-Lite. Rope turns
neighbouring numbers ("pairs"); with YaRN, scores are magnified, not the rotated numbers.

Routing: V2 takes a softmax over all experts and does not normalise the chosen; V3 takes sigmoids and chooses with a
bias that the weights do not have. Both may first choose groups of experts. The first layers are dense. Files of V3 and
R1 may end in a block that guesses further tokens: a drafter (nextn.py), built like the last layer.
Sources: DeepSeek-V2 (arXiv 2405.04434, section 2.1), DeepSeek-V3 (2412.19437); the conversion in llama.cpp's
convert_hf_to_gguf.py; transformers 5.23's deepseek_v2 and deepseek_v3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tenth.models.blocks import dense_ends, dense_feed_forward, gated_feed_forward, logits
from tenth.models.config import (
    MOST_CONTEXT,
    MOST_HEAD_DIM,
    MOST_LAYERS,
    MOST_WIDTH,
    Metadata,
    YarnKind,
    read_rope,
    refuse_encoder,
    require,
)
from tenth.models.experts import (
    MOST_EXPERTS,
    MoeConfig,
    expert_tensors,
    read_routing,
    shared_expert,
    shared_tensors,
    sparse_feed_forward,
)
from tenth.models.nextn import draft_logits, nextn_tensors
from tenth.models.tensors import Declared, layers
from tenth.program.builder import (
    Routing,
    Value,
    Weights,
    embed,
    flat,
    head_linear,
    head_linear_transposed,
    heads,
    latent_attention,
    linear,
    rms_norm,
    rope,
    rope_angles,
    split,
)

SIGMOID = 2  # of expert_gating_func; these models score groups by their two best experts, the others by the best one
# Number of experts -> groups and those used, for files that do not say, because older converters left it out.
TRAINED_GROUPS = {160: (8, 3), 256: (8, 4)}  # V2 and V2.5; V3 and R1
HEAD_STEP = 16  # sizes of heads and latent are multiples of it: the op head_linear asks for that


@dataclass(frozen=True)
class LatentConfig(MoeConfig):
    """Hyper-parameters. A head's query and key have ``nope_dim`` plain numbers, then rope.dims rotated ones.

    ``q_rank``: 0 when queries come straight from the layer's input. ``latent_dim``: the rank of keys and values.
    ``n_kv_heads`` and ``head_dim`` are those of the cache: one row of latent_dim + rope.dims numbers. Layers from
    ``n_dense_layers`` on have experts. ``n_nextn``: blocks of the file behind the ``n_layers``.
    """

    n_dense_layers: int
    n_nextn: int
    q_rank: int
    latent_dim: int
    nope_dim: int
    value_dim: int


def read_config(metadata: Metadata) -> LatentConfig:
    """Hyper-parameters of the file."""
    m, prefix = metadata, "deepseek2"
    refuse_encoder(m, prefix)
    latent_dim = m.get_int(f"{prefix}.attention.kv_lora_rank", low=1, high=MOST_HEAD_DIM)
    key_dim, value_dim = _head_dims(m, prefix)
    rope_dim = m.get_int(f"{prefix}.rope.dimension_count", low=2, high=MOST_HEAD_DIM)
    rope = read_rope(m, prefix, rope_dim, "pairs", 10000.0, YarnKind(log_multiplier=True))
    require(rope_dim < key_dim, f"{prefix}.rope.dimension_count is {rope_dim}, but a head's key has {key_dim} numbers")
    sizes = {"kv_lora_rank": latent_dim, "key length less rope": key_dim - rope_dim, "value length": value_dim}
    for name, size in sizes.items():
        require(size % HEAD_STEP == 0, f"{prefix}: the {name} is {size}, not a multiple of {HEAD_STEP}: not supported")
    temperature = m.get_float(f"{prefix}.attention.temperature_scale", 0.0)
    require(temperature == 0, f"{prefix}.attention.temperature_scale is {temperature}: not supported")
    n_blocks = m.get_int(f"{prefix}.block_count", low=1, high=MOST_LAYERS)
    n_nextn = m.get_int(f"{prefix}.nextn_predict_layers", 0, low=0, high=MOST_LAYERS)
    require(n_nextn < n_blocks, f"{prefix}.nextn_predict_layers is {n_nextn}, but block_count is {n_blocks}")
    return _with_experts(
        m,
        prefix,
        n_layers=n_blocks - n_nextn,
        n_nextn=n_nextn,
        dim=m.get_int(f"{prefix}.embedding_length", low=1, high=MOST_WIDTH),
        n_ff=m.get_int(f"{prefix}.feed_forward_length", low=1, high=MOST_WIDTH),
        n_heads=m.get_int(f"{prefix}.attention.head_count", low=1, high=MOST_WIDTH),
        n_kv_heads=1,
        head_dim=latent_dim + rope_dim,
        q_rank=m.get_int(f"{prefix}.attention.q_lora_rank", 0, low=0, high=MOST_WIDTH),
        latent_dim=latent_dim,
        nope_dim=key_dim - rope_dim,
        value_dim=value_dim,
        eps=m.get_float(f"{prefix}.attention.layer_norm_rms_epsilon", low=1e-12, high=0.1),
        attention_scale=rope.score_scale / math.sqrt(key_dim),
        context_tokens=m.get_int(f"{prefix}.context_length", low=1, high=MOST_CONTEXT),
        rope=rope,
    )


def _with_experts(m: Metadata, prefix: str, *, n_layers: int, n_ff: int, **rest: Any) -> LatentConfig:
    """The configuration, completed by what keys say of experts. Models without any have leading dense layers only."""
    n_dense = m.get_int(f"{prefix}.leading_dense_block_count", 0, low=0, high=MOST_LAYERS)
    plain = {**rest, "n_layers": n_layers, "n_ff": n_ff, "n_dense_layers": min(n_dense, n_layers)}
    n_experts = m.get_int(f"{prefix}.expert_count", 0, low=0, high=MOST_EXPERTS)
    if n_dense >= n_layers and not n_experts:
        return LatentConfig(n_experts=0, n_expert_ff=0, n_shared_ff=0, routing=Routing(k=1), **plain)
    require(n_experts > 0, f"{prefix}.expert_count is missing or 0, but only {n_dense} of {n_layers} layers are dense")
    groups, used = TRAINED_GROUPS.get(n_experts, (1, 1))
    score = "top2" if m.get_int(f"{prefix}.expert_gating_func", 0) == SIGMOID else "max"
    default = Routing(k=1, normalise=False, n_groups=groups, groups_used=used, group_score=score)
    width = m.get_int(f"{prefix}.expert_feed_forward_length", low=1, high=MOST_WIDTH)
    return LatentConfig(
        n_experts=n_experts,
        n_expert_ff=width,
        n_shared_ff=width * m.get_int(f"{prefix}.expert_shared_count", 0, low=0, high=MOST_EXPERTS),
        routing=read_routing(m, prefix, n_experts, default),
        **plain,
    )


def _head_dims(m: Metadata, prefix: str) -> tuple[int, int]:
    """Numbers of one head's key and value. In files with _mla keys, key_length and value_length are the cache's."""
    ending = "_mla" if m.has(f"{prefix}.attention.key_length_mla") else ""
    names = [f"{prefix}.attention.{part}_length{ending}" for part in ("key", "value")]
    key_dim, value_dim = (m.get_int(name, low=1, high=MOST_HEAD_DIM) for name in names)
    return key_dim, value_dim


def tensors(c: LatentConfig) -> Declared:
    """Every tensor of the file; "?" marks those it may lack, "*" what is ignored."""
    return {
        **dense_ends(c),
        **layers(c.n_layers, _attention_tensors(c)),
        **layers(c.n_dense_layers, dense_feed_forward(c)),
        **layers(range(c.n_dense_layers, c.n_layers), _sparse_tensors(c)),
        **{f"blk.{i}.*": () for i in range(c.n_layers, c.n_layers + c.n_nextn)},
    }


def draft_tensors(c: LatentConfig) -> Declared:
    """Every tensor of the drafter."""
    feed_forward = _sparse_tensors(c) if c.n_experts else dense_feed_forward(c)
    return _attention_tensors(c) | feed_forward | nextn_tensors(c)


def _sparse_tensors(c: LatentConfig) -> Declared:
    return {**expert_tensors(c), **shared_tensors(c), "exp_probs_b.bias?": (c.n_experts,)}


def _attention_tensors(c: LatentConfig) -> Declared:
    key_dim = c.nope_dim + c.rope.dims
    layer: Declared = {
        "attn_norm.weight": (c.dim,),
        "attn_kv_a_mqa.weight": (c.latent_dim + c.rope.dims, c.dim),
        "attn_kv_a_norm.weight": (c.latent_dim,),
        "attn_k_b.weight?": (c.n_heads, c.latent_dim, c.nope_dim),
        "attn_v_b.weight?": (c.n_heads, c.value_dim, c.latent_dim),
        "attn_kv_b.weight?": (c.n_heads * (c.nope_dim + c.value_dim), c.latent_dim),
        "attn_output.weight": (c.dim, c.n_heads * c.value_dim),
        "ffn_norm.weight": (c.dim,),
    }
    if c.q_rank:
        queries: Declared = {
            "attn_q_a.weight": (c.q_rank, c.dim),
            "attn_q_a_norm.weight": (c.q_rank,),
            "attn_q_b.weight": (c.n_heads * key_dim, c.q_rank),
        }
    else:
        queries = {"attn_q.weight": (c.n_heads * key_dim, c.dim)}
    return {**queries, **layer}


def attend(x: Value, angles: Value, w: Weights, c: LatentConfig, i: int) -> Value:
    """Multi-head latent attention, absorbed. x: [n, dim] -> [n, dim]."""
    known = bool(w.attn_kv_b or (w.attn_k_b and w.attn_v_b))
    require(known, f"layer {i} has neither tensors attn_k_b and attn_v_b nor attn_kv_b")
    latent, key_rope = split(linear(x, w.attn_kv_a_mqa), c.latent_dim, c.rope.dims)
    latent = rms_norm(latent, w.attn_kv_a_norm, c.eps)
    key_rope = flat(rope(heads(key_rope, 1), angles, c.rope.pairing))  # [n, rope dims], one for all heads
    q = linear(rms_norm(linear(x, w.attn_q_a), w.attn_q_a_norm, c.eps), w.attn_q_b) if c.q_rank else linear(x, w.attn_q)
    q_nope, q_rope = split(heads(q, c.n_heads), c.nope_dim, c.rope.dims)
    q_rope = rope(q_rope, angles, c.rope.pairing)
    q_latent = _by_keys(q_nope, w, c)  # [n, n_heads, latent_dim]
    seen = latent_attention(q_latent, q_rope, latent, key_rope, layer=i, scale=c.attention_scale)
    return linear(flat(_by_values(seen, w, c)), w.attn_output)


def _by_keys(q: Value, w: Weights, c: LatentConfig) -> Value:
    """Each head's query as it meets the latent. q: [n, n_heads, nope_dim] -> [n, n_heads, latent_dim]."""
    if w.attn_k_b:
        return head_linear(q, w.attn_k_b, n_heads=c.n_heads)
    return head_linear_transposed(q, w.attn_kv_b, n_heads=c.n_heads, first=0, n_rows=c.nope_dim)


def _by_values(seen: Value, w: Weights, c: LatentConfig) -> Value:
    """The values of each head's mixed latents. seen: [n, n_heads, latent_dim] -> [n, n_heads, value_dim]."""
    if w.attn_v_b:
        return head_linear(seen, w.attn_v_b, n_heads=c.n_heads)
    return head_linear(seen, w.attn_kv_b, n_heads=c.n_heads, first=c.nope_dim, n_rows=c.value_dim)


def forward(tokens: Value, positions: Value, w: Weights, c: LatentConfig) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        x = layer(x, angles, w.blk[i], c, i)
    return logits(x, w, c)


def layer(x: Value, angles: Value, b: Weights, c: LatentConfig, i: int) -> Value:
    """x: [n, dim] -> [n, dim]."""
    x = x + attend(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i)
    h = rms_norm(x, b.ffn_norm, c.eps)
    if i < c.n_dense_layers or not c.n_experts:
        return x + gated_feed_forward(h, b)
    x = x + sparse_feed_forward(h, b, c, b.exp_probs_b)
    return x + shared_expert(h, b) if c.n_shared_ff else x


def draft(tokens: Value, positions: Value, sources: Value, w: Weights, c: LatentConfig) -> Value:
    """tokens: [n], sources: [n] -> the drafter's logits: [outputs, vocab]."""
    angles, i = rope_angles(positions, c.rope.inv_freq, c.rope.scale), c.n_layers
    return draft_logits(tokens, sources, w, c, lambda x: layer(x, angles, w.blk[i], c, i))
