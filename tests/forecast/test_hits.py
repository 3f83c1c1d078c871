"""Hit rates: published curves, the cliff below one token's experts, and what was seen here."""

from __future__ import annotations

import pytest

from tenth.forecast.hits import CURVES, UNKNOWN, hit_rate


@pytest.mark.parametrize("family", [*CURVES, "a new one"])
def test_more_memory_never_hits_less(family):
    rates = [hit_rate(family, i / 50, 20 * i / 50) for i in range(51)]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (0.0, 1.0)


def test_published_points_come_back():
    assert hit_rate("qwen3moe", 0.24, 3.8) == pytest.approx(0.76)
    assert hit_rate("qwen3moe", 0.18, 2.8) == pytest.approx((0.53 + 0.76) / 2)
    assert hit_rate("a new one", UNKNOWN[0][0], 1.0) == pytest.approx(UNKNOWN[0][1])


def test_less_than_one_token_of_experts_hits_less():
    assert hit_rate("qwen3moe", 0.12, 0.5) == pytest.approx(0.53 / 2)


def test_what_was_seen_here_counts_instead():
    assert hit_rate("qwen3moe", 0.2, 3.0, [(0.2, 0.25)]) == pytest.approx(0.25)
    assert hit_rate("qwen3moe", 0.1, 1.5, [(0.2, 0.25)]) == pytest.approx(0.125)
    assert hit_rate("qwen3moe", 0.6, 9.0, [(0.2, 0.25)]) == pytest.approx(0.625)
    assert hit_rate("qwen3moe", 1.0, 16.0, [(1.0, 0.9)]) == pytest.approx(0.9)
