"""Caches of experts in plain Python, to set tenth's own policy against: LRU, LFU, and Belady's, which knows the future.

A trace is a list of groups: the experts that one token needs in one layer, which are in memory together. A group's hits
are those of its experts that were there when it began; then the others come in, and none of the group is replaced
for them. So a cache has at least as many slots as the largest group.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence

Group = Sequence[int]  # experts of all layers, each with a number of its own


def lru_hits(groups: Sequence[Group], n_slots: int) -> int:
    """Replaces the expert that was not needed for the longest time."""
    return sum(map(len, groups)) - sum(map(len, lru_misses(groups, n_slots)))


def lru_misses(groups: Sequence[Group], n_slots: int) -> list[list[int]]:
    """Of every group, the experts that LRU has to read."""
    cache: OrderedDict[int, None] = OrderedDict()
    misses = []
    for group in groups:
        misses.append([expert for expert in group if expert not in cache])
        for expert in group:
            cache[expert] = None
            cache.move_to_end(expert)
        while len(cache) > n_slots:  # the group stands at the end
            cache.popitem(last=False)
    return misses


def lfu_hits(groups: Sequence[Group], n_slots: int) -> int:
    """Replaces the least often needed expert, counted from the beginning, cached or not; of several the oldest."""
    uses: Counter[int] = Counter()

    def urgency(time: int, expert: int) -> tuple[int, int]:
        uses[expert] += 1
        return uses[expert], time

    return _hits_by_key(groups, n_slots, urgency)


def belady_hits(groups: Sequence[Group], n_slots: int) -> int:
    """Replaces the expert that is needed again last: no policy has more hits."""
    following: dict[int, int] = {}
    next_use: dict[tuple[int, int], int] = {}
    for time in range(len(groups) - 1, -1, -1):
        for expert in groups[time]:
            next_use[time, expert] = following.get(expert, len(groups))
            following[expert] = time
    return _hits_by_key(groups, n_slots, lambda time, expert: (-next_use[time, expert], time))


def _hits_by_key(groups: Sequence[Group], n_slots: int, key: Callable[[int, int], tuple[int, int]]) -> int:
    """Hits of a policy that replaces the expert whose key, taken when it was needed last, is smallest."""
    keys: dict[int, tuple[int, int]] = {}  # of the experts in the cache
    heap: list[tuple[tuple[int, int], int]] = []  # with entries that are out of date
    hits = 0
    for time, group in enumerate(groups):
        members = set(group)
        missing = len(members - keys.keys())
        hits += len(members) - missing
        kept = []
        while len(keys) + missing > n_slots:
            old, expert = heapq.heappop(heap)
            if keys.get(expert) != old:
                continue
            if expert in members:
                kept.append((old, expert))
            else:
                del keys[expert]
        for entry in kept:
            heapq.heappush(heap, entry)
        for expert in members:
            keys[expert] = key(time, expert)
            heapq.heappush(heap, (keys[expert], expert))
    return hits


POLICIES: dict[str, Callable[[Sequence[Group], int], int]] = {
    "LRU": lru_hits, "LFU": lfu_hits, "Belady": belady_hits,
}  # fmt: skip


def groups_of(experts: object, n_experts: int) -> list[list[int]]:
    """The groups of a trace [n_tokens, n_layers, k], token by token, in each layer by layer."""

    def walk() -> Iterator[list[int]]:
        for token in experts.tolist():  # type: ignore[attr-defined]
            for layer, chosen in enumerate(token):
                yield [layer * n_experts + expert for expert in chosen]

    return list(walk())
