"""The recurrent layers of qwen35, qwen35moe and qwen3next files in float64, token by token: part of exact.py.

The gated delta rule as Yang, Kautz and Hatamizadeh 2024 ("Gated Delta Networks") write it, in transformers' details;
value heads in the order in which llama.cpp's converter stores them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

L2_EPS = 1e-6


@dataclass(frozen=True)
class Delta:
    """The shape of the recurrent layers."""

    period: int  # every period-th layer is attention
    n_k_heads: int
    n_v_heads: int
    k_dim: int
    v_dim: int
    tiled: bool  # value heads that share a key head stand apart; else together

    def is_recurrent(self, layer: int) -> bool:
        """Whether the layer has a state instead of attention."""
        return (layer + 1) % self.period != 0


def read_delta(number: Callable[..., float], architecture: str) -> Delta:
    """The shape from the file's metadata; ``number``: value of a key."""
    n_v_heads = int(number("ssm.time_step_rank"))
    return Delta(
        period=int(number("full_attention_interval", 4)),
        n_k_heads=int(number("ssm.group_count")),
        n_v_heads=n_v_heads,
        k_dim=int(number("ssm.state_size")),
        v_dim=int(number("ssm.inner_size")) // n_v_heads,
        tiled=architecture != "qwen3next",
    )


def recur(
    x: Tensor,
    name: str,
    d: Delta,
    linear: Callable[[Tensor, str], Tensor],
    norm: Callable[[Tensor, str], Tensor],
    weight: Callable[[str], Tensor],
) -> Tensor:
    """[n, dim] -> [n, dim]. ``name``: what the layer's tensors begin with; the functions are ExactModel's."""
    n = x.shape[0]
    mixed = convolve(linear(x, name + "attn_qkv"), weight(name + "ssm_conv1d.weight").double())
    q, k, v = mixed.split([d.n_k_heads * d.k_dim, d.n_k_heads * d.k_dim, d.n_v_heads * d.v_dim], dim=-1)
    q, k = (t.reshape(n, d.n_k_heads, d.k_dim) for t in (q, k))
    q, k = (t / torch.sqrt(t.square().sum(-1, keepdim=True) + L2_EPS) for t in (q, k))
    n_each = d.n_v_heads // d.n_k_heads
    if d.tiled:
        q, k = (t.repeat(1, n_each, 1) for t in (q, k))
        alpha, beta = linear(x, name + "ssm_alpha"), linear(x, name + "ssm_beta")
    else:
        q, k = (t.repeat_interleave(n_each, dim=1) for t in (q, k))
        both = linear(x, name + "ssm_ba").reshape(n, d.n_k_heads, 2 * n_each)
        beta, alpha = (t.reshape(n, -1) for t in both.split(n_each, dim=-1))
    q = q * d.k_dim**-0.5
    v = v.reshape(n, d.n_v_heads, d.v_dim)
    beta = torch.sigmoid(beta)
    kept = torch.exp(weight(name + "ssm_a") * torch.log1p(torch.exp(alpha + weight(name + "ssm_dt.bias"))))
    state, rows = torch.zeros(d.n_v_heads, d.k_dim, d.v_dim, dtype=torch.float64), []
    for t in range(n):
        state = state * kept[t, :, None, None]
        error = v[t] - torch.einsum("hkv,hk->hv", state, k[t])
        state = state + k[t, :, :, None] * (beta[t, :, None] * error)[:, None, :]
        rows.append(torch.einsum("hkv,hk->hv", state, q[t]))
    y = norm(torch.stack(rows), name + "ssm_norm").reshape(n, -1)
    return linear(torch.nn.functional.silu(linear(x, name + "attn_gate")) * y, name + "ssm_out")


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """silu of each number's sum over its last few tokens. x [n, d], weight [d, taps]."""
    taps = weight.shape[1]
    padded = torch.nn.functional.pad(x, (0, 0, taps - 1, 0))
    return torch.nn.functional.silu(sum(padded[j : j + len(x)] * weight[:, j] for j in range(taps)))
