"""Products, norms, activations: ops that look at nothing but their rows, and those that choose or keep rows."""

from __future__ import annotations

from collections.abc import Mapping

from tenth.program.ops.table import PANEL_ROWS, Result, expect, op, same
from tenth.program.values import Attr, Value


@op("tokens:i32 weight", scale=float)
def _embed(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """i32 [n] -> [n, dim]: row ``token`` of weight [vocab, dim], decoded to float32, then times ``scale`` (float32).

    For learned positions, row ``position`` of weight [at least as many as the context has, dim].
    """
    tokens, weight = inputs
    expect(len(weight.shape) == 2, "embed takes token numbers or positions, and a matrix")
    return (Result(tokens.rows, weight.shape[1:]),)


@op("tokens:i32 weight", separator=int)
def _embed_segments(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """i32 [n] -> [n, dim]: row ``segment`` of weight [segments, dim], decoded to float32 (BERT's token types).

    The segment counts the tokens ``separator`` that stand before in the same sequence, up to the last row of weight;
    with -1 it is 0. The step has the sequence whole.
    """
    tokens, weight = inputs
    expect(len(weight.shape) == 2 and tokens.rows == "tokens", "embed_segments takes token numbers and a matrix")
    return (Result(tokens.rows, weight.shape[1:]),)


@op("x weight residual?", eps=float)
def _rms_norm(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, d] -> same: x / sqrt(mean(x²) + eps) * weight [d], over the last dimension (of each head).

    + residual, of the shape of x, if any.
    """
    x, weight, *residual = inputs
    for other in residual:
        same(x, other)
    expect(weight.shape == x.shape[-1:], f"rms_norm of {x.shape} by {weight.name} {weight.shape}")
    return (Result(x.rows, x.shape),)


@op("x weight bias", eps=float)
def _layer_norm(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, d] -> same: (x - mean(x)) / sqrt(mean((x - mean(x))²) + eps) * weight [d] + bias [d]."""
    x, weight, bias = inputs
    expect(weight.shape == bias.shape == x.shape, f"layer_norm of {x.shape} by {weight.name} {weight.shape}")
    return (Result(x.rows, x.shape),)


@op("x", eps=float)
def _l2_norm(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, d] -> same: x / sqrt(sum(x²) + eps), over the last dimension (of each head)."""
    return (Result(inputs[0].rows, inputs[0].shape),)


@op("x:f32/q8/bf16 weights* biases* residual?", n_weights=int, biases=tuple, residual=int)
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


@op("x:f32/q8/bf16 weight", n_heads=int, first=int, n_rows=int)
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


@op("x", sizes=tuple)
def _split(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, d] -> one [n, …, size] per size: the row, or each head of it, cut in pieces; the sizes add up to d."""
    (x,), sizes = inputs, attrs["sizes"]
    assert isinstance(sizes, tuple), "split: sizes"
    whole = all(isinstance(size, int) and size > 0 for size in sizes) and sum(sizes) == x.shape[-1]
    expect(whole, f"split of {x.shape} into {sizes}")
    return tuple(Result(x.rows, (*x.shape[:-1], int(size))) for size in sizes)


@op("a b")
def _join(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, a], [n, b] -> [n, a + b]: each row of the first, and behind it that of the second."""
    a, b = inputs
    expect(len(a.shape) == len(b.shape) == 1 and a.rows == b.rows, f"join of {a.shape} and {b.shape}")
    return (Result(a.rows, (a.shape[0] + b.shape[0],)),)


@op("a b")
def _add(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, …] -> same: a + b."""
    return (same(*inputs),)


@op("x", factor=float)
def _scale(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …] -> same: x * float32(factor)."""
    return (Result(inputs[0].rows, inputs[0].shape),)


@op("x", cap=float)
def _softcap(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …] -> same: cap * tanh(x / cap); cap > 0."""
    cap = attrs["cap"]
    expect(isinstance(cap, float) and cap > 0, f"softcap {cap}")
    return (Result(inputs[0].rows, inputs[0].shape),)


@op("gate up")
def _swiglu(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, …] -> same: silu(gate) * up, silu(x) = x / (1 + exp(-x))."""
    return (same(*inputs),)


@op("gate up")
def _geglu(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, …] -> same: gelu(gate) * up, gelu(x) = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x³)))."""
    return (same(*inputs),)


@op("x")
def _gelu(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …] -> same: x/2 * (1 + erf(x / sqrt(2))), GELU without an approximation (BERT)."""
    return (Result(inputs[0].rows, inputs[0].shape),)


@op("gate up", alpha=float, limit=float)
def _clamped_swiglu(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, …] -> same: g sigmoid(alpha g) (u + 1), g = min(gate, limit), u = up clipped to ±limit (gpt-oss)."""
    limit = attrs["limit"]
    expect(isinstance(limit, float) and limit > 0, f"clamped_swiglu: limit {limit}")
    return (same(*inputs),)


@op("x")
def _sigmoid(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …] -> same: 1 / (1 + exp(-x))."""
    return (Result(inputs[0].rows, inputs[0].shape),)


@op("gate x")
def _sigmoid_gate(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Twice [n, d] -> same: sigmoid(gate) * x."""
    return (same(*inputs),)


@op("x")
def _hidden_store(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, d] -> nothing: keeps the rows for the drafter, row r of this step in place r, until a next hidden_store."""
    expect(len(inputs[0].shape) == 1, f"hidden_store of {inputs[0].shape}")
    return ()


@op("sources:i32", width=int)
def _hidden_load(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """I32 [n] -> [n, width]: for row r what the last hidden_store kept in place sources[r]. Only in a drafter."""
    (sources,), width = inputs, attrs["width"]
    expect(isinstance(width, int) and width > 0 and sources.shape == (), "hidden_load takes numbers of rows")
    return (Result(sources.rows, (int(width),)),)  # type: ignore[arg-type]


@op("x")
def _select_outputs(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Rows "tokens" -> rows "outputs": keeps the rows whose logits the step's batch asks for, in order."""
    expect(inputs[0].rows == "tokens", "select_outputs takes rows of tokens")
    return (Result("outputs", inputs[0].shape),)


@op("x")
def _select_generated(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Rows "tokens" -> rows "generated": keeps those behind their sequence's prompt, which come first."""
    expect(inputs[0].rows == "tokens", "select_generated takes rows of tokens")
    return (Result("generated", inputs[0].shape),)


@op("x")
def _sequence_mean(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """Rows "tokens" -> rows "outputs": for each row the batch asks for, the mean over all rows of its sequence.

    Added in order of position. The step has the sequence whole.
    """
    expect(inputs[0].rows == "tokens", "sequence_mean takes rows of tokens")
    return (Result("outputs", inputs[0].shape),)
