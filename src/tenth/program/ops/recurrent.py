"""Ops that keep a fixed count of numbers of each sequence, and what goes into these."""

from __future__ import annotations

from collections.abc import Mapping

from tenth.program.ops.table import Result, expect, op, same
from tenth.program.values import Attr, Instruction, Value

MOST_TAPS = 16  # of a short_conv; models have 4


@op("x factor bias")
def _decay(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, d] -> same: exp(factor * softplus(x + bias)), softplus(x) = log(1 + exp(x)); factor, bias [d].

    What a state keeps of itself in one step; the factors are negative, so it is between 0 and 1.
    """
    x, factor, bias = inputs
    expect(factor.shape == bias.shape == x.shape, f"decay of {x.shape} by {factor.shape} and {bias.shape}")
    return (Result(x.rows, x.shape),)


@op("x weight", state=int)
def _short_conv(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, d] -> same: silu of a causal convolution over the tokens of a sequence, each number by itself.

    With weight [d, taps]: y[t] = sum over j of weight[:, j] * x[t - taps + 1 + j], added in order of j; x is 0 before
    the first token. Keeps x of the last taps - 1 tokens, [taps - 1, d], in the recurrence ``state``.
    """
    x, weight = inputs
    fits = len(weight.shape) == 2 and weight.shape[0] == x.shape[0] and 2 <= weight.shape[1] <= MOST_TAPS
    expect(fits and len(x.shape) == 1 and x.rows == "tokens", f"short_conv of {x.shape} by {weight.shape}")
    return (Result(x.rows, x.shape),)


@op("q k v decay beta", state=int, tiled=int, scale=float)
def _delta_net(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, n_k_heads, k_dim] (q, k), [n, n_v_heads, v_dim] (v), [n, n_v_heads] (decay, beta) -> [n, n_v_heads, v_dim].

    The gated delta rule (Yang, Kautz and Hatamizadeh 2024). Each value head has a matrix S [k_dim, v_dim], kept in the
    recurrence ``state``; token by token, in order of position:
    S = decay S; S = S + k (beta (v - S.T k)).T; result = ``scale`` S.T q.
    Value head h has q and k of head h // (n_v_heads / n_k_heads), or with ``tiled`` 1 of head h % n_k_heads.
    """
    q, k, v, decay, beta = inputs
    expect(len(q.shape) == 2 and len(v.shape) == 2 and v.shape[0] % q.shape[0] == 0, f"delta_net: {q.shape}, {v.shape}")
    expect(same(q, k).rows == v.rows == "tokens", "delta_net takes rows of tokens")
    expect(same(decay, beta).shape == v.shape[:1] and decay.rows == v.rows, f"delta_net: decay {decay.shape}")
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
