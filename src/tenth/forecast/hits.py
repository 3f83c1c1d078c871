"""What share of the expert slices that a token uses will be in memory: published curves, or what was seen here.

The curves, as (share of all experts cached, share of uses found in memory), are those of other engines on real models
while they generate: which experts a model uses differs little between engines. Each line names its source (as of
October 2026). Prompts are another matter: they use nearly all experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Curve = Sequence[tuple[float, float]]

# By the architecture name in the file. Between the points, and to (0, 0) and (1, 1), lines are drawn.
CURVES: dict[str, Curve] = {
    # Qwen3-30B-A3B: BigMoeOnEdge docs/benchmarks.md (2000 and 4000 MiB), imp #1359 (40 % of the experts, 90-95 %)
    "qwen3moe": ((0.12, 0.53), (0.24, 0.76), (0.40, 0.92)),
    # Qwen3.6-35B-A3B: BigMoeOnEdge PR 187 (1500 MiB), its v0.11 notes and mtp.md (3000 MiB, 65-73 %)
    "qwen35moe": ((0.08, 0.52), (0.16, 0.69)),
    # Qwen3.8-Flash-Next, 512 experts with LRU: imp #2061
    "qwen3next": ((0.18, 0.435), (0.36, 0.62), (0.54, 0.72), (0.73, 0.79)),
    # Gemma 4 26B-A4B: BigMoeOnEdge docs/benchmarks.md (2000 and 4000 MiB)
    "gemma4": ((0.14, 0.58), (0.28, 0.82)),
    # DeepSeek V4 Flash: the table of hipfire-models/deepseek-v4-flash-0731 on the hub (4 to 64 GiB)
    "deepseek4": ((0.055, 0.405), (0.11, 0.594), (0.22, 0.744), (0.44, 0.865), (0.89, 0.91)),
    # GLM-5.2: colibri docs/benchmarks.md (boxes of 24 and 128 GB); the nearest published relative of both
    "glm4moe": ((0.02, 0.07), (0.25, 0.70)),
    "deepseek2": ((0.02, 0.07), (0.25, 0.70)),
    # OLMoE: colibri PR 362 (32 of 64 slots, LRU)
    "olmoe": ((0.50, 0.62),),
    # gpt-oss-120b: BigMoeOnEdge issue 33 (2000 MiB, 8-9 %); nothing published for larger shares
    "gpt-oss": ((0.034, 0.085),),
}
# For families that nobody published anything of: the lower edge of all curves above.
UNKNOWN: Curve = ((0.02, 0.05), (0.18, 0.40), (0.36, 0.60), (0.54, 0.70), (0.73, 0.79))
UNSURE = 0.10  # how far a published rate may be off here: other texts, other policies


def hit_rate(family: str, cached_fraction: float, cycles: float, measured: Curve | None = None) -> float:
    """The share of uses that find their slice in memory, 0 to 1.

    ``cached_fraction``: of all experts; ``cycles``: how many tokens' experts the cache holds. Below one cycle, uses of
    the same token drive each other out. ``measured``: points seen on this machine with this model, which count instead.
    """
    if measured:
        return along(measured, cached_fraction)
    return along(CURVES.get(family, UNKNOWN), cached_fraction) * min(cycles, 1.0)


def along(curve: Curve, at: float) -> float:
    """The curve's value, between its points and (0, 0) and (1, 1)."""
    points = [(0.0, 0.0), *sorted(curve), (1.0, 1.0)]
    for (x0, y0), (x1, y1) in pairwise(points):
        if at <= x1:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0) if x1 > x0 else y1
    return 1.0
