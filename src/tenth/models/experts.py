"""What mixture-of-experts models have in common: hyper-parameters, tensors and the feed-forward part.

Names of keys and tensors are GGUF's, as llama.cpp's converter writes them. A router gives every token a score for each
expert; the best ``k`` work on it, and their results are weighed and added. Some models add an expert that always works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tenth.models.config import MOST_WIDTH, Config, Metadata, require
from tenth.models.tensors import Declared
from tenth.program.builder import Routing, Value, Weights, expert_linear, expert_sum, heads, linear, route, swiglu

MOST_EXPERTS = 1 << 12
SCORES = {1: "softmax", 2: "sigmoid", 3: "softmax_selected"}  # expert_gating_func, as llama.cpp numbers them


@dataclass(frozen=True)
class MoeConfig(Config):
    """``n_expert_ff``: width of one expert; ``n_shared_ff``: of the shared one, 0 when there is none."""

    n_experts: int
    n_expert_ff: int
    n_shared_ff: int
    routing: Routing


def read_moe(m: Metadata, prefix: str, c: Config, routing: Routing) -> MoeConfig:
    """Adds what keys say of experts to a dense configuration; ``routing`` is what holds where there is no key.

    Raises ModelFileError for counts that contradict each other.
    """
    n_experts = m.get_int(f"{prefix}.expert_count", low=1, high=MOST_EXPERTS)
    return MoeConfig(
        **vars(c),
        n_experts=n_experts,
        n_expert_ff=m.get_int(f"{prefix}.expert_feed_forward_length", c.n_ff, low=1, high=MOST_WIDTH),
        n_shared_ff=0,
        routing=read_routing(m, prefix, n_experts, routing),
    )


def read_routing(m: Metadata, prefix: str, n_experts: int, default: Routing) -> Routing:
    """How the router chooses. The fields of ``default`` hold where the file has no key."""
    used = m.get_int(f"{prefix}.expert_used_count", low=1, high=MOST_EXPERTS)
    require(used <= n_experts, f"{prefix}.expert_used_count is {used}, but expert_count is {n_experts}")
    groups = m.get_int(f"{prefix}.expert_group_count", default.n_groups, low=0, high=MOST_EXPERTS) or 1
    plain = default.groups_used if groups == default.n_groups else groups
    groups_used = m.get_int(f"{prefix}.expert_group_used_count", plain, low=0, high=MOST_EXPERTS) or groups
    possible = n_experts % groups == 0 and groups_used <= groups and used <= n_experts // groups * groups_used
    require(possible, f"{prefix}: {used} of {n_experts} experts cannot be chosen from {groups_used} of {groups} groups")
    few = groups > 1 and default.group_score == "top2" and n_experts // groups < 2
    require(not few, f"{prefix}.expert_group_count is {groups} with {n_experts} experts: groups of one")
    return Routing(
        k=used,
        score=_read_score(m, prefix, default.score),
        normalise=m.get_bool(f"{prefix}.expert_weights_norm", default.normalise),
        # 0 stands for "none" in files of some converters.
        scale=m.get_float(f"{prefix}.expert_weights_scale", default.scale, low=0.0, high=1e3) or 1.0,
        n_groups=groups,
        groups_used=groups_used,
        group_score=default.group_score,
    )


def _read_score(m: Metadata, prefix: str, default: str) -> str:
    key = f"{prefix}.expert_gating_func"
    number = m.get_int(key, 0)
    known = ", ".join(f"{n} ({name})" for n, name in SCORES.items())
    require(number == 0 or number in SCORES, f"{key} is {number}, expected {known}")
    return SCORES.get(number, default)


def expert_tensors(c: MoeConfig) -> Declared:
    """Shapes of one layer's router and experts."""
    return {
        "ffn_gate_inp.weight": (c.n_experts, c.dim),
        "ffn_gate_exps.weight": (c.n_experts, c.n_expert_ff, c.dim),
        "ffn_up_exps.weight": (c.n_experts, c.n_expert_ff, c.dim),
        "ffn_down_exps.weight": (c.n_experts, c.dim, c.n_expert_ff),
    }


def shared_tensors(c: MoeConfig) -> Declared:
    """Shapes of one layer's shared expert, if it has one."""
    if not c.n_shared_ff:
        return {}
    return {
        "ffn_gate_shexp.weight": (c.n_shared_ff, c.dim),
        "ffn_up_shexp.weight": (c.n_shared_ff, c.dim),
        "ffn_down_shexp.weight": (c.dim, c.n_shared_ff),
    }


def expert_biases(c: MoeConfig) -> Declared:
    """Shapes of the biases of one layer's router and experts, for models that have them."""
    return {
        "ffn_gate_inp.bias": (c.n_experts,),
        "ffn_gate_exps.bias": (c.n_experts, c.n_expert_ff),
        "ffn_up_exps.bias": (c.n_experts, c.n_expert_ff),
        "ffn_down_exps.bias": (c.n_experts, c.dim),
    }


def sparse_feed_forward(
    x: Value, w: Weights, c: MoeConfig, bias: Weights | None = None, joined: Callable[[Value, Value], Value] = swiglu
) -> Value:
    """Mixture of experts. x: [n, dim] -> [n, dim].

    ``bias``: of the router, for choosing only. ``joined``: how an expert's gate and up become one.
    """
    experts, weights = route(linear(x, w.ffn_gate_inp), c.routing, bias)  # [n, k] each
    gate = expert_linear(x, experts, w.ffn_gate_exps)  # [n, k, n_expert_ff]
    up = expert_linear(x, experts, w.ffn_up_exps)
    return expert_sum(expert_linear(joined(gate, up), experts, w.ffn_down_exps), weights)


def shared_expert(x: Value, w: Weights) -> Value:
    """The SwiGLU expert that works on every token. x: [n, dim] -> [n, dim]."""
    return linear(swiglu(linear(x, w.ffn_gate_shexp), linear(x, w.ffn_up_shexp)), w.ffn_down_shexp)


def gated_shared_expert(x: Value, w: Weights) -> Value:
    """The shared expert times the sigmoid of one number per token: a mixture of one. x: [n, dim] -> [n, dim]."""
    _, weight = route(linear(x, w.ffn_gate_inp_shexp), Routing(k=1, score="sigmoid", normalise=False))  # [n, 1]
    return expert_sum(heads(shared_expert(x, w), 1), weight)
