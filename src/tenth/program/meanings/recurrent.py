"""Ops that keep a fixed count of numbers of each sequence."""

from __future__ import annotations

import numpy as np

from tenth.program.meanings.arithmetic import silu
from tenth.program.meanings.context import Array, Attrs, Context, means, sequences


@means("decay")
def _decay(x: list[Array], attrs: Attrs, context: Context) -> Array:
    result: Array = np.exp(x[1] * np.logaddexp(x[0] + x[2], 0))
    return result


@means("short_conv")
def _short_conv(x: list[Array], attrs: Attrs, context: Context) -> Array:
    values, weight = x
    result: Array = np.zeros_like(values)
    n_kept = weight.shape[1] - 1
    for rows, key, before in _recurrent(context, attrs["state"], np.zeros((n_kept, values.shape[1]), values.dtype)):
        all_rows = np.concatenate([before, values[rows]])
        for j in range(n_kept + 1):
            result[rows] += weight[:, j] * all_rows[j : j + rows.stop - rows.start]
        context.cache.recurrent[key] = all_rows[len(all_rows) - n_kept :]
    return silu(result)


@means("delta_net")
def _delta_net(x: list[Array], attrs: Attrs, context: Context) -> Array:
    q, k, v, decay, beta = x
    n_k_heads, n_v_heads = q.shape[1], v.shape[1]
    heads = np.arange(n_v_heads)
    heads = heads % n_k_heads if attrs["tiled"] else heads // (n_v_heads // n_k_heads)
    result: Array = np.zeros_like(v)
    zero = np.zeros((n_v_heads, k.shape[2], v.shape[2]), v.dtype)
    for rows, key, state in _recurrent(context, attrs["state"], zero):
        for row in range(rows.start, rows.stop):
            state = state * decay[row][:, None, None]
            wrong = v[row] - np.einsum("hkv,hk->hv", state, k[row, heads])
            state = state + k[row, heads][:, :, None] * (wrong * beta[row][:, None])[:, None, :]
            result[row] = np.einsum("hkv,hk->hv", state, q[row, heads]) * np.float32(attrs["scale"])
        context.cache.recurrent[key] = state
    return result


def _recurrent(context: Context, number: int, zero: Array) -> list[tuple[slice, tuple[int, int], Array]]:
    """(rows, key in the cache, what was kept before them) of each sequence."""
    found = []
    for rows, sequence in sequences(context.batch):
        is_first = context.batch.positions[rows.start] == 0
        found.append((rows, (number, sequence), zero if is_first else context.cache.recurrent[number, sequence]))
    return found
