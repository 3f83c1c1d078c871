"""What the Qwen3-Next family shares: layers that are mostly gated delta-net, every fourth gated attention.

Unusual: most layers keep a matrix per head instead of keys and values (Yang, Kautz and Hatamizadeh 2024, "Gated Delta
Networks"), fed through a causal convolution over the last few tokens; attention normalises q and k per head, turns only
the first ``rope.dimension_count`` numbers, and its result is gated by a sigmoid whose input comes out of the q matrix
beside each head. GGUF has the 1 of "1 + w" in all norms but ``ssm_norm``, and -exp(A_log) as ``ssm_a``. Text positions
are the same in all parts of ``rope.dimension_sections``, so rope is the plain one and that key is not read.

A file may end in blocks for predicting several tokens (``nextn_predict_layers``, "MTP"): the first is a drafter
(nextn.py) with attention. Sources: transformers' modeling_qwen3_next.py and modeling_qwen3_5.py (5.23); names, order of
heads and what conversion changes: llama.cpp's conversion/qwen.py and src/models/qwen35.cpp. q and k are normalised as
transformers does it, x / sqrt(sum(x²) + 1e-6), whatever the norms' own epsilon is.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenth.models.blocks import head_norms
from tenth.models.config import MOST_LAYERS, MOST_WIDTH, Config, Metadata, read_dense, require
from tenth.models.experts import MoeConfig, expert_tensors, read_moe, shared_tensors
from tenth.models.nextn import nextn_tensors
from tenth.models.tensors import Declared
from tenth.program.builder import (
    Routing,
    Value,
    Weights,
    attention,
    decay,
    delta_net,
    flat,
    heads,
    l2_norm,
    linear,
    rms_norm,
    rope,
    short_conv,
    sigmoid,
    sigmoid_gate,
    split,
    swiglu,
)
from tenth.program.ops import MOST_TAPS

L2_EPS = 1e-6


@dataclass(frozen=True)
class HybridConfig(Config):
    """``n_layers`` without the ``n_nextn`` blocks behind them. Every ``period``-th layer is attention."""

    n_nextn: int
    period: int
    n_k_heads: int
    n_v_heads: int
    k_dim: int
    v_dim: int
    taps: int

    @property
    def q_width(self) -> int:
        """Numbers of q, and of k, in a delta-net layer."""
        return self.n_k_heads * self.k_dim

    @property
    def v_width(self) -> int:
        """Numbers of v, and of what gates the result, in a delta-net layer."""
        return self.n_v_heads * self.v_dim

    def is_attention(self, i: int) -> bool:
        """Whether layer i has attention, as all blocks behind the layers do."""
        return (i + 1) % self.period == 0 or i >= self.n_layers


@dataclass(frozen=True)
class HybridMoeConfig(HybridConfig, MoeConfig):
    """The same with experts in every layer."""


def read_hybrid(m: Metadata, prefix: str, experts: bool = False) -> HybridConfig:
    """Hyper-parameters that start with ``prefix``; ModelFileError names any that contradict each other."""
    c = read_dense(m, prefix, pairing="half", default_rope_base=1e7, experts=experts)
    n_nextn = m.get_int(f"{prefix}.nextn_predict_layers", 0, low=0, high=MOST_LAYERS)
    require(n_nextn < c.n_layers, f"nextn_predict_layers is {n_nextn} of block_count {c.n_layers}")
    n_k_heads = m.get_int(f"{prefix}.ssm.group_count", low=1, high=MOST_WIDTH)
    n_v_heads = m.get_int(f"{prefix}.ssm.time_step_rank", low=1, high=MOST_WIDTH)
    inner = m.get_int(f"{prefix}.ssm.inner_size", low=1, high=MOST_WIDTH)
    ranks = f"ssm.time_step_rank {n_v_heads}"
    require(n_v_heads % n_k_heads == 0, f"{ranks} is not a multiple of ssm.group_count {n_k_heads}")
    require(inner % n_v_heads == 0, f"ssm.inner_size {inner} is not a multiple of {ranks}")
    k_dim = m.get_int(f"{prefix}.ssm.state_size", low=1, high=MOST_WIDTH)
    require(k_dim * n_k_heads <= MOST_WIDTH, f"ssm.state_size {k_dim} times ssm.group_count {n_k_heads} is too large")
    hybrid = HybridConfig(
        **{**vars(c), "n_layers": c.n_layers - n_nextn},
        n_nextn=n_nextn,
        period=m.get_int(f"{prefix}.full_attention_interval", 4, low=1, high=MOST_LAYERS),
        n_k_heads=n_k_heads,
        n_v_heads=n_v_heads,
        k_dim=k_dim,
        v_dim=inner // n_v_heads,
        taps=m.get_int(f"{prefix}.ssm.conv_kernel", low=2, high=MOST_TAPS),
    )
    _check_order(m, f"{prefix}.attention.recurrent_layers", hybrid)
    return hybrid


def _check_order(m: Metadata, key: str, c: HybridConfig) -> None:
    """Refuse a file that says that its layers stand in another order than one attention layer in so many."""
    if m.has(key):
        found = [bool(recurs) for recurs in m.get_bools(key, count=c.n_layers + c.n_nextn)]
        usual = [not c.is_attention(i) for i in range(c.n_layers + c.n_nextn)]
        require(found == usual, f"{key} has another order than one attention layer in {c.period}",
                "this variant is not supported yet")  # fmt: skip


def read_hybrid_moe(m: Metadata, prefix: str) -> HybridMoeConfig:
    """The same of a model with experts, whose weights sum to 1, and a shared one."""
    c = read_hybrid(m, prefix, experts=True)
    moe = read_moe(m, prefix, read_dense(m, prefix, pairing="half", experts=True), Routing(k=1))
    shared = m.get_int(f"{prefix}.expert_shared_feed_forward_length", moe.n_expert_ff, low=1, high=MOST_WIDTH)
    return HybridMoeConfig(**{**vars(moe), **vars(c), "n_shared_ff": shared})


def mixer(c: HybridConfig, i: int) -> Declared:
    """Shapes of what layer i has of attention, or of the delta-net but for its two narrow inputs; and of the norms."""
    norms: Declared = {"attn_norm.weight": (c.dim,), "post_attention_norm.weight": (c.dim,)}
    if c.is_attention(i):
        q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        return norms | {
            "attn_q.weight": (2 * q, c.dim),
            "attn_k.weight": (kv, c.dim),
            "attn_v.weight": (kv, c.dim),
            "attn_output.weight": (c.dim, q),
        } | head_norms(c)
    channels = 2 * c.q_width + c.v_width
    return norms | {
        "attn_qkv.weight": (channels, c.dim),
        "attn_gate.weight": (c.v_width, c.dim),
        "ssm_conv1d.weight": (channels, c.taps),
        "ssm_a": (c.n_v_heads,),
        "ssm_dt.bias": (c.n_v_heads,),
        "ssm_norm.weight": (c.v_dim,),
        "ssm_out.weight": (c.dim, c.v_width),
    }


def draft_block(c: HybridConfig, feed_forward: Declared) -> Declared:
    """Shapes of the drafter's tensors."""
    return mixer(c, c.n_layers) | feed_forward | nextn_tensors(c)


