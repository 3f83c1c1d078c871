"""What model files build programs with: their vocabulary.

``embed``, ``rms_norm``, ``linear``, ``attention`` … each append one instruction (``attention`` two) to the Builder of
the values they are given; ``heads`` and ``flat`` are views and cost nothing; ``w.blk[3].attn_q`` names a weight. What
each op means stands in ``ops.OPS``; how a program is recorded, in ``recording.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tenth.program.ops import expect
from tenth.program.recording import Builder, Weights
from tenth.program.values import Attr, KvLayer, Rows, Transposed, Value


def _value(w: Weights, suffix: str = "weight") -> Value:
    return w._builder.weight(f"{w._path}.{suffix}" if suffix else w._path)


def _emit(x: Value, op: str, *inputs: Value, **attrs: Attr) -> Value:
    assert x.builder is not None, f"{x.name} belongs to no builder"
    return x.builder.emit(op, (x, *inputs), **attrs)[0]


def _view(x: Value, shape: tuple[int, ...]) -> Value:
    expect(math.prod(shape) == math.prod(x.shape), f"{x.name} {x.shape} seen as {shape}")
    return Value(x.name, x.kind, shape, x.rows, x.dtype, base=x.storage, builder=x.builder)


# ---------------------------------------------------------------- views: another shape of the same numbers, free


def heads(x: Value, n_heads: int) -> Value:
    """[n, n_heads * d] -> [n, n_heads, d]."""
    expect(x.shape[0] % n_heads == 0, f"{x.name} {x.shape} in {n_heads} heads")
    return _view(x, (n_heads, x.shape[0] // n_heads))


def flat(x: Value) -> Value:
    """[n, a, b] -> [n, a * b]."""
    return _view(x, (math.prod(x.shape),))


# ---------------------------------------------------------------- ops: one instruction each, specified in ops


def embed(tokens: Value, w: Weights, scale: float = 1.0) -> Value:
    """I32 [n] -> [n, dim]: rows of the token table, times ``scale``."""
    return _emit(tokens, "embed", _value(w), scale=float(scale))


def embed_segments(tokens: Value, w: Weights, separator: int = -1) -> Value:
    """I32 [n] -> [n, dim]: rows of the table of token types; ``separator``: the token behind which the next begins."""
    return _emit(tokens, "embed_segments", _value(w), separator=separator)


def layer_norm(x: Value, w: Weights, eps: float) -> Value:
    """[n, d] -> same, by the weight and the bias of that name."""
    return _emit(x, "layer_norm", _value(w), _value(w, "bias"), eps=float(eps))


def rms_norm(x: Value, w: Weights, eps: float) -> Value:
    """[n, …, d] -> same, over the last dimension."""
    return _emit(x, "rms_norm", _value(w), eps=float(eps))


def linear(x: Value, w: Weights) -> Value:
    """[n, in] -> [n, out]: x @ weight.T, plus the bias when the model declares one and the file has it."""
    has_bias = f"{w._path}.bias" in w._builder.shapes
    biases = (_value(w, "bias"),) if has_bias else ()
    return _emit(x, "linear", _value(w), *biases, n_weights=1, biases=(int(has_bias),), residual=0)


def head_linear(x: Value, w: Weights, *, n_heads: int, first: int = 0, n_rows: int = 0) -> Value:
    """[n, n_heads, in] -> [n, n_heads, n_rows]: each head times its own rows of weight [n_heads, rows, in].

    Of these rows the ``n_rows`` (0: all) from ``first`` on. The weight may be a matrix [n_heads * rows, in], too.
    """
    weight = w._builder.matrix_of_heads(f"{w._path}.weight")
    n_rows = n_rows or weight.shape[0] // n_heads
    return _emit(flat(x), "head_linear", weight, n_heads=n_heads, first=first, n_rows=n_rows)


def head_linear_transposed(x: Value, w: Weights, *, n_heads: int, first: int, n_rows: int) -> Value:
    """[n, n_heads, n_rows] -> [n, n_heads, in]: each head times rows of weight [n_heads * rows, in], transposed.

    Takes the ``n_rows`` from ``first`` on of each head's.
    """
    weight = w._builder.transposed(Transposed(f"{w._path}.weight", n_heads, first, n_rows))
    return _emit(flat(x), "head_linear", weight, n_heads=n_heads, first=0, n_rows=weight.shape[0] // n_heads)


def rope_angles(
    positions: Value, inv_freq: tuple[float, ...], scale: float = 1.0, factors: Weights | None = None
) -> Value:
    """I32 [n] -> [n, dims]: cosines and sines of the angles; ``factors``, a tensor or None, divides the frequencies."""
    inputs = (_value(factors),) if factors else ()
    return _emit(positions, "rope_angles", *inputs, inv_freq=tuple(float(f) for f in inv_freq), scale=float(scale))


def rope(x: Value, angles: Value, pairing: str) -> Value:
    """[n, heads, head_dim] -> same, rotated. ``pairing``: "half" or "pairs"."""
    return _emit(x, "rope", angles, pairing=pairing)


def attention(
    q: Value, k: Value, v: Value, *, layer: int, scale: float, window: int = 0, softcap: float = 0.0,
    sinks: Weights | None = None,
) -> Value:
    """Q [n, heads, d], k and v [n, kv heads, d] -> [n, heads * d]: stores k and v, then attends over the cache.

    ``sinks``, a tensor [heads] or None: one more score for each head, whose weight goes nowhere.
    """
    assert q.builder is not None, "attention takes values under construction"
    n_kv_heads, head_dim = k.shape
    q.builder.emit("kv_store", (k, v), layer=layer)
    q.builder.state.append(KvLayer(layer, n_kv_heads, head_dim, window))
    return _emit(
        q,
        "attention",
        *((_value(sinks),) if sinks else ()),
        layer=layer,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        scale=float(scale),
        window=window,
        softcap=float(softcap),
    )


def encoder_attention(q: Value, k: Value, v: Value, *, scale: float) -> Value:
    """Q [n, heads, d], k and v [n, kv heads, d] -> [n, heads * d]: each token attends to all of its sequence."""
    return _emit(q, "encoder_attention", k, v, scale=float(scale))


def latent_attention(q: Value, q_rope: Value, latent: Value, rope: Value, *, layer: int, scale: float) -> Value:
    """Q [n, heads, d], q_rope [n, heads, r], latent [n, d], rope [n, r] -> [n, heads, d].

    Stores latent and rope, then attends over the cache: [latent, rope] is the key of every head, latent the value.
    """
    assert q.builder is not None, "latent_attention takes values under construction"
    q.builder.emit("latent_store", (latent, rope), layer=layer)
    q.builder.state.append(KvLayer(layer, 1, latent.shape[0] + rope.shape[0], latent=latent.shape[0]))
    return _emit(q, "latent_attention", q_rope, layer=layer, scale=float(scale))


def split(x: Value, *sizes: int) -> tuple[Value, ...]:
    """[n, …, d] -> one [n, …, size] per size: the numbers of each head (of the row) in pieces."""
    assert x.builder is not None, f"{x.name} belongs to no builder"
    return x.builder.emit("split", (x,), sizes=sizes)


def join(a: Value, b: Value) -> Value:
    """[n, a], [n, b] -> [n, a + b]: row behind row."""
    return _emit(a, "join", b)


def hidden_store(x: Value) -> None:
    """[n, d]: keeps these rows for the drafter until the next step."""
    assert x.builder is not None, f"{x.name} belongs to no builder"
    expect(x.builder.hidden in (0, x.shape[0]), "hidden_store: rows of another length before")
    x.builder.emit("hidden_store", (x,))
    x.builder.hidden = x.shape[0]


def hidden_load(sources: Value) -> Value:
    """I32 [n] -> [n, d]: rows that were kept, in a drafter."""
    assert sources.builder is not None, f"{sources.name} belongs to no builder"
    return _emit(sources, "hidden_load", width=sources.builder.hidden)


def scale(x: Value, factor: float) -> Value:
    """[n, …] -> x * factor."""
    return _emit(x, "scale", factor=float(factor))


def softcap(x: Value, cap: float) -> Value:
    """[n, …] -> cap * tanh(x / cap)."""
    return _emit(x, "softcap", cap=float(cap))


def swiglu(gate: Value, up: Value) -> Value:
    """silu(gate) * up."""
    return _emit(gate, "swiglu", up)


def geglu(gate: Value, up: Value) -> Value:
    """gelu(gate) * up, with the tanh approximation of gelu."""
    return _emit(gate, "geglu", up)


def gelu(x: Value) -> Value:
    """x/2 * (1 + erf(x / sqrt(2)))."""
    return _emit(x, "gelu")


def clamped_swiglu(gate: Value, up: Value, *, alpha: float, limit: float) -> Value:
    """g * sigmoid(alpha * g) * (u + 1), with g = min(gate, limit) and u = up clipped to ±limit."""
    return _emit(gate, "clamped_swiglu", up, alpha=float(alpha), limit=float(limit))


def l2_norm(x: Value, eps: float) -> Value:
    """[n, …, d] -> same: x / sqrt(sum(x²) + eps), over the last dimension."""
    return _emit(x, "l2_norm", eps=float(eps))


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x))."""
    return _emit(x, "sigmoid")


