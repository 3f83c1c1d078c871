"""The op table: every op a program may contain, once. The docstring of each row is its specification.

A row's function is the shape rule: from inputs and attrs to the (rows, shape, dtype) of each output; it raises
AssertionError where they do not fit, because a wrong program is our bug, never the user's. ``meanings/`` gives each
op its meaning in NumPy under the same name, the native plan gives it speed. All arithmetic is float32 unless said.

Shapes in the docstrings are per row with the row count n in front. Input names ending in "*" stand for any number of
values, in "?" for none or one; ":i32" or ":f32/q8/bf16" behind a name says what it holds where that is not f32 alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tenth.program.values import Q8_BLOCK, ROUNDINGS, Attr, Dtype, Instruction, Rows, Value

MOST_TAPS = 16  # of a short_conv; models have 4

PANEL_ROWS = 16  # rows of a weight that lie interleaved (native/kernels/table.h): a head begins with a new panel


class Result(NamedTuple):
    """What the shape rule says of one output."""

    rows: Rows | None
    shape: tuple[int, ...]
    dtype: Dtype = "f32"


Rule = Callable[[tuple[Value, ...], Mapping[str, Attr]], tuple[Result, ...]]


@dataclass(frozen=True)
class Op:
    """One row: name, names of inputs, types of attrs (all of them present in every instruction), shape rule.

    ``dtypes``: what each of the leading inputs may hold, one tuple each; all behind them are f32.
    """

    name: str
    inputs: tuple[str, ...]
    dtypes: tuple[tuple[str, ...], ...]
    attrs: dict[str, type]
    rule: Rule

    @property
    def doc(self) -> str:
        """The specification."""
        return self.rule.__doc__ or ""


OPS: dict[str, Op] = {}


def _op(inputs: str, **attrs: type) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        name = rule.__name__.strip("_")
        expect(name not in OPS, f"two ops are named {name}")
        split = [part.partition(":") for part in inputs.split()]
        dtypes = tuple(tuple(dtype.split("/")) if dtype else ("f32",) for _, _, dtype in split)
        OPS[name] = Op(name, tuple(part for part, _, _ in split), dtypes, attrs, rule)
        return rule

    return register


def expect(condition: bool, message: str) -> None:
    """Raise AssertionError unless the condition holds (an ``assert`` that python -O keeps)."""
    if not condition:
        raise AssertionError(message)


def _same(a: Value, b: Value) -> Result:
    same = a.rows == b.rows and a.shape == b.shape
    expect(same, f"{a.name} ({a.rows}, {a.shape}) and {b.name} ({b.rows}, {b.shape}) differ")
    return Result(a.rows, a.shape)


def _rounded(result: Result, dtype: Dtype) -> tuple[Result]:
    whole = len(result.shape) > 0 and (dtype != "q8" or result.shape[-1] % Q8_BLOCK == 0)
    expect(whole, f"rows are rounded, those of q8 a multiple of 32 long: {result}")
    return (result._replace(dtype=dtype),)


@_op("tokens:i32 weight", scale=float)
def _embed(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """i32 [n] -> [n, dim]: row ``token`` of weight [vocab, dim], decoded to float32, then times ``scale`` (float32).

    For learned positions, row ``position`` of weight [at least as many as the context has, dim].
    """
    tokens, weight = inputs
    expect(len(weight.shape) == 2, "embed takes token numbers or positions, and a matrix")
    return (Result(tokens.rows, weight.shape[1:]),)


@_op("tokens:i32 weight", separator=int)
def _embed_segments(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """i32 [n] -> [n, dim]: row ``segment`` of weight [segments, dim], decoded to float32 (BERT's token types).

    The segment counts the tokens ``separator`` that stand before in the same sequence, up to the last row of weight;
    with -1 it is 0. The step has the sequence whole.
    """
    tokens, weight = inputs
    expect(len(weight.shape) == 2 and tokens.rows == "tokens", "embed_segments takes token numbers and a matrix")
    return (Result(tokens.rows, weight.shape[1:]),)


@_op("x weight residual?", eps=float)
def _rms_norm(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, d] -> same: x / sqrt(mean(x²) + eps) * weight [d], over the last dimension (of each head).

    + residual, of the shape of x, if any.
    """
    x, weight, *residual = inputs
    for other in residual:
        _same(x, other)
    expect(weight.shape == x.shape[-1:], f"rms_norm of {x.shape} by {weight.name} {weight.shape}")
    return (Result(x.rows, x.shape),)


@_op("x weight bias", eps=float)
def _layer_norm(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, d] -> same: (x - mean(x)) / sqrt(mean((x - mean(x))²) + eps) * weight [d] + bias [d]."""
    x, weight, bias = inputs
    expect(weight.shape == bias.shape == x.shape, f"layer_norm of {x.shape} by {weight.name} {weight.shape}")
    return (Result(x.rows, x.shape),)


@_op("x:f32/q8/bf16 weights* biases* residual?", n_weights=int, biases=tuple, residual=int)
def _linear(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, in] -> one [n, out_j] per weight [out_j, in]: x @ weight_j.T, + bias_j [out_j] if any, + residual if any.

    ``n_weights`` weights share x. inputs = (x, *weights, *biases, residual): ``biases`` has a 0 or 1 per weight, and
    only the biases that are there stand in inputs, in order of weights. ``residual`` 1: the last input [n, out] is
    added last; only with one weight. x is q8 where every weight is block-quantised, bf16 where all are that in
    their file, else f32. Each output number is one sum over k, in order of k.
    """
    n, biases, residual = attrs["n_weights"], attrs["biases"], attrs["residual"]
    assert isinstance(n, int), "linear: n_weights"
    assert isinstance(biases, tuple), "linear: biases"
    expect(len(biases) == n >= 1, "linear: a 0 or 1 for each weight")
    expect(residual in (0, 1) and (residual == 0 or n == 1), "linear: residual is 0, or 1 with a single weight")
    expect(set(biases) <= {0, 1}, "linear: biases holds 0 and 1")
    expect(len(inputs) == 1 + n + sum(biases) + int(residual == 1), "linear: count of inputs")
    x, weights = inputs[0], inputs[1 : 1 + n]
    with_bias = [weight for weight, has in zip(weights, biases, strict=True) if has]
    for weight in weights:
        fits = len(x.shape) == 1 and weight.shape[1:] == x.shape
        expect(fits, f"linear of {x.shape} by {weight.name} {weight.shape}")
    for weight, bias in zip(with_bias, inputs[1 + n : 1 + n + len(with_bias)], strict=True):
        expect(bias.shape == weight.shape[:1], f"bias {bias.name} {bias.shape} for {weight.name} {weight.shape}")
    results = tuple(Result(x.rows, weight.shape[:1]) for weight in weights)
    if residual:
        expect((inputs[-1].rows, inputs[-1].shape) == results[0][:2], f"residual {inputs[-1].shape} onto {results[0]}")
    return results


@_op("x:f32/q8/bf16 weight", n_heads=int, first=int, n_rows=int)
def _head_linear(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, n_heads * in] -> [n, n_heads, n_rows]: the numbers of each head times a matrix of its own.

    weight is [n_heads * rows, in]; head h has rows h * rows + ``first`` on, ``n_rows`` of them. x is rounded
    as for ``linear``. Each output number is one sum over in, in order, with the bits of ``linear``.
    """
    (x, weight), n_heads, first, n_rows = inputs, attrs["n_heads"], attrs["first"], attrs["n_rows"]
    assert isinstance(n_heads, int), "head_linear: n_heads"
    assert isinstance(first, int), "head_linear: first"
    assert isinstance(n_rows, int), "head_linear: n_rows"
    expect(n_heads > 0 and n_rows > 0 and first >= 0, "head_linear: heads and rows")
    fits = len(weight.shape) == 2 and x.shape == (n_heads * weight.shape[1],) and weight.shape[0] % n_heads == 0
    expect(fits, f"head_linear of {x.shape} by {weight.name} {weight.shape} in {n_heads} heads")
    rows = weight.shape[0] // n_heads
    expect(first + n_rows <= rows, f"head_linear: rows {first} to {first + n_rows} of {rows}")
    whole = all(number % PANEL_ROWS == 0 for number in (rows, first, n_rows))
    expect(whole, f"head_linear: {rows}, {first} and {n_rows} are multiples of {PANEL_ROWS}")
    return (Result(x.rows, (n_heads, n_rows)),)


@_op("positions:i32 factors?", inv_freq=tuple, scale=float)
def _rope_angles(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """i32 [n] -> [n, dims]: dims/2 cosines, then dims/2 sines, each times ``scale``, of the rotary angles.

    angle[j] = float32(position) * float32(inv_freq[j]) in float32; with the weight ``factors`` [dims/2] (Llama 3.1's
    rope_freqs) the frequency is float32(inv_freq[j]) / factors[j], in float32, first. dims = 2 * len(inv_freq).
    ``scale`` is YaRN's magnitude, else 1.
    """
    positions, inv_freq = inputs[0], attrs["inv_freq"]
    assert isinstance(inv_freq, tuple)
    expect(len(inputs) <= 2 and len(inv_freq) > 0, "rope_angles takes positions, factors?")
    expect(all(math.isfinite(f) for f in inv_freq), "rope_angles: inverse frequencies are finite")
    expect(all(factors.shape == (len(inv_freq),) for factors in inputs[1:]), "rope_angles: one factor per frequency")
    return (Result(positions.rows, (2 * len(inv_freq),)),)


@_op("x angles", pairing=str)
def _rope(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, heads, head_dim] -> same: rotates the first dims numbers of each head by angles [n, dims] of rope_angles.

    A pair (a, b) with (cos, sin) of index j becomes (a cos - b sin, b cos + a sin). ``pairing`` "half": number j with
    j + dims/2 (NeoX); "pairs": 2j with 2j + 1. Numbers from dims on stay.
    """
    x, angles = inputs
    expect(attrs["pairing"] in ("half", "pairs"), f"rope pairing {attrs['pairing']!r}")
    expect(len(x.shape) == 2 and len(angles.shape) == 1 and angles.shape[0] <= x.shape[1], f"rope of {x.shape}")
    expect(x.rows == angles.rows, "rope: rows differ")
    return (Result(x.rows, x.shape),)


@_op("k v", layer=int)
def _kv_store(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, n_kv_heads, head_dim] twice -> nothing: writes this step's keys and values into the cache of ``layer``.

    Row r goes to position positions[r] of its sequence. Stands before the attention of the same layer.
    """
    k, v = inputs
    expect(len(k.shape) == 2 and k.rows == "tokens", "kv_store takes [n, n_kv_heads, head_dim] of every token")
    _same(k, v)
    return ()


@_op("q sinks?", layer=int, n_kv_heads=int, head_dim=int, scale=float, window=int, softcap=float)
def _attention(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, heads, head_dim] -> [n, heads * head_dim]: causal attention over the cache of ``layer``.

    Query head h reads key head h // (heads / n_kv_heads). Scores are q·k * ``scale``; with ``softcap`` > 0 they become
    softcap * tanh(score / softcap); softmax over the keys of the same sequence with position <= p and, with
    ``window`` w > 0, position > p - w. This step's keys are among them. With the weight ``sinks`` [heads] each head's
    softmax has one more score, that number as it stands, whose weight goes nowhere (gpt-oss).
    """
    q = inputs[0]
    expect(len(q.shape) == 2 and q.shape[1] == attrs["head_dim"] and q.rows == "tokens", f"attention of {q.shape}")
    n_kv_heads = attrs["n_kv_heads"]
    expect(isinstance(n_kv_heads, int) and n_kv_heads > 0 and q.shape[0] % n_kv_heads == 0, "heads per key head")
    expect(all(sinks.shape == q.shape[:1] for sinks in inputs[1:]), "attention: a sink for each head")
    return (Result(q.rows, (q.shape[0] * q.shape[1],)),)


@_op("q k v", scale=float)
def _encoder_attention(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, heads, d], [n, n_kv_heads, d] twice -> [n, heads * d]: attention of each token over all of its sequence.

    Also over those behind it: the step has the sequence whole, from position 0, and nothing is kept for the next. Heads
    and scores as in ``attention``: softmax of q·k * ``scale``.
    """
    q, k, v = inputs
    fits = len(q.shape) == len(k.shape) == 2 and q.shape[1] == k.shape[1] and q.shape[0] % k.shape[0] == 0
    expect(fits and q.rows == _same(k, v).rows == "tokens", f"encoder_attention of {q.shape} and {k.shape}")
    return (Result(q.rows, (q.shape[0] * q.shape[1],)),)


@_op("latent rope", layer=int)
def _latent_store(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, d], [n, r] -> nothing: writes this step's latents, and their keys' rotated part, into the cache of ``layer``.

    Row r goes to position positions[r] of its sequence. Stands before the latent_attention of the same layer.
    """
    latent, rotated = inputs
    fits = len(latent.shape) == len(rotated.shape) == 1 and latent.rows == rotated.rows == "tokens"
    expect(fits, f"latent_store of {latent.shape} and {rotated.shape}")
    return ()


@_op("q q_rope", layer=int, scale=float)
def _latent_attention(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, heads, d], [n, heads, r] -> [n, heads, d]: causal attention over the latents in the cache of ``layer``.

    The row [latent, rope] of a token is the key of every head and its latent the value: scores are
    (q·latent + q_rope·rope) * ``scale``; softmax over the same sequence's positions <= p, this step's among them; the
    result is the sum of latents so weighted.
    """
    q, q_rope = inputs
    fits = len(q.shape) == len(q_rope.shape) == 2 and q.shape[0] == q_rope.shape[0]
    expect(fits and q.rows == q_rope.rows != "outputs", f"latent_attention of {q.shape} and {q_rope.shape}")
    return (Result(q.rows, q.shape),)


@_op("q q_rope absorbed keys values", layer=int, scale=float, n_heads=int, first=int, keys_dtype=str, values_dtype=str)
def _expanded_attention(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, heads, k], [n, heads, r], generated rows [g, heads, v] -> [n, heads, v]: attention of prompts over latents.

    Rows of sequences at their prompt: each token's latent in the cache of ``layer`` is multiplied by the head's rows of
    ``keys`` and ``values`` [heads * rows, d], of which keys has k from 0 on and values v from ``first`` on. With the
    rotated part, which all heads share, that is the head's key and value: scores are (q·key + q_rope·rope) * ``scale``;
    softmax over the same sequence's positions <= p. ``keys_dtype`` and ``values_dtype``: what the latent is rounded
    to before, "q8", "bf16" or "f32" for nothing. The generated rows of the result are those of ``absorbed``.
    """
    (q, q_rope, absorbed, keys, values), n_heads, first = inputs, attrs["n_heads"], attrs["first"]
    assert isinstance(n_heads, int), "expanded_attention: n_heads"
    assert isinstance(first, int), "expanded_attention: first"
    fits = all(len(x.shape) == 2 and x.shape[0] == n_heads for x in (q, q_rope, absorbed))
    fits = fits and q.rows == q_rope.rows == "tokens" and absorbed.rows == "generated"
    expect(fits, f"expanded_attention of {q.shape}, {q_rope.shape} and {absorbed.shape}")
    for weight, at, n in ((keys, 0, q.shape[1]), (values, first, absorbed.shape[1])):
        rows = weight.shape[0] // n_heads
        fits = len(weight.shape) == 2 and weight.shape[0] % n_heads == 0 and at >= 0 and at + n <= rows
        expect(fits, f"expanded_attention: rows {at} to {at + n} of each head's of {weight.name} {weight.shape}")
        whole = all(number % PANEL_ROWS == 0 for number in (rows, at, n))
        expect(whole, f"expanded_attention: {rows}, {at} and {n} are multiples of {PANEL_ROWS}")
    return (Result(q.rows, absorbed.shape),)


@_op("x", sizes=tuple)
def _split(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, d] -> one [n, …, size] per size: the row, or each head of it, cut in pieces; the sizes add up to d."""
    (x,), sizes = inputs, attrs["sizes"]
    assert isinstance(sizes, tuple), "split: sizes"
    whole = all(isinstance(size, int) and size > 0 for size in sizes) and sum(sizes) == x.shape[-1]
    expect(whole, f"split of {x.shape} into {sizes}")
    return tuple(Result(x.rows, (*x.shape[:-1], int(size))) for size in sizes)


@_op("a b")
def _join(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, a], [n, b] -> [n, a + b]: each row of the first, and behind it that of the second."""
    a, b = inputs
    expect(len(a.shape) == len(b.shape) == 1 and a.rows == b.rows, f"join of {a.shape} and {b.shape}")
    return (Result(a.rows, (a.shape[0] + b.shape[0],)),)


@_op("x")
def _hidden_store(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, d] -> nothing: keeps the rows for the drafter, row r of this step in place r, until a next hidden_store."""
    expect(len(inputs[0].shape) == 1, f"hidden_store of {inputs[0].shape}")
    return ()


@_op("sources:i32", width=int)
def _hidden_load(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """I32 [n] -> [n, width]: for row r what the last hidden_store kept in place sources[r]. Only in a drafter."""
    (sources,), width = inputs, attrs["width"]
    expect(isinstance(width, int) and width > 0 and sources.shape == (), "hidden_load takes numbers of rows")
    return (Result(sources.rows, (int(width),)),)  # type: ignore[arg-type]


@_op("a b")
def _add(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, …] -> same: a + b."""
    return (_same(*inputs),)


@_op("x", factor=float)
def _scale(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …] -> same: x * float32(factor)."""
    return (Result(inputs[0].rows, inputs[0].shape),)


@_op("x", cap=float)
def _softcap(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …] -> same: cap * tanh(x / cap); cap > 0."""
    cap = attrs["cap"]
    expect(isinstance(cap, float) and cap > 0, f"softcap {cap}")
    return (Result(inputs[0].rows, inputs[0].shape),)


@_op("gate up")
def _swiglu(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, …] -> same: silu(gate) * up, silu(x) = x / (1 + exp(-x))."""
    return (_same(*inputs),)


@_op("gate up")
def _geglu(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, …] -> same: gelu(gate) * up, gelu(x) = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x³)))."""
    return (_same(*inputs),)


@_op("x")
def _gelu(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …] -> same: x/2 * (1 + erf(x / sqrt(2))), GELU without an approximation (BERT)."""
    return (Result(inputs[0].rows, inputs[0].shape),)


@_op("gate up", alpha=float, limit=float)
def _clamped_swiglu(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, …] -> same: g sigmoid(alpha g) (u + 1), g = min(gate, limit), u = up clipped to ±limit (gpt-oss)."""
    limit = attrs["limit"]
    expect(isinstance(limit, float) and limit > 0, f"clamped_swiglu: limit {limit}")
    return (_same(*inputs),)


@_op("x", eps=float)
def _l2_norm(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, d] -> same: x / sqrt(sum(x²) + eps), over the last dimension (of each head)."""
    return (Result(inputs[0].rows, inputs[0].shape),)


@_op("x")
def _sigmoid(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …] -> same: 1 / (1 + exp(-x))."""
    return (Result(inputs[0].rows, inputs[0].shape),)


@_op("gate x")
def _sigmoid_gate(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, d] -> same: sigmoid(gate) * x."""
    return (_same(*inputs),)


@_op("x factor bias")
def _decay(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, d] -> same: exp(factor * softplus(x + bias)), softplus(x) = log(1 + exp(x)); factor, bias [d].

    What a state keeps of itself in one step; the factors are negative, so it is between 0 and 1.
    """
    x, factor, bias = inputs
    expect(factor.shape == bias.shape == x.shape, f"decay of {x.shape} by {factor.shape} and {bias.shape}")
    return (Result(x.rows, x.shape),)


@_op("x weight", state=int)
def _short_conv(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, d] -> same: silu of a causal convolution over the tokens of a sequence, each number by itself.

    With weight [d, taps]: y[t] = sum over j of weight[:, j] * x[t - taps + 1 + j], added in order of j; x is 0 before
    the first token. Keeps x of the last taps - 1 tokens, [taps - 1, d], in the recurrence ``state``.
    """
    x, weight = inputs
    fits = len(weight.shape) == 2 and weight.shape[0] == x.shape[0] and 2 <= weight.shape[1] <= MOST_TAPS
    expect(fits and len(x.shape) == 1 and x.rows == "tokens", f"short_conv of {x.shape} by {weight.shape}")
    return (Result(x.rows, x.shape),)


@_op("q k v decay beta", state=int, tiled=int, scale=float)
def _delta_net(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, n_k_heads, k_dim] (q, k), [n, n_v_heads, v_dim] (v), [n, n_v_heads] (decay, beta) -> [n, n_v_heads, v_dim].

    The gated delta rule (Yang, Kautz and Hatamizadeh 2024). Each value head has a matrix S [k_dim, v_dim], kept in the
    recurrence ``state``; token by token, in order of position:
    S = decay S; S = S + k (beta (v - S.T k)).T; result = ``scale`` S.T q.
    Value head h has q and k of head h // (n_v_heads / n_k_heads), or with ``tiled`` 1 of head h % n_k_heads.
    """
    q, k, v, decay, beta = inputs
    expect(len(q.shape) == 2 and len(v.shape) == 2 and v.shape[0] % q.shape[0] == 0, f"delta_net: {q.shape}, {v.shape}")
    expect(_same(q, k).rows == v.rows == "tokens", "delta_net takes rows of tokens")
    expect(_same(decay, beta).shape == v.shape[:1] and decay.rows == v.rows, f"delta_net: decay {decay.shape}")
    expect(attrs["tiled"] in (0, 1), "delta_net: tiled is 0 or 1")
    return (Result(v.rows, v.shape),)


def recurrence_shape(instruction: Instruction) -> tuple[int, ...] | None:
    """What the op declares to keep of each sequence, None for ops that keep nothing there."""
    shapes = [value.shape for value in instruction.inputs]
    if instruction.op == "short_conv":
        return (shapes[1][1] - 1, shapes[1][0])
    if instruction.op == "delta_net":
        return (shapes[2][0], shapes[0][1], shapes[2][1])
    return None


# ---- mixtures of experts


@_op("logits bias?", k=int, score=str, normalise=int, scale=float, n_groups=int, groups_used=int, group_score=str)
def _route(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, E] -> i32 [n, k], [n, k]: for every row the ``k`` experts it goes to, and what their results count.

    ``score`` of all experts: "softmax" over them, "sigmoid" of each, "softmax_selected": the logit itself. The best k
    by score + bias [E], listed best first, ties to the lower number; the bias is for choosing only (DeepSeek V3). With
    ``n_groups`` > 1 experts stand in that many runs of equal length and only the ``groups_used`` best of these count:
    by ``group_score`` "max", the best score in it (DeepSeek V2), or "top2", the sum of the two best (V3); scores with
    bias here too. The weights are the scores of the chosen, without bias; with "softmax_selected" the softmax over the
    chosen logits (gpt-oss). ``normalise`` 1: each is divided by 1e-20 plus their sum, added in the order of the list.
    Then times ``scale``.
    """
    logits, k, n_groups, used = inputs[0], attrs["k"], attrs["n_groups"], attrs["groups_used"]
    assert isinstance(k, int), "route: k"
    assert isinstance(n_groups, int), "route: n_groups"
    assert isinstance(used, int), "route: groups_used"
    expect(len(logits.shape) == 1 and 1 <= k <= logits.shape[0], f"route of {logits.shape} to {k} experts")
    expect(attrs["score"] in ("softmax", "sigmoid", "softmax_selected"), f"route by score {attrs['score']!r}")
    expect(attrs["group_score"] in ("max", "top2") and attrs["normalise"] in (0, 1), "route: group_score or normalise")
    expect(all(bias.shape == logits.shape for bias in inputs[1:]), "route: a bias for every expert")
    expect(1 <= used <= n_groups and logits.shape[0] % n_groups == 0, f"route: {used} of {n_groups} groups")
    size = logits.shape[0] // n_groups
    expect(k <= used * size and (n_groups == 1 or attrs["group_score"] == "max" or size >= 2), "route: small groups")
    return Result(logits.rows, (k,), "i32"), Result(logits.rows, (k,))


@_op("x:f32/q8/bf16 experts:i32 weights* biases*", n_weights=int, biases=tuple)
def _expert_linear(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, in] or [n, k, in], i32 [n, k] -> one [n, k, out_j] per weight [E, out_j, in]: linear with chosen matrices.

    Result [r, s] is x[r] (or x[r, s]) @ weight_j[e].T + bias_j[e], e = experts[r, s]; biases are [E, out_j]. Attrs and
    the order of inputs as in ``linear``. Bits as ``linear`` with that expert's matrix alone.
    """
    n, biases = attrs["n_weights"], attrs["biases"]
    assert isinstance(n, int), "expert_linear: n_weights"
    assert isinstance(biases, tuple), "expert_linear: biases"
    expect(len(biases) == n >= 1 and set(biases) <= {0, 1}, "expert_linear: a 0 or 1 for each weight")
    expect(len(inputs) == 2 + n + sum(biases), "expert_linear: count of inputs")
    x, experts, weights = inputs[0], inputs[1], inputs[2 : 2 + n]
    with_bias = [weight for weight, has in zip(weights, biases, strict=True) if has]
    expect(len(experts.shape) == 1 and experts.rows == x.rows, "expert_linear: experts are [n, k]")
    expect(x.shape[:-1] in ((), experts.shape), f"expert_linear of {x.shape} by experts {experts.shape}")
    for weight in weights:
        fits = len(weight.shape) == 3 and weight.shape[2] == x.shape[-1] and weight.shape[0] == weights[0].shape[0]
        expect(fits, f"expert_linear of {x.shape} by {weight.name} {weight.shape}")
    for weight, bias in zip(with_bias, inputs[2 + n :], strict=True):
        expect(bias.shape == weight.shape[:2], f"bias {bias.name} {bias.shape} for {weight.name} {weight.shape}")
    return tuple(Result(x.rows, (*experts.shape, weight.shape[1])) for weight in weights)


@_op("y weights residual?")
def _expert_sum(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, k, d], [n, k] -> [n, d]: sum over j of weights[j] * y[j], + residual [n, d] if any.

    Added in order of j by fused multiply-add, the residual last.
    """
    y, weights = inputs[:2]
    fits = len(y.shape) == 2 and weights.shape == y.shape[:1] and weights.rows == y.rows
    expect(fits, f"expert_sum of {y.shape} by {weights.shape}")
    result = Result(y.rows, y.shape[1:])
    expect(all((r.rows, r.shape) == result[:2] for r in inputs[2:]), f"expert_sum: residual onto {result}")
    return (result,)


@_op("x")
def _select_outputs(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Rows "tokens" -> rows "outputs": keeps the rows whose logits the step's batch asks for, in order."""
    expect(inputs[0].rows == "tokens", "select_outputs takes rows of tokens")
    return (Result("outputs", inputs[0].shape),)


@_op("x")
def _select_generated(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Rows "tokens" -> rows "generated": keeps those behind their sequence's prompt, which come first."""
    expect(inputs[0].rows == "tokens", "select_generated takes rows of tokens")
    return (Result("generated", inputs[0].shape),)


@_op("x")
def _sequence_mean(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Rows "tokens" -> rows "outputs": for each row the batch asks for, the mean over all rows of its sequence.

    Added in order of position. The step has the sequence whole.
    """
    expect(inputs[0].rows == "tokens", "sequence_mean takes rows of tokens")
    return (Result("outputs", inputs[0].shape),)


# ---- what passes add; model files never write these


@_op("x")
def _quantize(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, k] -> q8 of the same shape: rounds each 32 values to int8 with one float32 scale. k is a multiple of 32.

    In float32: m = max|x|; inv = 127 / m (0 when m is 0); q = round-half-even(x * inv), clipped to ±127; scale =
    m / 127. The value meant is q * scale.
    """
    return _rounded(Result(inputs[0].rows, inputs[0].shape), "q8")


@_op("x")
def _round_bf16(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, k] -> bf16 of the same shape: rounds to bfloat16, to nearest, ties to even; below 2^-50 to zero."""
    return _rounded(Result(inputs[0].rows, inputs[0].shape), "bf16")


def _then_round(op: str, dtype: Dtype) -> None:
    """Register the op whose result is rounded at once: ``rms_norm_q8`` is quantize(rms_norm(x, weight))."""
    plain = OPS[op]

    def rule(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
        return _rounded(plain.rule(inputs, attrs)[0], dtype)

    rule.__doc__ = f"[n, …, k] -> {dtype} of the same shape: {ROUNDINGS[dtype]}({op}(…))."
    inputs = tuple(name for name in plain.inputs if not name.endswith("?"))
    OPS[f"{op}_{dtype}"] = Op(f"{op}_{dtype}", inputs, plain.dtypes[: len(inputs)], plain.attrs, rule)


for _name in ("rms_norm", "swiglu", "clamped_swiglu", "gelu", "sigmoid_gate", "geglu"):
    for _dtype in ROUNDINGS:
        _then_round(_name, _dtype)


@_op("k v q angles norms*", layer=int, pairing=str, eps=float)
def _rope_store(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """K, v [n, n_kv_heads, d], q [n, heads, d] -> [n, heads, d]: rope(q); and kv_store(rope(k), v).

    With two ``norms`` [d] k and q are rms_norm(k, norms[0]) and rms_norm(q, norms[1]) first; without, eps is 0.
    """
    k, v, q, angles, *norms = inputs
    _kv_store((k, v), {})
    expect(_rope((k, angles), attrs)[0].rows == q.rows and q.shape[1:] == k.shape[1:], "rope_store: q and k differ")
    expect(len(norms) in (0, 2) and all(norm.shape == k.shape[1:] for norm in norms), "rope_store: norms of heads")
    return _rope((q, angles), attrs)


@_op("logits weight bias?", k=int, score=str, normalise=int, scale=float, n_groups=int, groups_used=int,
     group_score=str, prefer=float, drop=float)
def _route_lossy(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, E] -> i32 [n, k], [n, k]: route while all experts are in memory, else what needs less of the disk.

    ``weight`` is one of the experts'. It changes results, and only where every sequence has one row: experts that are
    in memory or on the way are chosen as if their score (plus bias) were 1 + ``prefer`` times what it is (more by log(1
    + ``prefer``) with "softmax_selected"); their weights stay what they are. Of the chosen, those that are neither and
    weigh less than ``drop`` times the mean are left out: -1 stands for them, with weight 0, and the results of an
    expert_linear for it are 0. With ``normalise`` the other weights grow to the same sum.
    """
    logits, weight, *bias = inputs
    expect(len(weight.shape) == 3 and weight.shape[0] == logits.shape[0], "route_lossy: a weight of these experts")
    prefer, drop = attrs["prefer"], attrs["drop"]
    assert isinstance(prefer, float), "route_lossy: prefer"
    assert isinstance(drop, float), "route_lossy: drop"
    expect(prefer >= 0 and 0 <= drop <= 1, f"route_lossy: prefer {prefer}, drop {drop}")
    return _route((logits, *bias), attrs)


@_op("experts:i32 weights*")
def _expert_read(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """I32 [n, k] -> nothing: the experts that this step takes of weights [E, out, in] are needed in memory from now on.

    For weights that stay in the file until they are needed. They are all that read ``experts``; the expert_linears that
    follow wait for what has not arrived yet.
    """
    _check_named(inputs)
    return ()


@_op("experts:i32 weights*")
def _expert_predict(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """I32 [n, k] -> nothing: a guess at what the next expert_read will name, which may begin to read ahead.

    Right or wrong, it changes no number: it can be left out.
    """
    _check_named(inputs)
    return ()


@_op("experts:i32", router=int)
def _expert_trace(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """I32 [n, k] -> nothing: notes which experts each row uses; ``router`` counts layers of experts from 0."""
    expect(len(inputs[0].shape) == 1, "experts are [n, k]")
    return ()


def _check_named(inputs: tuple[Value, ...]) -> None:
    experts, *weights = inputs
    expect(len(experts.shape) == 1 and len(weights) > 0, "experts are [n, k], of at least one weight")
    for weight in weights:
        expect(len(weight.shape) == 3 and weight.shape[0] == weights[0].shape[0], f"{weight.name}: {weight.shape}")
