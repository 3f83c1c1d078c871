"""The op table: every op a program may contain, once. The docstring of each row is its specification.

A row's function is the shape rule: from inputs and attrs to the (rows, shape, dtype) of each output; it raises
AssertionError where they do not fit, because a wrong program is our bug, never the user's. ``reference.py`` gives each
op its meaning in NumPy under the same name, the native plan gives it speed. All arithmetic is float32 unless said.

Shapes in the docstrings are per row with the row count n in front. Input names ending in "*" stand for any number of
values, in "?" for none or one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tenth.program.values import Q8_BLOCK, Attr, Dtype, Rows, Value

PANEL_ROWS = 16  # rows of a weight that lie interleaved (native/kernels/table.h): a head begins with a new panel


class Result(NamedTuple):
    """What the shape rule says of one output."""

    rows: Rows | None
    shape: tuple[int, ...]
    dtype: Dtype = "f32"


Rule = Callable[[tuple[Value, ...], Mapping[str, Attr]], tuple[Result, ...]]


@dataclass(frozen=True)
class Op:
    """One row: name, names of inputs, types of attrs (all of them present in every instruction), shape rule."""

    name: str
    inputs: tuple[str, ...]
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
        OPS[name] = Op(name, tuple(inputs.split()), attrs, rule)
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


def _q8(result: Result) -> tuple[Result]:
    expect(len(result.shape) == 1 and result.shape[0] % Q8_BLOCK == 0, f"q8 rows are [k], k a multiple of 32: {result}")
    return (result._replace(dtype="q8"),)


@_op("tokens weight", scale=float)
def _embed(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """i32 [n] -> [n, dim]: row ``token`` of weight [vocab, dim], decoded to float32, then times ``scale`` (float32)."""
    tokens, weight = inputs
    expect(tokens.dtype == "i32" and len(weight.shape) == 2, "embed takes token numbers and a matrix")
    return (Result(tokens.rows, weight.shape[1:]),)


@_op("x weight", eps=float)
def _rms_norm(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, d] -> same: x / sqrt(mean(x²) + eps) * weight [d], over the last dimension (of each head)."""
    x, weight = inputs
    expect(weight.shape == x.shape[-1:], f"rms_norm of {x.shape} by {weight.name} {weight.shape}")
    return (Result(x.rows, x.shape),)


@_op("x weights* biases* residual?", n_weights=int, biases=tuple, residual=int)
def _linear(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, in] -> one [n, out_j] per weight [out_j, in]: x @ weight_j.T, + bias_j [out_j] if any, + residual if any.

    ``n_weights`` weights share x. inputs = (x, *weights, *biases, residual): ``biases`` has a 0 or 1 per weight, and
    only the biases that are there stand in inputs, in order of weights. ``residual`` 1: the last input [n, out] is
    added last; only with one weight. x is q8 (then every weight is block-quantised) or f32. Each output number is one
    sum over k, in order of k.
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


@_op("x weight", n_heads=int, first=int, n_rows=int)
def _head_linear(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, n_heads * in] -> [n, n_heads, n_rows]: the numbers of each head times a matrix of its own.

    weight is [n_heads * rows, in]; head h has rows h * rows + ``first`` on, ``n_rows`` of them. x is q8 (then the
    weight is block-quantised) or f32. Each output number is one sum over in, in order, with the bits of ``linear``.
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


@_op("positions factors?", inv_freq=tuple, scale=float)
def _rope_angles(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """i32 [n] -> [n, dims]: dims/2 cosines, then dims/2 sines, each times ``scale``, of the rotary angles.

    angle[j] = float32(position) * float32(inv_freq[j]) in float32; with the weight ``factors`` [dims/2] (Llama 3.1's
    rope_freqs) the frequency is float32(inv_freq[j]) / factors[j], in float32, first. dims = 2 * len(inv_freq).
    ``scale`` is YaRN's magnitude, else 1.
    """
    positions, inv_freq = inputs[0], attrs["inv_freq"]
    assert isinstance(inv_freq, tuple)
    expect(positions.dtype == "i32" and len(inputs) <= 2 and len(inv_freq) > 0, "rope_angles takes positions, factors?")
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


@_op("q", layer=int, n_kv_heads=int, head_dim=int, scale=float, window=int, softcap=float)
def _attention(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, heads, head_dim] -> [n, heads * head_dim]: causal attention over the cache of ``layer``.

    Query head h reads key head h // (heads / n_kv_heads). Scores are q·k * ``scale``; with ``softcap`` > 0 they become
    softcap * tanh(score / softcap); softmax over the keys of the same sequence with position <= p and, with
    ``window`` w > 0, position > p - w. This step's keys are among them.
    """
    (q,) = inputs
    expect(len(q.shape) == 2 and q.shape[1] == attrs["head_dim"] and q.rows == "tokens", f"attention of {q.shape}")
    n_kv_heads = attrs["n_kv_heads"]
    expect(isinstance(n_kv_heads, int) and n_kv_heads > 0 and q.shape[0] % n_kv_heads == 0, "heads per key head")
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
    expect(fits and q.rows == q_rope.rows == "tokens", f"latent_attention of {q.shape} and {q_rope.shape}")
    return (Result(q.rows, q.shape),)


@_op("x", sizes=tuple)
def _split(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, d] -> one [n, …, size] per size: the row, or each head of it, cut in pieces; the sizes add up to d."""
    (x,), sizes = inputs, attrs["sizes"]
    assert isinstance(sizes, tuple), "split: sizes"
    whole = all(isinstance(size, int) and size > 0 for size in sizes) and sum(sizes) == x.shape[-1]
    expect(whole, f"split of {x.shape} into {sizes}")
    return tuple(Result(x.rows, (*x.shape[:-1], int(size))) for size in sizes)


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
    """Twice [n, d] -> same: silu(gate) * up, silu(x) = x / (1 + exp(-x))."""
    return (_same(*inputs),)


@_op("gate up")
def _geglu(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, d] -> same: gelu(gate) * up, gelu(x) = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x³)))."""
    return (_same(*inputs),)


@_op("x")
def _select_outputs(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Rows "tokens" -> rows "outputs": keeps the rows whose logits the step's batch asks for, in order."""
    expect(inputs[0].rows == "tokens" and inputs[0].dtype == "f32", "select_outputs takes rows of tokens")
    return (Result("outputs", inputs[0].shape),)


# ---- what passes add; model files never write these


@_op("x")
def _quantize(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, k] -> q8 [n, k]: rounds each 32 consecutive values to int8 with one float32 scale. k is a multiple of 32.

    In float32: m = max|x|; inv = 127 / m (0 when m is 0); q = round-half-even(x * inv), clipped to ±127; scale =
    m / 127. The value meant is q * scale.
    """
    return _q8(Result(inputs[0].rows, inputs[0].shape))


@_op("x weight", eps=float)
def _rms_norm_q8(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, k] -> q8 [n, k]: quantize(rms_norm(x, weight))."""
    return _q8(_rms_norm(inputs, attrs)[0])


@_op("gate up")
def _swiglu_q8(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, k] -> q8 [n, k]: quantize(swiglu(gate, up))."""
    return _q8(_same(*inputs))


@_op("gate up")
def _geglu_q8(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, k] -> q8 [n, k]: quantize(geglu(gate, up))."""
    return _q8(_same(*inputs))
