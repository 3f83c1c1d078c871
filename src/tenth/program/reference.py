"""What a program means, in NumPy: every op of the table, and a loop that runs a whole program. The oracle of tests.

Slow on purpose: one obvious line where possible. Roundings that belong to an op's meaning (rotary angles, q8) are
float32 at any ``dtype``; everything else is computed in ``dtype``, float32 or float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenth.program.memory import lifetimes
from tenth.program.ops import OPS, expect
from tenth.program.values import Q8_BLOCK, Derived, Instruction, Program, Sliced, Value

Array = NDArray[Any]


@dataclass
class Batch:
    """One step. Rows of sequence j are row_starts[j]:row_starts[j+1]; ``outputs``: rows that need logits, ascending.

    ``sequences``: which sequence of the cache each one is; by default 0, 1, 2 … ``sources``: of a drafter's rows.
    """

    tokens: Array
    positions: Array
    row_starts: Array
    outputs: Array
    sequences: Sequence[int] = ()
    sources: Array | None = None

    def __post_init__(self) -> None:
        self.sequences = self.sequences or range(len(self.row_starts) - 1)

    @classmethod
    def single(cls, tokens: Sequence[int], start: int = 0, outputs: Sequence[int] | None = None) -> Batch:
        """One sequence from position ``start`` on; logits for every row unless ``outputs`` says which."""
        n = len(tokens)
        rows = np.arange(n) if outputs is None else np.asarray(outputs, int)
        return cls(np.asarray(tokens), np.arange(start, start + n), np.array([0, n]), rows)


@dataclass
class Cache:
    """What is kept between steps.

    ``kv``: keys and values, (layer, sequence) -> [2, positions, n_kv_heads, head_dim]; latents: [1, …]. ``recurrent``:
    (number of the recurrence, sequence) -> its numbers. ``hidden``: the rows that the last hidden_store kept.
    """

    kv: dict[tuple[int, int], Array] = field(default_factory=dict)
    recurrent: dict[tuple[int, int], Array] = field(default_factory=dict)
    hidden: Array | None = None


class Q8(NamedTuple):
    """A q8 value: int8 [n, …, k] and float32 scales [n, …, k / 32]."""

    q: NDArray[np.int8]
    scale: NDArray[np.float32]


class Context(NamedTuple):
    """What an op may need besides its inputs."""

    batch: Batch
    cache: Cache
    dtype: type[np.floating[Any]]


Attrs = dict[str, Any]
Meaning = Callable[[list[Any], Attrs, Context], Any]
MEANINGS: dict[str, Meaning] = {}


def _means(op: str) -> Callable[[Meaning], Meaning]:
    def register(function: Meaning) -> Meaning:
        MEANINGS[op] = function
        return function

    return register


# ---------------------------------------------------------------- the ops


@_means("embed")
def _embed(x: list[Array], attrs: Attrs, context: Context) -> Array:
    rows: Array = x[1][x[0]]
    return rows * np.float32(attrs["scale"])


@_means("embed_segments")
def _embed_segments(x: list[Array], attrs: Attrs, context: Context) -> Array:
    tokens, weight = x
    segments = np.zeros(len(tokens), int)
    for rows, _ in _sequences(context.batch):
        before = np.concatenate([[0], np.cumsum(tokens[rows] == attrs["separator"])[:-1]])
        segments[rows] = np.minimum(before, len(weight) - 1)
    result: Array = weight[segments]
    return result


@_means("layer_norm")
def _layer_norm(x: list[Array], attrs: Attrs, context: Context) -> Array:
    centred: Array = x[0] - x[0].mean(-1, keepdims=True)
    variance: Array = (centred**2).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(attrs["eps"])) * x[1] + x[2]


@_means("rms_norm")
def _rms_norm(x: list[Array], attrs: Attrs, context: Context) -> Array:
    mean: Array = (x[0] ** 2).mean(-1, keepdims=True)
    return x[0] / np.sqrt(mean + np.float32(attrs["eps"])) * x[1]


@_means("linear")
def _linear(x: list[Any], attrs: Attrs, context: Context) -> list[Array]:
    n = attrs["n_weights"]
    rest = iter(x[1 + n :])
    a = dequantize(x[0], context.dtype) if isinstance(x[0], Q8) else x[0]
    results = [a @ weight.T for weight in x[1 : 1 + n]]
    results = [r + next(rest) if has else r for r, has in zip(results, attrs["biases"], strict=True)]
    return [r + next(rest) if attrs["residual"] else r for r in results]


@_means("head_linear")
def _head_linear(x: list[Any], attrs: Attrs, context: Context) -> Array:
    n_heads, first = attrs["n_heads"], attrs["first"]
    a = dequantize(x[0], context.dtype) if isinstance(x[0], Q8) else x[0]
    by_head = x[1].reshape(n_heads, -1, x[1].shape[-1])[:, first : first + attrs["n_rows"]]
    result: Array = np.einsum("nhi,hoi->nho", a.reshape(len(a), n_heads, -1), by_head)
    return result


@_means("rope_angles")
def _rope_angles(x: list[Array], attrs: Attrs, context: Context) -> Array:
    frequency: Array = np.asarray(attrs["inv_freq"], np.float32)
    if len(x) == 2:
        frequency = frequency / x[1].astype(np.float32)
    angle = x[0].astype(np.float32)[:, None] * frequency
    wide = angle.astype(np.float64)  # cos and sin of the rounded angle are exact to the last bit of float32
    turns: Array = np.concatenate([np.cos(wide), np.sin(wide)], -1).astype(context.dtype)
    turns *= np.float32(attrs["scale"])
    return turns


@_means("rope")
def _rope(x: list[Array], attrs: Attrs, context: Context) -> Array:
    dims = x[1].shape[-1]
    cos, sin = x[1][:, None, : dims // 2], x[1][:, None, dims // 2 :]
    first = slice(0, dims // 2) if attrs["pairing"] == "half" else slice(0, dims, 2)
    second = slice(dims // 2, dims) if attrs["pairing"] == "half" else slice(1, dims, 2)
    a, b = x[0][..., first], x[0][..., second]
    result: Array = x[0].copy()
    result[..., first], result[..., second] = a * cos - b * sin, b * cos + a * sin
    return result


@_means("kv_store")
def _kv_store(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    _keep(np.stack(x), attrs["layer"], context)
    return []


def _keep(kept: Array, layer: int, context: Context) -> None:
    """Put [kinds, n, heads, dim] where the rows' sequences and positions say."""
    for rows, sequence in _sequences(context.batch):
        positions = context.batch.positions[rows]
        old = context.cache.kv.get((layer, sequence), kept[:, :0])
        new = np.full((len(kept), max(old.shape[1], positions[-1] + 1), *kept.shape[2:]), np.nan, kept.dtype)
        new[:, : old.shape[1]] = old
        new[:, positions] = kept[:, rows]
        context.cache.kv[layer, sequence] = new


