"""Mixtures of experts: who goes where, the products, the sum."""

from __future__ import annotations

from collections.abc import Mapping

from tenth.program.ops.table import Result, expect, op
from tenth.program.values import Attr, Value


@op("logits bias?", k=int, score=str, normalise=int, scale=float, n_groups=int, groups_used=int, group_score=str)
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


@op("x:f32/q8/bf16 experts:i32 weights* biases*", n_weights=int, biases=tuple)
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


@op("y weights residual?")
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
