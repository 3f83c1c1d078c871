"""Products, norms, activations: ops that look at nothing but their rows, and those that choose or keep rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tenth.program.meanings.context import Array, Attrs, Context, means, sequences
from tenth.program.meanings.q8 import numbers


@means("embed")
def _embed(x: list[Array], attrs: Attrs, context: Context) -> Array:
    rows: Array = x[1][x[0]]
    return rows * np.float32(attrs["scale"])


@means("embed_segments")
def _embed_segments(x: list[Array], attrs: Attrs, context: Context) -> Array:
    tokens, weight = x
    segments = np.zeros(len(tokens), int)
    for rows, _ in sequences(context.batch):
        before = np.concatenate([[0], np.cumsum(tokens[rows] == attrs["separator"])[:-1]])
        segments[rows] = np.minimum(before, len(weight) - 1)
    result: Array = weight[segments]
    return result


@means("layer_norm")
def _layer_norm(x: list[Array], attrs: Attrs, context: Context) -> Array:
    centred: Array = x[0] - x[0].mean(-1, keepdims=True)
    variance: Array = (centred**2).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(attrs["eps"])) * x[1] + x[2]


@means("rms_norm")
def _rms_norm(x: list[Array], attrs: Attrs, context: Context) -> Array:
    mean: Array = (x[0] ** 2).mean(-1, keepdims=True)
    normed: Array = x[0] / np.sqrt(mean + np.float32(attrs["eps"])) * x[1]
    return normed + x[2] if len(x) > 2 else normed


@means("l2_norm")
def _l2_norm(x: list[Array], attrs: Attrs, context: Context) -> Array:
    total: Array = (x[0] ** 2).sum(-1, keepdims=True)
    return x[0] / np.sqrt(total + np.float32(attrs["eps"]))


@means("linear")
def _linear(x: list[Any], attrs: Attrs, context: Context) -> list[Array]:
    n = attrs["n_weights"]
    rest = iter(x[1 + n :])
    a = numbers(x[0], context.dtype)
    results = [a @ weight.T for weight in x[1 : 1 + n]]
    results = [r + next(rest) if has else r for r, has in zip(results, attrs["biases"], strict=True)]
    return [r + next(rest) if attrs["residual"] else r for r in results]


@means("head_linear")
def _head_linear(x: list[Any], attrs: Attrs, context: Context) -> Array:
    n_heads, first = attrs["n_heads"], attrs["first"]
    a, weight = numbers(x[0], context.dtype), x[1]
    by_head = weight.reshape(n_heads, -1, weight.shape[-1])[:, first : first + attrs["n_rows"]]
    result: Array = np.einsum("nhi,hoi->nho", a.reshape(len(a), n_heads, weight.shape[-1]), by_head)
    return result


@means("split")
def _split(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    return np.split(x[0], np.cumsum(attrs["sizes"])[:-1], -1)


@means("join")
def _join(x: list[Array], attrs: Attrs, context: Context) -> Array:
    return np.concatenate(x, -1)


@means("add")
def _add(x: list[Array], attrs: Attrs, context: Context) -> Array:
    return x[0] + x[1]


@means("scale")
def _scale(x: list[Array], attrs: Attrs, context: Context) -> Array:
    return x[0] * np.float32(attrs["factor"])


@means("softcap")
def _softcap(x: list[Array], attrs: Attrs, context: Context) -> Array:
    cap = np.float32(attrs["cap"])
    return cap * np.tanh(x[0] / cap)


@means("swiglu")
def _swiglu(x: list[Array], attrs: Attrs, context: Context) -> Array:
    return silu(x[0]) * x[1]


def silu(x: Array) -> Array:
    """x / (1 + exp(-x))."""
    with np.errstate(over="ignore"):  # exp(-x) = inf gives 0, which is right
        result: Array = x / (1 + np.exp(-x))
    return result


@means("geglu")
def _geglu(x: list[Array], attrs: Attrs, context: Context) -> Array:
    g: Array = x[0]
    gelu: Array = g / 2 * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (g + np.float32(0.044715) * g**3)))
    return gelu * x[1]


@means("gelu")
def _gelu(x: list[Array], attrs: Attrs, context: Context) -> Array:
    erf = np.vectorize(math.erf, otypes=[np.float64])(x[0] * np.sqrt(0.5))
    gelu: Array = x[0] / 2 * (1 + erf)
    return gelu


@means("clamped_swiglu")
def _clamped_swiglu(x: list[Array], attrs: Attrs, context: Context) -> Array:
    limit = np.float32(attrs["limit"])
    gate, up = np.minimum(x[0], limit), np.clip(x[1], -limit, limit)
    result: Array = gate * _sigmoid([np.float32(attrs["alpha"]) * gate], attrs, context) * (up + 1)
    return result


@means("sigmoid")
def _sigmoid(x: list[Array], attrs: Attrs, context: Context) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) = inf gives 0, which is right
        result: Array = 1 / (1 + np.exp(-x[0]))
    return result


@means("sigmoid_gate")
def _sigmoid_gate(x: list[Array], attrs: Attrs, context: Context) -> Array:
    sigmoid = _sigmoid(x[:1], attrs, context)
    result: Array = sigmoid * x[1]
    return result


@means("hidden_store")
def _hidden_store(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    context.cache.hidden = x[0].copy()
    return []


@means("hidden_load")
def _hidden_load(x: list[Array], attrs: Attrs, context: Context) -> Array:
    assert context.cache.hidden is not None, "nothing was kept"
    kept: Array = context.cache.hidden[x[0]]
    return kept


@means("select_outputs")
def _select_outputs(x: list[Array], attrs: Attrs, context: Context) -> Array:
    return x[0][context.batch.outputs]


@means("select_generated")
def _select_generated(x: list[Array], attrs: Attrs, context: Context) -> Array:
    return x[0][: context.batch.row_starts[context.batch.n_generated]]


@means("sequence_mean")
def _sequence_mean(x: list[Array], attrs: Attrs, context: Context) -> Array:
    means = {row: x[0][rows].mean(0) for rows, _ in sequences(context.batch) for row in range(rows.start, rows.stop)}
    return np.array([means[row] for row in context.batch.outputs.tolist()]).reshape(-1, *x[0].shape[1:])
