"""OLMoE, 1B active of 7B.

Unusual: q and k are normalised whole, all heads together; the weights of a token's experts are their shares of the
softmax over all experts and do not sum to 1; the width of an expert is the file's feed_forward_length. Source:
Muennighoff et al. 2024.
"""

from __future__ import annotations

from tenth.models.blocks import dense_attention, dense_ends, logits
from tenth.models.config import Config, Metadata, read_dense, require
from tenth.models.experts import MoeConfig, expert_tensors, read_moe, sparse_feed_forward
from tenth.models.tensors import Declared, layers
from tenth.program.builder import Routing, Value, Weights, attention, embed, heads, linear, rms_norm, rope, rope_angles


def read_config(metadata: Metadata) -> MoeConfig:
    """Hyper-parameters of the file."""
    c = read_dense(metadata, "olmoe", pairing="half", experts=True)
    clamp = metadata.get_float("olmoe.attention.clamp_kqv", 0.0)
    require(clamp == 0, f"olmoe.attention.clamp_kqv is {clamp}: clamping q, k and v is not supported")
    return read_moe(metadata, "olmoe", c, Routing(k=1, normalise=False))


def tensors(c: MoeConfig) -> Declared:
    """Every tensor of the file; "?" marks those it may lack."""
    norms: Declared = {
        "attn_q_norm.weight": (c.n_heads * c.head_dim,),
        "attn_k_norm.weight": (c.n_kv_heads * c.head_dim,),
    }
    return {**dense_ends(c), **layers(c.n_layers, {**dense_attention(c), **norms, **expert_tensors(c)})}


def attend(x: Value, angles: Value, w: Weights, c: Config, i: int) -> Value:
    """Grouped-query attention with a norm over all of q and all of k. x: [n, dim] -> [n, dim]."""
    q = heads(rms_norm(linear(x, w.attn_q), w.attn_q_norm, c.eps), c.n_heads)  # [n, n_heads, head_dim]
    k = heads(rms_norm(linear(x, w.attn_k), w.attn_k_norm, c.eps), c.n_kv_heads)  # [n, n_kv_heads, head_dim]
    v = heads(linear(x, w.attn_v), c.n_kv_heads)
    q, k = rope(q, angles, c.rope.pairing), rope(k, angles, c.rope.pairing)
    return linear(attention(q, k, v, layer=i, scale=c.attention_scale), w.attn_output)


def forward(tokens: Value, positions: Value, w: Weights, c: MoeConfig) -> Value:
    """tokens: [n] -> logits: [outputs, vocab]."""
    angles = rope_angles(positions, c.rope.inv_freq, c.rope.scale)
    x = embed(tokens, w.token_embd)
    for i in range(c.n_layers):
        b = w.blk[i]
        x = x + attend(rms_norm(x, b.attn_norm, c.eps), angles, b, c, i)
        x = x + sparse_feed_forward(rms_norm(x, b.ffn_norm, c.eps), b, c)
    return logits(x, w, c)
