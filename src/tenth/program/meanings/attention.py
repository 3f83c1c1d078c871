"""Positions, what is kept of earlier tokens, and attention to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenth.program.meanings.context import MEANINGS, Array, Attrs, Context, means, sequences, softmax
from tenth.program.meanings.q8 import ROUND, numbers


@means("rope_angles")
def _rope_angles(x: list[Array], attrs: Attrs, context: Context) -> Array:
    frequency: Array = np.asarray(attrs["inv_freq"], np.float32)
    if len(x) == 2:
        frequency = frequency / x[1].astype(np.float32)
    angle = x[0].astype(np.float32)[:, None] * frequency
    wide = angle.astype(np.float64)  # cos and sin of the rounded angle are exact to the last bit of float32
    turns: Array = np.concatenate([np.cos(wide), np.sin(wide)], -1).astype(context.dtype)
    turns *= np.float32(attrs["scale"])
    return turns


@means("rope")
def _rope(x: list[Array], attrs: Attrs, context: Context) -> Array:
    dims = x[1].shape[-1]
    cos, sin = x[1][:, None, : dims // 2], x[1][:, None, dims // 2 :]
    first = slice(0, dims // 2) if attrs["pairing"] == "half" else slice(0, dims, 2)
    second = slice(dims // 2, dims) if attrs["pairing"] == "half" else slice(1, dims, 2)
    a, b = x[0][..., first], x[0][..., second]
    result: Array = x[0].copy()
    result[..., first], result[..., second] = a * cos - b * sin, b * cos + a * sin
    return result


@means("kv_store")
def _kv_store(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    _keep(np.stack(x), attrs["layer"], context)
    return []


@means("rope_store")
def _rope_store(x: list[Array], attrs: Attrs, context: Context) -> Array:
    k, v, q, angles, *norms = x
    if norms:
        k, q = (MEANINGS["rms_norm"]([heads, norm], attrs, context) for heads, norm in zip((k, q), norms, strict=True))
    MEANINGS["kv_store"]([_rope([k, angles], attrs, context), v], attrs, context)
    turned: Array = _rope([q, angles], attrs, context)
    return turned


def _keep(kept: Array, layer: int, context: Context) -> None:
    """Put [kinds, n, heads, dim] where the rows' sequences and positions say."""
    for rows, sequence in sequences(context.batch):
        positions = context.batch.positions[rows]
        old = context.cache.kv.get((layer, sequence), kept[:, :0])
        new = np.full((len(kept), max(old.shape[1], positions[-1] + 1), *kept.shape[2:]), np.nan, kept.dtype)
        new[:, : old.shape[1]] = old
        new[:, positions] = kept[:, rows]
        context.cache.kv[layer, sequence] = new


@means("latent_store")
def _latent_store(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    _keep(np.concatenate(x, -1)[None, :, None], attrs["layer"], context)
    return []


@means("latent_attention")
def _latent_attention(x: list[Array], attrs: Attrs, context: Context) -> Array:
    q = np.concatenate(x, -1)
    result: Array = np.zeros_like(x[0])
    for rows, sequence in sequences(context.batch):
        if rows.stop > len(q):  # of generated rows: no more of them
            break
        p = context.batch.positions[rows][:, None]
        keys = context.cache.kv[attrs["layer"], sequence][0, : p[-1, 0] + 1, 0]
        score = q[rows] @ keys.T * np.float32(attrs["scale"])  # [rows, heads, keys]
        score = np.where((np.arange(len(keys))[None] <= p)[:, None], score, -np.inf)
        e = np.exp(score - score.max(-1, keepdims=True))
        result[rows] = e / e.sum(-1, keepdims=True) @ keys[:, : result.shape[-1]]
    return result


@means("expanded_attention")
def _expanded_attention(x: list[Any], attrs: Attrs, context: Context) -> Array:
    q, q_rope, absorbed, *matrices = x
    result: Array = np.zeros((*q.shape[:2], absorbed.shape[-1]), q.dtype)
    result[: len(absorbed)] = absorbed
    rows_of = (slice(0, q.shape[-1]), slice(attrs["first"], attrs["first"] + absorbed.shape[-1]))  # of each head
    for rows, sequence in sequences(context.batch):
        if rows.start < len(absorbed):
            continue
        p = context.batch.positions[rows][:, None]
        kept = context.cache.kv[attrs["layer"], sequence][0, : p[-1, 0] + 1, 0]
        latent, rope = np.split(kept, [-q_rope.shape[-1]], -1)
        met = [numbers(ROUND[dtype](latent), context.dtype) for dtype in (attrs["keys_dtype"], attrs["values_dtype"])]
        k, v = (np.einsum("td,hnd->htn", of, matrix.reshape(q.shape[1], -1, latent.shape[-1])[:, part])
                for of, matrix, part in zip(met, matrices, rows_of, strict=True))
        score = np.einsum("rhn,htn->rht", q[rows], k) + q_rope[rows] @ rope.T
        seen = (np.arange(len(kept))[None] <= p)[:, None]
        weights = softmax(np.where(seen, score * np.float32(attrs["scale"]), -np.inf))
        result[rows] = np.einsum("rht,htn->rhn", weights, v)
    return result


@means("attention")
def _attention(x: list[Array], attrs: Attrs, context: Context) -> Array:
    q = x[0]
    result: Array = np.zeros_like(q)
    for rows, sequence in sequences(context.batch):
        p = context.batch.positions[rows][:, None]
        k, v = context.cache.kv[attrs["layer"], sequence][:, : p[-1, 0] + 1]
        key = np.arange(len(k))[None]
        seen = (key <= p) & ((key > p - attrs["window"]) if attrs["window"] else True)  # [rows, keys]
        group = q.shape[1] // k.shape[1]
        for h in range(q.shape[1]):
            score = q[rows, h] @ k[:, h // group].T * np.float32(attrs["scale"])
            if attrs["softcap"]:
                score = np.float32(attrs["softcap"]) * np.tanh(score / np.float32(attrs["softcap"]))
            score = np.where(seen, score, -np.inf)
            sink = np.full((len(score), len(x) - 1), x[1][h] if len(x) == 2 else 0, score.dtype)
            weights = softmax(np.concatenate([score, sink], -1))
            result[rows, h] = weights[:, : len(v)] @ v[:, h // group]
    return result.reshape(len(q), -1)


@means("encoder_attention")
def _encoder_attention(x: list[Array], attrs: Attrs, context: Context) -> Array:
    q, k, v = x
    result: Array = np.zeros_like(q)
    group = q.shape[1] // k.shape[1]
    for rows, _ in sequences(context.batch):
        for h in range(q.shape[1]):
            weights = softmax(q[rows, h] @ k[rows, h // group].T * np.float32(attrs["scale"]))
            result[rows, h] = weights @ v[rows, h // group]
    return result.reshape(len(q), -1)