def sigmoid_gate(gate: Value, x: Value) -> Value:
    """sigmoid(gate) * x."""
    return _emit(gate, "sigmoid_gate", x)


def decay(x: Value, factor: Weights, bias: Weights) -> Value:
    """[n, d] -> exp(factor * softplus(x + bias)). ``factor``'s tensor has a name without ".weight"."""
    return _emit(x, "decay", _value(factor, ""), _value(bias, "bias"))


def short_conv(x: Value, w: Weights) -> Value:
    """[n, d] -> same: silu of a causal convolution of each number over the last few tokens, weight [d, taps]."""
    assert x.builder is not None, f"{x.name} belongs to no builder"
    return x.builder.emit_recurrent("short_conv", (x, _value(w)))


def delta_net(q: Value, k: Value, v: Value, *, decay: Value, beta: Value, tiled: bool, scale: float) -> Value:
    """The gated delta rule: q and k [n, k heads, k_dim], v [n, v heads, v_dim], decay and beta [n, v heads] -> like v.

    ``tiled``: value head h has q and k of head h % k heads, else neighbouring value heads share theirs.
    """
    assert q.builder is not None, "delta_net takes values under construction"
    return q.builder.emit_recurrent("delta_net", (q, k, v, decay, beta), tiled=int(tiled), scale=float(scale))


