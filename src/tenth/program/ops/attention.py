"""Positions, what is kept of earlier tokens, and attention to it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tenth.program.ops.table import PANEL_ROWS, Result, expect, op, same
from tenth.program.values import Attr, Value


@op("positions:i32 factors?", inv_freq=tuple, scale=float)
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


@op("x angles", pairing=str)
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


@op("k v", layer=int)
def _kv_store(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, n_kv_heads, head_dim] twice -> nothing: writes this step's keys and values into the cache of ``layer``.

    Row r goes to position positions[r] of its sequence. Stands before the attention of the same layer.
    """
    k, v = inputs
    expect(len(k.shape) == 2 and k.rows == "tokens", "kv_store takes [n, n_kv_heads, head_dim] of every token")
    same(k, v)
    return ()


@op("q sinks?", layer=int, n_kv_heads=int, head_dim=int, scale=float, window=int, softcap=float)
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


@op("q k v", scale=float)
def _encoder_attention(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, heads, d], [n, n_kv_heads, d] twice -> [n, heads * d]: attention of each token over all of its sequence.

    Also over those behind it: the step has the sequence whole, from position 0, and nothing is kept for the next. Heads
    and scores as in ``attention``: softmax of q·k * ``scale``.
    """
    q, k, v = inputs
    fits = len(q.shape) == len(k.shape) == 2 and q.shape[1] == k.shape[1] and q.shape[0] % k.shape[0] == 0
    expect(fits and q.rows == same(k, v).rows == "tokens", f"encoder_attention of {q.shape} and {k.shape}")
    return (Result(q.rows, (q.shape[0] * q.shape[1],)),)


@op("latent rope", layer=int)
def _latent_store(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, d], [n, r] -> nothing: writes this step's latents, and their keys' rotated part, into the cache of ``layer``.

    Row r goes to position positions[r] of its sequence. Stands before the latent_attention of the same layer.
    """
    latent, rotated = inputs
    fits = len(latent.shape) == len(rotated.shape) == 1 and latent.rows == rotated.rows == "tokens"
    expect(fits, f"latent_store of {latent.shape} and {rotated.shape}")
    return ()


@op("q q_rope", layer=int, scale=float)
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


@op("q q_rope absorbed keys values", layer=int, scale=float, n_heads=int, first=int, keys_dtype=str, values_dtype=str)
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
