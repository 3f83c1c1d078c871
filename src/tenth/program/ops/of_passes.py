"""What passes add to a program; model files never write these."""

from __future__ import annotations

from collections.abc import Mapping

from tenth.program.ops import arithmetic, attention, experts  # noqa: F401 — some rows here are made of theirs
from tenth.program.ops.table import OPS, Op, Result, expect, op
from tenth.program.values import Q8_BLOCK, ROUNDINGS, Attr, Dtype, Value


def _rounded(result: Result, dtype: Dtype) -> tuple[Result]:
    whole = len(result.shape) > 0 and (dtype != "q8" or result.shape[-1] % Q8_BLOCK == 0)
    expect(whole, f"rows are rounded, those of q8 a multiple of 32 long: {result}")
    return (result._replace(dtype=dtype),)


@op("x")
def _quantize(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, k] -> q8 of the same shape: rounds each 32 values to int8 with one float32 scale. k is a multiple of 32.

    In float32: m = max|x|; inv = 127 / m (0 when m is 0); q = round-half-even(x * inv), clipped to ±127; scale =
    m / 127. The value meant is q * scale.
    """
    return _rounded(Result(inputs[0].rows, inputs[0].shape), "q8")


@op("x")
def _round_bf16(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """[n, …, k] -> bf16 of the same shape: rounds to bfloat16, to nearest, ties to even; below 2^-50 to zero."""
    return _rounded(Result(inputs[0].rows, inputs[0].shape), "bf16")


def _then_round(name: str, dtype: Dtype) -> None:
    """Register the op whose result is rounded at once: ``rms_norm_q8`` is quantize(rms_norm(x, weight))."""
    plain = OPS[name]

    def rule(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
        return _rounded(plain.rule(inputs, attrs)[0], dtype)

    rule.__doc__ = f"[n, …, k] -> {dtype} of the same shape: {ROUNDINGS[dtype]}({name}(…))."
    inputs = tuple(part for part in plain.inputs if not part.endswith("?"))
    OPS[f"{name}_{dtype}"] = Op(f"{name}_{dtype}", inputs, plain.dtypes[: len(inputs)], plain.attrs, rule)


for _name in ("rms_norm", "swiglu", "clamped_swiglu", "gelu", "sigmoid_gate", "geglu"):
    for _dtype in ROUNDINGS:
        _then_round(_name, _dtype)


@op("k v q angles norms*", layer=int, pairing=str, eps=float)
def _rope_store(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """K, v [n, n_kv_heads, d], q [n, heads, d] -> [n, heads, d]: rope(q); and kv_store(rope(k), v).

    With two ``norms`` [d] k and q are rms_norm(k, norms[0]) and rms_norm(q, norms[1]) first; without, eps is 0.
    """
    k, v, q, angles, *norms = inputs
    rope = OPS["rope"].rule
    OPS["kv_store"].rule((k, v), {})
    expect(rope((k, angles), attrs)[0].rows == q.rows and q.shape[1:] == k.shape[1:], "rope_store: q and k differ")
    expect(len(norms) in (0, 2) and all(norm.shape == k.shape[1:] for norm in norms), "rope_store: norms of heads")
    return rope((q, angles), attrs)


@op("logits weight bias?", k=int, score=str, normalise=int, scale=float, n_groups=int, groups_used=int,
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
    return OPS["route"].rule((logits, *bias), attrs)


@op("experts:i32 weights*")
def _expert_read(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """I32 [n, k] -> nothing: the experts that this step takes of weights [E, out, in] are needed in memory from now on.

    For weights that stay in the file until they are needed. They are all that read ``experts``; the expert_linears that
    follow wait for what has not arrived yet.
    """
    _check_named(inputs)
    return ()


@op("experts:i32 weights*")
def _expert_predict(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """I32 [n, k] -> nothing: a guess at what the next expert_read will name, which may begin to read ahead.

    Right or wrong, it changes no number: it can be left out.
    """
    _check_named(inputs)
    return ()


@op("experts:i32", router=int)
def _expert_trace(inputs: tuple[Value, ...], attrs: Mapping[str, Attr]) -> tuple[Result, ...]:
    """I32 [n, k] -> nothing: notes which experts each row uses; ``router`` counts layers of experts from 0."""
    expect(len(inputs[0].shape) == 1, "experts are [n, k]")
    return ()


def _check_named(inputs: tuple[Value, ...]) -> None:
    named, *weights = inputs
    expect(len(named.shape) == 1 and len(weights) > 0, "experts are [n, k], of at least one weight")
    for weight in weights:
        expect(len(weight.shape) == 3 and weight.shape[0] == weights[0].shape[0], f"{weight.name}: {weight.shape}")
