"""What goes where within a budget: grants in order, refusals that name a budget that would do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tenth.config import parse_bytes
from tenth.errors import ResourceError
from tenth.weights.placement import FAIR_CONTEXT, Needs, place

SMALL, LARGE = 1000, 1500
MODEL = Needs(
    python=100_000, trunk=500_000, kv=80_000, workspace=20_000, slices={SMALL: 2000, LARGE: 1000},
    layer_slices={SMALL: 16, LARGE: 8}, token_bytes=10 * (16 * SMALL + 8 * LARGE), stream_workspace=5_000,
    context_tokens=4096,
)  # fmt: skip
DENSE = replace(MODEL, slices={}, layer_slices={}, token_bytes=0)
FIXED = 700_000
EXPERTS = 2000 * SMALL + 1000 * LARGE
LEAST = FIXED + 5_000 + 16 * SMALL + 8 * LARGE


def test_what_fits_is_resident() -> None:
    placement = place(MODEL, FIXED + EXPERTS)
    assert not placement.streams
    assert placement.warning is None


def test_a_byte_less_streams_and_keeps_to_the_budget() -> None:
    placement = place(MODEL, FIXED + EXPERTS - 1)
    assert placement.streams
    assert FIXED + MODEL.stream_workspace + placement.slot_bytes <= FIXED + EXPERTS - 1


@pytest.mark.parametrize("budget", [LEAST, LEAST + 1, LEAST + 12_345, 1_000_000, 2_000_000, 4_000_000])
def test_slots_fill_the_budget_with_the_same_share_of_each_size(budget: int) -> None:
    placement = place(MODEL, budget)
    left = budget - FIXED - MODEL.stream_workspace
    assert left - LARGE - SMALL < placement.slot_bytes <= left
    assert all(placement.n_slots[size] >= n for size, n in MODEL.layer_slices.items())
    shares = [placement.n_slots[size] / n for size, n in MODEL.slices.items()]
    assert max(shares) - min(shares) < 0.01


def test_too_little_is_refused_naming_the_least_budget_that_would_do() -> None:
    with pytest.raises(ResourceError) as refused:
        place(replace(MODEL, trunk=5_000_000_000), 6_000_000, "--memory")
    assert "--memory is 6 MB" in refused.value.message
    assert refused.value.hint
    named = re.search(r"--memory (\S+) would do", refused.value.hint)
    assert named
    place(replace(MODEL, trunk=5_000_000_000), parse_bytes(named[1]))


@pytest.mark.parametrize("needs", [MODEL, DENSE])
def test_the_least_budget_does_and_a_byte_less_does_not(needs: Needs) -> None:
    place(needs, needs.least)
    with pytest.raises(ResourceError, match="at least"):
        place(needs, needs.least - 1)


def test_a_dense_model_is_resident_or_refused() -> None:
    assert not place(DENSE, FIXED).streams
    with pytest.raises(ResourceError, match=r"of weights, .* keys and values for 4096 tokens"):
        place(DENSE, FIXED - 1)


def test_a_refusal_names_the_context_that_would_fit() -> None:
    needs = replace(DENSE, kv=800_000)
    with pytest.raises(ResourceError) as refused:
        place(needs, needs.fixed - 300_000)
    named = re.search(r"--context (\d+)", refused.value.hint or "")
    assert named
    fewer = int(named[1])
    place(replace(needs, kv=needs.kv * fewer // 4096, context_tokens=fewer), needs.fixed - 300_000)


def test_no_context_is_named_where_none_would_do() -> None:
    with pytest.raises(ResourceError) as refused:
        place(DENSE, 400_000)
    assert "--context" not in (refused.value.hint or "")


def test_less_than_one_token_of_experts_is_warned_of() -> None:
    below, above = (place(MODEL, FIXED + MODEL.stream_workspace + int(n * MODEL.token_bytes)) for n in (0.9, 1.1))
    assert below.warning
    assert "one token" in below.warning
    assert above.warning is None


def test_a_budget_beyond_what_is_free_is_warned_of() -> None:
    placement = place(MODEL, FIXED + EXPERTS)
    most = placement.granted_bytes
    assert replace(placement, free_bytes=most).warning is None
    assert "free here" in (replace(placement, free_bytes=most - 1).warning or "")


def test_the_grants_add_up() -> None:
    data = place(MODEL, 2_000_000).as_data()
    granted = ("python_bytes", "trunk_bytes", "kv_bytes", "state_bytes", "workspace_bytes", "expert_slot_bytes")
    assert sum(data[name] for name in granted) <= data["budget_bytes"] == 2_000_000


# 8192 tokens of keys and values take 80,000 bytes here, as in MODEL; the shorter ones in proportion.
UNASKED = replace(MODEL, context_tokens=8192, smaller_kv=tuple((8192 >> i, 80_000 >> i) for i in range(1, 6)))


@pytest.mark.parametrize(("budget", "context"), [
    (FIXED + EXPERTS, 8192),  # everything fits
    (FIXED + EXPERTS - 40_000, 8192),
    (FIXED + 8 * 80_000 - 80_000, 8192),  # an eighth of what is left
    (FIXED + 8 * 80_000 - 80_001, 4096),
    (LEAST, 2048),  # and no less, for experts
    (LEAST - 60_001, 1024),  # except where nothing else would do
    (LEAST - 77_500, 256),
])  # fmt: skip
def test_a_context_that_nobody_asked_for_gives_way_before_experts(budget: int, context: int) -> None:
    placement = place(UNASKED, budget)
    assert placement.needs.context_tokens == context
    assert placement.needs.kv == 80_000 * context // 8192
    assert placement.is_shortened == (context < 8192)
    assert (f"the context is {context} tokens" in (placement.warning or "")) == (context < 8192)


def test_a_context_that_was_asked_for_stays() -> None:
    assert place(MODEL, LEAST).needs is MODEL
    with pytest.raises(ResourceError):
        place(MODEL, LEAST - 1)


def test_a_dense_model_gets_the_longest_context_that_fits() -> None:
    needs = replace(UNASKED, slices={}, layer_slices={}, token_bytes=0)
    assert place(needs, FIXED - 50_000).needs.context_tokens == 2048
    with pytest.raises(ResourceError, match="keys and values for 256 tokens"):
        place(needs, FIXED - 77_501)


def test_a_shorter_fair_context_is_not_made_shorter() -> None:
    short = replace(MODEL, context_tokens=FAIR_CONTEXT, smaller_kv=((FAIR_CONTEXT // 2, 40_000),))
    assert place(short, LEAST).needs.context_tokens == FAIR_CONTEXT