@_means("latent_store")
def _latent_store(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    _keep(np.concatenate(x, -1)[None, :, None], attrs["layer"], context)
    return []


@_means("latent_attention")
def _latent_attention(x: list[Array], attrs: Attrs, context: Context) -> Array:
    q = np.concatenate(x, -1)
    result: Array = np.zeros_like(x[0])
    for rows, sequence in _sequences(context.batch):
        p = context.batch.positions[rows][:, None]
        keys = context.cache.kv[attrs["layer"], sequence][0, : p[-1, 0] + 1, 0]
        score = q[rows] @ keys.T * np.float32(attrs["scale"])  # [rows, heads, keys]
        score = np.where((np.arange(len(keys))[None] <= p)[:, None], score, -np.inf)
        e = np.exp(score - score.max(-1, keepdims=True))
        result[rows] = e / e.sum(-1, keepdims=True) @ keys[:, : result.shape[-1]]
    return result


@_means("split")
def _split(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    return np.split(x[0], np.cumsum(attrs["sizes"])[:-1], -1)


@_means("join")
def _join(x: list[Array], attrs: Attrs, context: Context) -> Array:
    return np.concatenate(x, -1)


@_means("hidden_store")
def _hidden_store(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    context.cache.hidden = x[0].copy()
    return []


@_means("hidden_load")
def _hidden_load(x: list[Array], attrs: Attrs, context: Context) -> Array:
    assert context.cache.hidden is not None, "nothing was kept"
    kept: Array = context.cache.hidden[x[0]]
    return kept


@_means("attention")
def _attention(x: list[Array], attrs: Attrs, context: Context) -> Array:
    q = x[0]
    result: Array = np.zeros_like(q)
    for rows, sequence in _sequences(context.batch):
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
            weights = _softmax(np.concatenate([score, sink], -1))
            result[rows, h] = weights[:, : len(v)] @ v[:, h // group]
    return result.reshape(len(q), -1)


@_means("encoder_attention")
def _encoder_attention(x: list[Array], attrs: Attrs, context: Context) -> Array:
    q, k, v = x
    result: Array = np.zeros_like(q)
    group = q.shape[1] // k.shape[1]
    for rows, _ in _sequences(context.batch):
        for h in range(q.shape[1]):
            weights = _softmax(q[rows, h] @ k[rows, h // group].T * np.float32(attrs["scale"]))
            result[rows, h] = weights @ v[rows, h // group]
    return result.reshape(len(q), -1)


@_means("add")
def _add(x: list[Array], attrs: Attrs, context: Context) -> Array:
    return x[0] + x[1]


@_means("scale")
def _scale(x: list[Array], attrs: Attrs, context: Context) -> Array:
    return x[0] * np.float32(attrs["factor"])


@_means("softcap")
def _softcap(x: list[Array], attrs: Attrs, context: Context) -> Array:
    cap = np.float32(attrs["cap"])
    return cap * np.tanh(x[0] / cap)


@_means("swiglu")
def _swiglu(x: list[Array], attrs: Attrs, context: Context) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) = inf gives 0, which is right
        silu: Array = x[0] / (1 + np.exp(-x[0]))
    return silu * x[1]


@_means("geglu")
def _geglu(x: list[Array], attrs: Attrs, context: Context) -> Array:
    g: Array = x[0]
    gelu: Array = g / 2 * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (g + np.float32(0.044715) * g**3)))
    return gelu * x[1]


@_means("gelu")
def _gelu(x: list[Array], attrs: Attrs, context: Context) -> Array:
    erf = np.vectorize(math.erf, otypes=[np.float64])(x[0] * np.sqrt(0.5))
    gelu: Array = x[0] / 2 * (1 + erf)
    return gelu


@_means("clamped_swiglu")
def _clamped_swiglu(x: list[Array], attrs: Attrs, context: Context) -> Array:
    limit = np.float32(attrs["limit"])
    gate, up = np.minimum(x[0], limit), np.clip(x[1], -limit, limit)
    result: Array = gate * _sigmoid([np.float32(attrs["alpha"]) * gate], attrs, context) * (up + 1)
    return result


@_means("l2_norm")
def _l2_norm(x: list[Array], attrs: Attrs, context: Context) -> Array:
    total: Array = (x[0] ** 2).sum(-1, keepdims=True)
    return x[0] / np.sqrt(total + np.float32(attrs["eps"]))


@_means("sigmoid")
def _sigmoid(x: list[Array], attrs: Attrs, context: Context) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) = inf gives 0, which is right
        result: Array = 1 / (1 + np.exp(-x[0]))
    return result


@_means("sigmoid_gate")
def _sigmoid_gate(x: list[Array], attrs: Attrs, context: Context) -> Array:
    sigmoid = _sigmoid(x[:1], attrs, context)
    result: Array = sigmoid * x[1]
    return result


@_means("decay")
def _decay(x: list[Array], attrs: Attrs, context: Context) -> Array:
    result: Array = np.exp(x[1] * np.logaddexp(x[0] + x[2], 0))
    return result


@_means("short_conv")
def _short_conv(x: list[Array], attrs: Attrs, context: Context) -> Array:
    values, weight = x
    result: Array = np.zeros_like(values)
    n_kept = weight.shape[1] - 1
    for rows, key, before in _recurrent(context, attrs["state"], np.zeros((n_kept, values.shape[1]), values.dtype)):
        all_rows = np.concatenate([before, values[rows]])
        for j in range(n_kept + 1):
            result[rows] += weight[:, j] * all_rows[j : j + rows.stop - rows.start]
        context.cache.recurrent[key] = all_rows[len(all_rows) - n_kept :]
    activated: Array = _swiglu([result, np.ones_like(result)], attrs, context)
    return activated


@_means("delta_net")
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


@_means("route")
def _route(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    logits, k = x[0], attrs["k"]
    with np.errstate(over="ignore"):  # exp(-x) = inf gives 0, which is right
        score = {"softmax": _softmax, "sigmoid": lambda v: 1 / (1 + np.exp(-v))}.get(attrs["score"], np.asarray)(logits)
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
    weights = _softmax(chosen) if attrs["score"] == "softmax_selected" else chosen
    if attrs["normalise"]:
        weights = weights / (weights.sum(-1, keepdims=True) + np.float32(1e-20))
    return [experts.astype(np.int32), weights * np.float32(attrs["scale"])]


@_means("route_lossy")
def _route_lossy(x: list[Array], attrs: Attrs, context: Context) -> list[Array]:
    chosen: list[Array] = _route([x[0], *x[2:]], attrs, context)  # all experts are in memory here
    return chosen


def _softmax(x: Array) -> Array:
    e: Array = np.exp(x - x.max(-1, keepdims=True))
    e /= e.sum(-1, keepdims=True)
    return e


@_means("expert_read")
@_means("expert_predict")
@_means("expert_trace")
def _no_meaning(x: list[Any], attrs: Attrs, context: Context) -> list[Array]:
    return []  # about when weights are read from a file, and what was used


@_means("expert_linear")
def _expert_linear(x: list[Any], attrs: Attrs, context: Context) -> list[Array]:
    n, experts = attrs["n_weights"], x[1]
    rest = iter(x[2 + n :])
    a = dequantize(x[0], context.dtype) if isinstance(x[0], Q8) else x[0]
    a = np.broadcast_to(a[:, None], (*experts.shape, a.shape[-1])) if a.ndim == 2 else a
    results: list[Array] = []
    for weight, has in zip(x[2 : 2 + n], attrs["biases"], strict=True):
        result = np.zeros((*experts.shape, weight.shape[1]), context.dtype)
        bias = next(rest) if has else np.zeros(weight.shape[:2], context.dtype)
        for expert in np.unique(experts):
            mine = experts == expert
            result[mine] = a[mine] @ weight[expert].T + bias[expert]
        results.append(result)
    return results


@_means("expert_sum")
def _expert_sum(x: list[Array], attrs: Attrs, context: Context) -> Array:
    total: Array = (x[0] * x[1][..., None]).sum(1)
    return total + x[2] if len(x) == 3 else total


@_means("select_outputs")
def _select_outputs(x: list[Array], attrs: Attrs, context: Context) -> Array:
    return x[0][context.batch.outputs]


@_means("sequence_mean")
def _sequence_mean(x: list[Array], attrs: Attrs, context: Context) -> Array:
    means = {row: x[0][rows].mean(0) for rows, _ in _sequences(context.batch) for row in range(rows.start, rows.stop)}
    return np.array([means[row] for row in context.batch.outputs.tolist()]).reshape(-1, *x[0].shape[1:])


@_means("quantize")
def _quantize(x: list[Array], attrs: Attrs, context: Context) -> Q8:
    return quantize(x[0])


def _then_quantize(op: str) -> Meaning:
    return lambda x, attrs, context: quantize(MEANINGS[op](x, attrs, context))


MEANINGS |= {f"{op}_q8": _then_quantize(op) for op in OPS if f"{op}_q8" in OPS}


def quantize(x: Array) -> Q8:
    """[n, …, k] -> q8, in float32, as the op table says."""
    blocks = x.astype(np.float32).reshape(*x.shape[:-1], -1, Q8_BLOCK)
    largest = np.abs(blocks).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    q = np.clip(np.rint(blocks * inverse), -127, 127)
    return Q8(q.astype(np.int8).reshape(x.shape), (largest / np.float32(127))[..., 0])


def dequantize(x: Q8, dtype: type[np.floating[Any]] = np.float32) -> Array:
    """The numbers a q8 value stands for."""
    return (x.q.reshape(*x.scale.shape, Q8_BLOCK) * x.scale.astype(dtype)[..., None]).reshape(x.q.shape)


def derived(source: Array, how: Derived) -> Array:
    """The weight that is made of a tensor of the file: [n_heads * in, n_rows] of a matrix, or some rows of each."""
    if isinstance(how, Sliced):
        part: Array = source[:, how.first : how.first + how.n_rows]
        return part
    matrix = source
    heads = matrix.reshape(how.n_heads, -1, matrix.shape[-1])[:, how.first : how.first + how.n_rows]
    return heads.transpose(0, 2, 1).reshape(-1, how.n_rows)


def _sequences(batch: Batch) -> list[tuple[slice, int]]:
    starts = [int(start) for start in batch.row_starts]
    return [(slice(a, b), s) for a, b, s in zip(starts, starts[1:], batch.sequences, strict=False) if b > a]


def _recurrent(context: Context, number: int, zero: Array) -> list[tuple[slice, tuple[int, int], Array]]:
    """(rows, key in the cache, what was kept before them) of each sequence."""
    found = []
    for rows, sequence in _sequences(context.batch):
        is_first = context.batch.positions[rows.start] == 0
        found.append((rows, (number, sequence), zero if is_first else context.cache.recurrent[number, sequence]))
    return found


# ---------------------------------------------------------------- running a program


def run(
    program: Program,
    weights: Mapping[str, Array],
    batch: Batch,
    cache: Cache | None = None,
    dtype: type[np.floating[Any]] = np.float32,
    arena_bytes: int = 0,
) -> Array:
    """Logits [outputs, vocab] of one step; ``cache`` is changed in place.

    With ``arena_bytes`` (from ``memory.plan``) every temporary lives at its planned offset in an arena that starts as
    NaN and turns to NaN behind each last use, so that a wrong plan shows. Only with float32.
    """
    context = Context(batch, Cache() if cache is None else cache, dtype)
    store = _Arena(program, arena_bytes) if arena_bytes else _Loose()
    expect(not arena_bytes or dtype is np.float32, "an arena holds float32")
    given = {"tokens": batch.tokens, "positions": batch.positions, "sources": batch.sources}

    def read(value: Value) -> Any:
        if value.kind == "weight":
            how = program.derived.get(value.name)
            whole = derived(weights[how.source], how) if how else weights[value.name]
            return whole.astype(dtype, copy=False).reshape(value.shape)
        return given[value.name] if value.kind == "input" else store.read(value)

    for i, instruction in enumerate(program.instructions):
        inputs = [read(value) for value in instruction.inputs]
        results = MEANINGS[instruction.op](inputs, dict(instruction.attrs), context)
        results = results if isinstance(results, list) else [results]
        for value, result in zip(instruction.outputs, results, strict=True):
            kept = isinstance(result, Q8) or value.dtype == "i32"
            store.write(value, result if kept else result.astype(dtype, copy=False))
        store.done(i, instruction)
    logits: Array = store.read(program.output)
    return logits.copy()


class _Loose:
    """Every temporary in an array of its own."""

    def __init__(self) -> None:
        self.arrays: dict[Value, Any] = {}

    def read(self, value: Value) -> Any:
        found = self.arrays[value.storage]
        return found if isinstance(found, Q8) else found.reshape(-1, *value.shape)

    def write(self, value: Value, result: Any) -> None:
        self.arrays[value] = result

    def done(self, i: int, instruction: Instruction) -> None:
        pass


class _Arena:
    """Every temporary at its planned offset. 0xFF bytes are NaN as float32 and -1 as whole numbers."""

    def __init__(self, program: Program, n_bytes: int):
        self.bytes = np.full(n_bytes, 0xFF, np.uint8)
        self.sizes: dict[Value, tuple[int, int]] = {}  # rows, bytes in use
        self.lives = lifetimes(program)

    def read(self, value: Value) -> Any:
        rows, size = self.sizes[value.storage]
        raw = self.bytes[value.offset : value.offset + size]
        if value.dtype != "q8":
            return raw.view(np.int32 if value.dtype == "i32" else np.float32).reshape(rows, *value.shape)
        n = rows * math.prod(value.shape)
        q, scale = raw[:n].view(np.int8), raw[n : n + n // 8].view(np.float32)
        return Q8(q.reshape(rows, *value.shape), scale.reshape(rows, *value.shape[:-1], -1))

    def write(self, value: Value, result: Any) -> None:
        parts = result if isinstance(result, Q8) else (result,)
        raw = np.concatenate([np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in parts])
        expect(value.offset % 64 == 0 and value.offset + raw.size <= self.bytes.size, f"{value.name} outside the arena")
        self.bytes[value.offset : value.offset + raw.size] = raw
        self.sizes[value] = len(parts[0]), raw.size

    def done(self, i: int, instruction: Instruction) -> None:
        for value in {*instruction.outputs, *(v.storage for v in instruction.inputs if v.kind == "temp")}:
            if self.lives[value][1] == i:
                self.bytes[value.offset : value.offset + self.sizes[value][1]] = 0xFF