def all_layers(c: HybridConfig, narrow: Declared, feed_forward: Declared) -> Declared:
    """Every tensor of every block. ``narrow``: what a delta-net layer has beside ``mixer``."""
    found: Declared = {f"blk.{i}.*": () for i in range(c.n_layers, c.n_layers + c.n_nextn)}
    for i in range(c.n_layers):
        one = mixer(c, i) | ({} if c.is_attention(i) else narrow) | feed_forward
        found |= {f"blk.{i}.{name}": shape for name, shape in one.items()}
    return found


def sparse_tensors(c: MoeConfig) -> Declared:
    """Shapes of one layer's feed-forward part with experts."""
    return expert_tensors(c) | shared_tensors(c) | {"ffn_gate_inp_shexp.weight": (1, c.dim)}


def attend(x: Value, angles: Value, w: Weights, c: HybridConfig, i: int) -> Value:
    """Grouped-query attention, its result gated. x: [n, dim] -> [n, dim]."""
    q, gate = split(heads(linear(x, w.attn_q), c.n_heads), c.head_dim, c.head_dim)  # [n, n_heads, head_dim] each
    q = rms_norm(q, w.attn_q_norm, c.eps)
    k = rms_norm(heads(linear(x, w.attn_k), c.n_kv_heads), w.attn_k_norm, c.eps)  # [n, n_kv_heads, head_dim]
    v = heads(linear(x, w.attn_v), c.n_kv_heads)
    q, k = rope(q, angles, c.rope.pairing), rope(k, angles, c.rope.pairing)
    seen = attention(q, k, v, layer=i, scale=c.attention_scale)
    return linear(sigmoid_gate(flat(gate), seen), w.attn_output)


def recur(x: Value, alpha: Value, beta: Value, w: Weights, c: HybridConfig, *, tiled: bool) -> Value:
    """Gated delta-net. x: [n, dim]; alpha, beta: [n, n_v_heads] -> [n, dim]. ``tiled``: see the op delta_net."""
    mixed = short_conv(linear(x, w.attn_qkv), w.ssm_conv1d)
    q, k, v = split(mixed, c.q_width, c.q_width, c.v_width)
    q, k = (l2_norm(heads(part, c.n_k_heads), L2_EPS) for part in (q, k))  # [n, n_k_heads, k_dim]
    kept, beta = decay(alpha, w.ssm_a, w.ssm_dt), sigmoid(beta)
    y = delta_net(q, k, heads(v, c.n_v_heads), decay=kept, beta=beta, tiled=tiled, scale=c.k_dim**-0.5)
    y = flat(rms_norm(y, w.ssm_norm, c.eps))  # a norm per head, [n, v_width]
    return linear(swiglu(linear(x, w.attn_gate), y), w.ssm_out)
