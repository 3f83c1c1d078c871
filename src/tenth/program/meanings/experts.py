"""Mixtures of experts: who goes where, the products, the sum."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenth.program.meanings.context import Array, Attrs, Context, means, softmax
from tenth.program.meanings.q8 import numbers


@means("route")
def _route(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    logits, k = x[0], attrs["k"]
    with np.errstate(over="ignore"):  # exp(-x) = inf gives 0, which is right
        score = {"softmax": softmax, "sigmoid": lambda v: 1 / (1 + np.exp(-v))}.get(attrs["score"], np.asarray)(logits)
    rank = score + x[1] if len(x) == 2 else score
    if attrs["n_groups"] > 1:
        groups = np.sort(rank.reshape(len(rank), attrs["n_groups"], -1), -1)
        best = groups[..., -1] + (groups[..., -2] if attrs["group_score"] == "top2" else 0)
        out = np.argsort(-best, axis=-1, kind="stable")[:, attrs["groups_used"] :]
        rank = rank.reshape(groups.shape).copy()
        np.put_along_axis(rank, out[..., None], -np.inf, 1)
        rank = rank.reshape(score.shape)
    experts = np.argsort(-rank, axis=-1, kind="stable")[:, :k]
    chosen = np.take_along_axis(score, experts, -1)
    weights = softmax(chosen) if attrs["score"] == "softmax_selected" else chosen
    if attrs["normalise"]:
        weights = weights / (weights.sum(-1, keepdims=True) + np.float32(1e-20))
    return [experts.astype(np.int32), weights * np.float32(attrs["scale"])]


@means("route_lossy")
def _route_lossy(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    chosen: list[Array] = _route([x[0], *x[2:]], attrs, context)  # all experts are in memory here
    return chosen


@means("expert_read")
@means("expert_predict")
@means("expert_trace")
def _no_meaning(x: list[Any], attrs: Attrs, context: Context) -> list[Array]:
    return []  # about when weights are read from a file, and what was used


@means("expert_linear")
def _expert_linear(x: list[Any], attrs: Attrs, context: Context) -> list[Array]:
    n, experts = attrs["n_weights"], x[1]
    rest = iter(x[2 + n :])
    results: list[Array] = []
    a = numbers(x[0], context.dtype)
    a = np.broadcast_to(a[:, None], (*experts.shape, a.shape[-1])) if a.ndim == 2 else a
    for weight, has in zip(x[2 : 2 + n], attrs["biases"], strict=True):
        result = np.zeros((*experts.shape, weight.shape[1]), context.dtype)
        bias = next(rest) if has else np.zeros(weight.shape[:2], context.dtype)
        for expert in np.unique(experts):
            mine = experts == expert
            result[mine] = a[mine] @ weight[expert].T + bias[expert]
        results.append(result)
    return results


@means("expert_sum")
def _expert_sum(x: list[Array], attrs: Attrs, context: Context) -> Array:
    total: Array = (x[0] * x[1][..., None]).sum(1)
    return total + x[2] if len(x) == 3 else total
