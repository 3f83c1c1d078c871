"""From turns to figures: medians, spreads, shares of the machine's limits, ratios to the peer."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from tenth.bench.limits import Rate
from tenth.bench.measure import Shape, Turns
from tenth.bench.work import Work


def summary(rates: Sequence[float]) -> dict[str, Any]:
    """Median, extremes, and spread = (highest - lowest) / median."""
    middle = statistics.median(rates)
    return {"median": middle, "low": min(rates), "high": max(rates),
            "spread": (max(rates) - min(rates)) / middle if middle else 0.0, "runs": list(rates)}


def figures(turns: Turns, work: Work, shape: Shape) -> dict[str, Any]:
    """Everything bench reports about speeds. Shares are taken per repetition against the limit measured beside it."""
    n_bytes = work.generated_bytes((shape.n_generate + 1) / 2)  # the context grows from 1 to n_generate
    products = work.prompt_multiply_adds(shape.n_prompt)
    generation = [speed.generation for speed in turns.tenth]
    prompt = [speed.prompt for speed in turns.tenth]
    result: dict[str, Any] = {
        "prompt": {
            "n_tokens": shape.n_prompt, "tokens_per_second": summary(prompt),
            "multiply_adds_per_token": round(products),
            "share_of_int8": statistics.median(_shares(prompt, products, turns.int8)),
        },
        "generation": {
            "n_tokens": shape.n_generate, "tokens_per_second": summary(generation),
            "weight_bytes_per_token": work.weight_bytes, "state_bytes_per_token": work.state_bytes,
            "kv_bytes_per_token": round(n_bytes) - work.weight_bytes - work.state_bytes,
            "bytes_per_token": round(n_bytes),
            "share_of_read": statistics.median(_shares(generation, n_bytes, turns.read)),
        },
        "limits": {
            "read_bytes_per_second": summary([rate.best for rate in turns.read]),
            "int8_multiply_adds_per_second": summary([rate.best for rate in turns.int8]),
        },
    }
    if turns.peer:
        theirs_prompt = [speed.prompt for speed in turns.peer]
        theirs_generation = [speed.generation for speed in turns.peer]
        result["peer"] = {
            "prompt": {"tokens_per_second": summary(theirs_prompt), "ratio": _ratio(prompt, theirs_prompt)},
            "generation": {"tokens_per_second": summary(theirs_generation),
                           "ratio": _ratio(generation, theirs_generation)},
        }
    return result


def _shares(speeds: Sequence[float], per_token: float, limits: Sequence[Rate]) -> list[float]:
    return [speed * per_token / limit.best for speed, limit in zip(speeds, limits, strict=True)]


def _ratio(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """tenth's speed over the peer's: the median of the ratios of neighbouring turns."""
    return statistics.median(a / b for a, b in zip(mine, theirs, strict=True))


def lines(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """The figures as rows of a table: what, tokens/s, spread, share of the limit, peer's tokens/s, ratio."""
    peer = result.get("peer")
    head = ("", "tokens/s", "spread", "share of limit")
    rows: list[tuple[str, ...]] = [head + (("peer", "ratio") if peer else ())]
    parts = (("prompt", "share_of_int8", "int8"), ("generation", "share_of_read", "read"))
    for part, share, limit in parts:
        own = result[part]
        speed = own["tokens_per_second"]
        row: tuple[str, ...] = (f"{part}, {own['n_tokens']} tokens", f"{speed['median']:.1f}",
                                f"{100 * speed['spread']:.0f} %", f"{100 * own[share]:.0f} % {limit}")
        if peer:
            row += (f"{peer[part]['tokens_per_second']['median']:.1f}", f"{peer[part]['ratio']:.2f}")
        rows.append(row)
    return rows