@dataclass(frozen=True)
class Routing:
    """How ``route`` chooses and weighs experts; what the fields mean stands with the op in ops/experts.py."""

    k: int
    score: str = "softmax"
    normalise: bool = True
    scale: float = 1.0
    n_groups: int = 1
    groups_used: int = 1
    group_score: str = "max"


def route(logits: Value, how: Routing, bias: Weights | None = None) -> tuple[Value, Value]:
    """[n, E] -> experts i32 [n, k], weights [n, k]. ``bias``: counts for choosing only; the file may lack it."""
    assert logits.builder is not None, "route takes values under construction"
    has_bias = bias is not None and f"{bias._path}.bias" in bias._builder.shapes
    inputs = (logits, _value(bias, "bias")) if bias is not None and has_bias else (logits,)
    attrs: dict[str, Attr] = {**vars(how), "normalise": int(how.normalise), "scale": float(how.scale)}
    experts, weights = logits.builder.emit("route", inputs, **attrs)
    return experts, weights


def expert_linear(x: Value, experts: Value, w: Weights) -> Value:
    """[n, in] or [n, k, in], i32 [n, k] -> [n, k, out]: each row by the matrices of its experts, plus biases if any."""
    has_bias = f"{w._path}.bias" in w._builder.shapes
    biases = (_value(w, "bias"),) if has_bias else ()
    return _emit(x, "expert_linear", experts, _value(w), *biases, n_weights=1, biases=(int(has_bias),))


def expert_sum(y: Value, weights: Value) -> Value:
    """[n, k, d], [n, k] -> [n, d]: the results of a row's experts, weighed and added."""
    return _emit(y, "expert_sum", weights)


def select_outputs(x: Value) -> Value:
    """Rows of all tokens -> only the rows that need logits."""
    return _emit(x, "select_outputs")


def sequence_mean(x: Value) -> Value:
    """Rows of all tokens -> for each row that is asked for, the mean over its sequence."""
    return _emit(x, "sequence_mean")


__all__ = [
    "Builder", "Routing", "Rows", "Value", "Weights", "attention", "clamped_swiglu", "decay", "delta_net", "embed",
    "embed_segments", "encoder_attention", "expert_linear", "expert_sum", "flat", "geglu", "gelu", "head_linear",
    "head_linear_transposed", "heads", "hidden_load", "hidden_store", "join", "l2_norm", "latent_attention",
    "layer_norm", "linear", "rms_norm", "rope", "rope_angles", "route", "scale", "select_outputs", "sequence_mean",
    "short_conv", "sigmoid", "sigmoid_gate", "softcap", "split", "swiglu",
]  # fmt: skip
