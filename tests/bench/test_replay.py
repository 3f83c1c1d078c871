"""Caches on traces: each policy against its definition, made traces against what they were made to be."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tenth.bench.policies import POLICIES, belady_hits, groups_of, lfu_hits, lru_hits
from tenth.bench.replay import SHARES, replay
from tenth.bench.reuse import made_trace, reuse, uniform_trace
from tenth.errors import ModelFileError, RequestError
from tenth.tracing import Trace, read_trace, write_trace


def most_hits(groups: list[list[int]], n_slots: int) -> int:
    """The best that any choice of what to replace can do: all of them tried."""
    best = {frozenset[int](): 0}
    for group in groups:
        members, following = frozenset(group), dict[frozenset[int], int]()
        for cache, hits in best.items():
            hits += len(members & cache)
            others = cache - members
            room = n_slots - len(members)
            for kept in itertools.combinations(others, min(room, len(others))):
                held = members | frozenset(kept)
                following[held] = max(following.get(held, 0), hits)
        best = following
    return max(best.values())


def written_out(groups: list[list[int]], n_slots: int, worth: str) -> int:
    """LRU and LFU by their definition: the cache as a list of (expert, uses, last use)."""
    cache: set[int] = set()
    uses, last = dict[int, int](), dict[int, int]()
    hits = 0
    for time, group in enumerate(groups):
        hits += len(cache & set(group))
        for expert in group:
            uses[expert], last[expert] = uses.get(expert, 0) + 1, time
        cache |= set(group)
        while len(cache) > n_slots:
            rank = (lambda e: (last[e],)) if worth == "recency" else (lambda e: (uses[e], last[e]))
            cache.remove(min(cache - set(group), key=lambda e: (*rank(e), group_place(groups, e, last[e]))))
    return hits


def group_place(groups: list[list[int]], expert: int, time: int) -> int:
    return groups[time].index(expert)


def tiny_groups(seed: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [rng.sample(range(6), rng.randint(1, 2)) for _ in range(12)]


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("n_slots", [2, 3, 4])
def test_no_choice_has_more_hits_than_belady(seed: int, n_slots: int) -> None:
    groups = tiny_groups(seed)
    assert belady_hits(groups, n_slots) == most_hits(groups, n_slots)


@pytest.mark.parametrize("seed", range(60))
def test_lru_is_what_its_name_says(seed: int) -> None:
    groups = tiny_groups(seed)
    assert lru_hits(groups, 3) == written_out(groups, 3, "recency")


@pytest.mark.parametrize("seed", range(60))
def test_lfu_is_what_its_name_says(seed: int) -> None:
    groups = [[g] for group in tiny_groups(seed) for g in group]  # of one, so that ties are broken by time alone
    assert lfu_hits(groups, 3) == written_out(groups, 3, "frequency")


def test_lru_over_a_cycle_that_does_not_fit_never_hits_and_belady_does() -> None:
    groups = [[expert] for expert in range(5)] * 10
    assert lru_hits(groups, 4) == 0
    assert belady_hits(groups, 4) > 30


def test_a_made_trace_has_the_published_statistics() -> None:
    found = reuse(made_trace(1500, 4, 128, 8, seed=3))
    assert found.next_token == pytest.approx(0.45, abs=0.02)
    assert found.within_8 == pytest.approx(0.80, abs=0.02)
    assert found.median_tokens == 2
    assert 0.38 <= found.new_per_layer <= 0.80


def test_reuse_of_a_trace_made_by_hand() -> None:
    experts = np.array([[[0, 1]], [[0, 2]], [[0, 1]], [[3, 1]]], np.int16)
    found = reuse(Trace(experts, 4))  # the first two tokens only begin; then 0 after 1, 1 after 2, 3 never, 1 after 1
    assert found.next_token == 0.5
    assert found.within_8 == 0.75
    assert found.new_per_layer == 0.5


def test_replay_has_a_row_for_each_share_and_nobody_beats_belady() -> None:
    trace = made_trace(200, 4, 32, 4)
    rows = replay(trace)
    assert [row["share"] for row in rows] == list(SHARES)
    for row in rows:
        assert row["slots"] == max(round(row["share"] * 4 * 32), 4)
        assert all(0 <= row[name] <= row["Belady"] for name in ("tenth", *POLICIES))
    assert rows[-1]["tenth"] > rows[0]["tenth"]


def test_with_room_for_all_every_policy_misses_each_expert_once() -> None:
    trace = uniform_trace(100, 3, 16, 4)
    (row,) = replay(trace, shares=(1.0,))
    n_used = len({e for group in groups_of(trace.experts, 16) for e in group})
    assert {row[name] for name in ("tenth", *POLICIES)} == {round(1 - n_used / trace.experts.size, 4)}


@pytest.mark.parametrize("share", SHARES)
def test_the_own_policy_is_at_least_as_good_as_lru_where_experts_come_again_soon(share: float) -> None:
    (row,) = replay(made_trace(400, 8, 64, 4), shares=(share,))
    assert row["tenth"] >= row["LRU"] - 0.005


def test_a_trace_survives_its_file(tmp_path: Path) -> None:
    trace = made_trace(20, 2, 8, 2)
    write_trace(tmp_path / "a.npz", trace)
    found = read_trace(tmp_path / "a.npz")
    assert np.array_equal(found.experts, trace.experts)
    assert found.n_experts == 8
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no trace"):
        read_trace(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("no trace")
    with pytest.raises(ModelFileError, match=r"text\.npz is no trace"):
        read_trace(tmp_path / "text.npz")
    write_trace(tmp_path / "wrong.npz", Trace(np.full((2, 2, 2), 9, np.int16), 4))
    with pytest.raises(ModelFileError, match=r"wrong\.npz is no trace"):
        read_trace(tmp_path / "wrong.npz")
    incomplete = Trace(np.full((2, 2, 2), -1, np.int16), 4)
    with pytest.raises(RequestError, match="no token that went through every layer"):
        replay(incomplete)


def test_the_command_prints_json(tmp_path: Path) -> None:
    write_trace(tmp_path / "a.npz", made_trace(50, 2, 16, 2))
    command = [sys.executable, "-m", "tenth.bench.replay", str(tmp_path / "a.npz"), "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert found["n_tokens"] == 50
    assert set(found["rows"][0]) == {"share", "slots", "tokens_held", "tenth", *POLICIES}
    command[3] = str(tmp_path / "absent.npz")
    failed = subprocess.run(command, capture_output=True, check=False, text=True)
    assert failed.returncode == 2
    assert "there is no trace" in failed.stderr
