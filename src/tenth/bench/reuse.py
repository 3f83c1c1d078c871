"""How soon experts are used again: measured on a trace, and traces made to measure.

Published for Qwen3-30B-A3B (https://github.com/kekzl/imp/pull/1359): the median distance between two uses of an expert
is 2 tokens, 45 % are used again at the next token, 80 % within eight, and each layer takes 0.38 to 0.80 experts per
token that were not used for long (a cache is warm after 64 tokens). A made trace has these statistics and no others:
its experts are alike in the long run, where those of real models are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tenth.tracing import Trace

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
# Shares of a token's experts by how many tokens ago they were used last: 1, 2, 3 to 8, 9 to 64, longer or never.
BANDS = ((1, 1), (2, 2), (3, 8), (9, 64))
PUBLISHED = (0.45, 0.10, 0.25, 0.125)


@dataclass(frozen=True)
class Reuse:
    """Of all uses of experts: shares used again at the next token and within eight, the median distance in tokens,
    and how many experts a layer takes per token that were not used in the 64 before."""

    next_token: float
    within_8: float
    median_tokens: float
    new_per_layer: float


def reuse(trace: Trace) -> Reuse:
    """Statistics of a trace of complete tokens. The first 64 tokens only begin histories."""
    n_tokens, n_layers, k = trace.experts.shape
    last = np.full((n_layers, trace.n_experts), -(1 << 30))
    layers = np.arange(n_layers)[:, None]
    distances = np.zeros((n_tokens, n_layers, k), np.int64)
    for token, experts in enumerate(trace.experts):
        distances[token] = token - last[layers, experts]
        last[layers, experts] = token
    counted = distances[min(64, n_tokens // 2) :]
    return Reuse(
        next_token=float((counted == 1).mean()),
        within_8=float((counted <= 8).mean()),
        median_tokens=float(np.median(counted)),
        new_per_layer=float((counted > 64).sum(-1).mean()),
    )


def made_trace(n_tokens: int, n_layers: int, n_experts: int, k: int, seed: int = 0) -> Trace:
    """A trace with the published statistics. Every layer goes its own way."""
    rng = np.random.default_rng(seed)
    experts = np.stack([_made_layer(n_tokens, n_experts, k, rng) for _ in range(n_layers)], axis=1)
    return Trace(experts.astype(np.int16), n_experts)


def _made_layer(n_tokens: int, n_experts: int, k: int, rng: np.random.Generator) -> Numbers:
    """Experts [n_tokens, k]: each pick first takes how long ago its expert was used, then one of those."""
    last = np.full(n_experts, -1000)
    chosen = np.zeros((n_tokens, k), np.int64)
    shares = np.array([*PUBLISHED, 1 - sum(PUBLISHED)])
    for token in range(n_tokens):
        age = token - last
        free = np.ones(n_experts, bool)
        for j, band in enumerate(rng.choice(len(shares), k, p=shares)):
            low, high = BANDS[band] if band < len(BANDS) else (65, 1 << 30)
            among = np.flatnonzero(free & (age >= low) & (age <= high))
            if not len(among):  # nobody of that age is left
                among = np.flatnonzero(free)
            chosen[token, j] = pick = rng.choice(among)
            free[pick] = False
        last[chosen[token]] = token
    return chosen


def uniform_trace(n_tokens: int, n_layers: int, n_experts: int, k: int, seed: int = 0) -> Trace:
    """Every expert as likely as the others, whatever came before: what random weights give, the worst case."""
    rng = np.random.default_rng(seed)
    experts = rng.random((n_tokens, n_layers, n_experts)).argsort(-1)[..., :k]
    return Trace(experts.astype(np.int16), n_experts)
