"""The expert cache: books that always agree, layers that always end, and the promises about what is replaced."""

from __future__ import annotations

import random

import pytest

from tenth import _core

ABSENT, READING, READY, FAILED = range(4)


class Machine:
    """Drives a cache as the store does, with reads that land in any order: gate and up in stage 0, down in stage 1."""

    def __init__(
        self, seed: int, n_layers: int, n_experts: int, n_slots: int, passing: int = 6, half_life: float = 32,
        down_slots: int = 0, fresh: bool = False,
    ):
        self.rng = random.Random(seed)
        self.cache = _core.ExpertCache()
        self.n_experts, self.n_layers = n_experts, n_layers
        self.matrices: list[list[int]] = []
        for _ in range(n_layers):
            layer = self.cache.add_layer(n_experts)
            sizes = [(0, 64), (0, 64), (1, 128 if down_slots else 64)]
            self.matrices.append([self.cache.add_matrix(layer, stage, size) for stage, size in sizes])
        self.cache.finish({64: n_slots, **({128: down_slots} if down_slots else {})}, half_life, passing, fresh)
        self.warming: list[tuple[int, int, int]] = []
        self.in_flight: list[int] = []
        self.reads = 0

    def read(self, most: int) -> None:
        """Begin reads until so many are in flight or there is none to begin."""
        while len(self.in_flight) < most and (slice_ := self.cache.next_read()) >= 0:
            assert self.cache.state(slice_) == READING
            self.in_flight.append(slice_)
            self.reads += 1

    def warm(self) -> None:
        """Take some fresh slots, or say that some are warm."""
        if self.warming and self.rng.random() < 0.5:
            self.cache.warmed(*self.warming.pop(self.rng.randrange(len(self.warming))))
        elif (run := self.cache.take_fresh(self.rng.randint(1, 300)))[2]:
            self.warming.append(run)

    def land(self) -> None:
        self.cache.landed(self.in_flight.pop(self.rng.randrange(len(self.in_flight))))

    def layer(self, layer: int, touched: list[tuple[int, int]], predicted: list[int] | None = None) -> None:
        """One layer from its wants to its last product. Fails when it would wait for ever."""
        order = self.cache.want(layer, touched)
        assert sorted(order) == sorted(e for e, _ in touched)
        if predicted is not None:
            self.cache.predict((layer + 1) % self.n_layers, predicted)
        gate, up, down = (self.cache.first_slice(m) for m in self.matrices[layer])
        for firsts in ([gate, up], [down]):
            for expert in order:
                for first in firsts:
                    while self.cache.state(first + expert) != READY:
                        self.read(self.rng.randint(1, 8))
                        assert self.in_flight, "the layer waits for ever"
                        self.land()
                    self.cache.finished(first + expert)
                    if self.rng.random() < 0.1:
                        self.cache.check()

    def choose(self, n: int, rows: int = 1) -> list[tuple[int, int]]:
        return [(e, self.rng.randint(1, rows)) for e in self.rng.sample(range(self.n_experts), n)]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_every_layer_ends_and_the_books_agree(seed: int, fresh: bool) -> None:
    rng = random.Random(seed)
    n_layers, n_experts = rng.randint(1, 4), rng.randint(2, 12)
    machine = Machine(
        seed, n_layers, n_experts, n_slots=rng.randint(2, n_layers * n_experts * 3), passing=rng.randint(1, 12),
        half_life=rng.choice([1, 20, 1000]), down_slots=rng.choice([0, 1, n_experts]), fresh=fresh,
    )
    for _ in range(25):
        n = rng.randint(1, n_experts)
        machine.cache.begin_step(rng.choice([1, 1, 40, 3000]))
        for layer in range(n_layers):
            predicted = [e for e, _ in machine.choose(rng.randint(0, n_experts))] if rng.random() < 0.7 else None
            machine.layer(layer, machine.choose(n, rows=4), predicted)
            machine.cache.check()
            if rng.random() < 0.5:
                machine.warm()
    machine.cache.end_step()
    machine.cache.check()


def test_with_room_for_all_each_slice_is_read_once() -> None:
    machine = Machine(1, n_layers=2, n_experts=8, n_slots=48)
    for _ in range(20):
        machine.cache.begin_step(1)
        for layer in range(2):
            machine.layer(layer, machine.choose(3), [e for e, _ in machine.choose(3)])
    assert machine.reads <= 48


def test_a_prompt_reads_each_slice_once_although_they_exceed_the_slots() -> None:
    machine = Machine(2, n_layers=1, n_experts=16, n_slots=10)
    for _ in range(3):
        before = machine.reads
        machine.cache.begin_step(64)
        machine.layer(0, machine.choose(16, rows=8))
        assert machine.reads - before <= 48


def test_a_prompt_leaves_what_generation_gathered() -> None:
    machine = Machine(3, n_layers=1, n_experts=64, n_slots=30, passing=6, half_life=1000)
    favourites = [(e, 1) for e in range(8)]
    for _ in range(100):
        machine.cache.begin_step(1)
        machine.layer(0, favourites)
    machine.cache.begin_step(8)
    machine.layer(0, [(e, 1) for e in range(64)])
    before = machine.reads
    machine.cache.begin_step(1)
    machine.layer(0, favourites)
    assert machine.reads == before, "a prompt flushed the experts that generation uses"


def test_use_counts_survive_eviction() -> None:
    machine = Machine(4, n_layers=1, n_experts=8, n_slots=6, passing=3, half_life=1000)
    for _ in range(50):
        machine.cache.begin_step(1)
        machine.layer(0, [(0, 1)])
    for expert in range(1, 8):  # each once: expert 0 may go, its count stays
        machine.cache.begin_step(1)
        machine.layer(0, [(expert, 1)])
    machine.cache.begin_step(1)
    machine.layer(0, [(0, 1)])
    before = machine.reads
    for expert in range(1, 8):
        machine.cache.begin_step(1)
        machine.layer(0, [(0, 1), (expert, 1)])
    assert machine.reads - before == 7 * 3, "the expert that is used most was replaced by one that was used once"


def test_a_prompt_passes_through_few_slots_while_the_others_are_not_warm() -> None:
    machine = Machine(5, n_layers=1, n_experts=64, n_slots=100, passing=6, fresh=True)
    machine.cache.begin_step(8)
    machine.layer(0, [(e, 1) for e in range(64)])
    first = machine.cache.first_slice(machine.matrices[0][0])
    ready = [s for s in range(first, first + 3 * 64) if machine.cache.state(s) == READY]
    assert len(ready) <= 8
    assert all(machine.cache.place(s) < 8 * 64 for s in ready), "fresh slots were used"


def test_slots_that_are_warm_fill_and_stay() -> None:
    machine = Machine(6, n_layers=1, n_experts=8, n_slots=24, passing=6, fresh=True)
    while (run := machine.cache.take_fresh(1000))[2]:
        machine.cache.warmed(*run)
    for _ in range(10):
        machine.cache.begin_step(1)
        machine.layer(0, machine.choose(8))
    assert machine.reads == 24


def test_preloading_waits_for_slots_that_are_being_warmed() -> None:
    cache = _core.ExpertCache()
    cache.add_matrix(cache.add_layer(3), 0, 64)
    cache.finish({64: 2}, 10, 1, are_fresh=True)
    cache.restore_usage([1.0, 2.0, 3.0])
    cache.preload()
    assert cache.next_idle_read() == -1
    first = cache.take_fresh(1)
    assert cache.next_idle_read() == -1
    cache.warmed(*first)
    assert [cache.next_idle_read() for _ in range(2)] == [2, -1]
    cache.warmed(*cache.take_fresh(1))
    assert [cache.next_idle_read() for _ in range(2)] == [1, -1]
    cache.check()


def test_ready_experts_come_first_then_those_being_read() -> None:
    cache = _core.ExpertCache()
    matrix = cache.add_matrix(cache.add_layer(6), 0, 64)
    cache.finish({64: 6}, 10, 2)
    first = cache.first_slice(matrix)
    cache.begin_step(1)
    cache.want(0, [(4, 1)])
    assert cache.next_read() == first + 4
    cache.landed(first + 4)
    cache.predict(0, [2])
    assert cache.next_read() == first + 2
    assert cache.want(0, [(0, 1), (2, 1), (4, 1)]) == [4, 2, 0]
    assert cache.counts() == {"wanted": 4, "ready": 1, "coming": 1, "predicted": 1, "unused": 0}


def test_wanted_slices_are_read_before_predicted_ones_and_predictions_end_with_the_next_layer() -> None:
    cache = _core.ExpertCache()
    matrices = [cache.add_matrix(cache.add_layer(4), 0, 64) for _ in range(2)]
    cache.finish({64: 8}, 10, 8)
    cache.begin_step(1)
    cache.want(0, [(0, 1), (1, 1)])
    cache.predict(1, [0, 1, 2])
    reads = [cache.next_read() for _ in range(3)]
    second = cache.first_slice(matrices[1])
    assert reads == [0, 1, second]
    cache.want(1, [(3, 1)])
    assert cache.next_read() == second + 3
    assert cache.next_read() == -1


def test_readers_are_needed_only_where_a_slice_is_missing_or_waits_for_a_slot() -> None:
    cache = _core.ExpertCache()
    for _ in range(2):
        cache.add_matrix(cache.add_layer(3), 0, 64)
    cache.finish({64: 2}, 10, 1)
    cache.begin_step(1)
    cache.want(0, [(0, 1), (1, 1), (2, 1)])
    assert cache.has_unread()
    assert [cache.next_read() for _ in range(3)] == [0, 1, -1], "two slots"
    assert cache.has_unread(), "the third waits for a slot"
    for slice_ in (0, 1):
        cache.landed(slice_)
    cache.finished(0)
    assert cache.next_read() == 2
    cache.landed(2)
    assert cache.next_read() == -1
    assert not cache.has_unread()
    cache.begin_step(1)
    cache.want(0, [(1, 1), (2, 1)])
    assert not cache.has_unread(), "both are in memory"
    cache.predict(1, [0])
    assert cache.next_read() == -1
    assert (cache.has_unread(), cache.has_guesses()) == (False, True), "a guess waits for a slot"


def test_guesses_wait_where_only_wanted_slices_may_be_read() -> None:
    cache = _core.ExpertCache()
    for _ in range(2):
        cache.add_matrix(cache.add_layer(3), 0, 64)
    cache.finish({64: 3}, 10, 3)
    cache.begin_step(1)
    cache.want(0, [(1, 1)])
    cache.predict(1, [2])
    assert [cache.next_read(guesses=False) for _ in range(2)] == [1, -1]
    assert cache.has_guesses()
    assert cache.next_read() == 3 + 2
    assert not cache.has_guesses()


def test_predicted_experts_are_not_replaced_while_others_can_be() -> None:
    cache = _core.ExpertCache()
    layers = [cache.add_matrix(cache.add_layer(4), 0, 64) for _ in range(2)]
    cache.finish({64: 3}, 10, 3)
    second = cache.first_slice(layers[1])

    def read() -> None:
        while (slice_ := cache.next_read()) >= 0:
            cache.landed(slice_)
            cache.finished(slice_)

    cache.begin_step(1)
    cache.want(1, [(0, 1)])
    read()
    for _ in range(5):  # layer 0 is used more, so that layer 1's expert would be the one to go
        cache.begin_step(1)
        cache.want(0, [(0, 1), (1, 1)])
        read()
    cache.begin_step(1)
    cache.want(0, [(2, 9)])
    cache.predict(1, [0])
    read()
    assert cache.state(second) == READY


def test_a_slice_that_is_being_multiplied_is_not_replaced() -> None:
    cache = _core.ExpertCache()
    layer = cache.add_layer(2)
    matrices = [cache.add_matrix(layer, 0, 64), cache.add_matrix(layer, 1, 128)]
    cache.finish({64: 1, 128: 1}, 10, 1)
    gate, down = map(cache.first_slice, matrices)
    cache.begin_step(1)
    cache.want(0, [(1, 1)])
    assert cache.next_read() == gate + 1
    cache.landed(gate + 1)
    cache.begin_step(2)
    assert cache.want(0, [(0, 1), (1, 1)]) == [0, 1]
    assert cache.use(gate + 1)
    assert cache.next_read() == down + 0, "the only slot of a gate is in use"
    cache.release(gate + 1)
    assert cache.next_read() == gate + 0
    assert not cache.use(gate + 1)
    cache.check()


def test_a_failed_slice_is_read_again_in_the_next_step() -> None:
    cache = _core.ExpertCache()
    cache.add_matrix(cache.add_layer(2), 0, 64)
    cache.finish({64: 1}, 10, 1)
    cache.begin_step(1)
    cache.want(0, [(1, 1)])
    assert cache.next_read() == 1
    cache.failed(1)
    assert cache.state(1) == FAILED
    cache.check()
    cache.begin_step(1)
    assert cache.state(1) == ABSENT
    cache.want(0, [(1, 1)])
    assert cache.next_read() == 1
    cache.landed(1)
    cache.check()


def test_an_abandoned_slice_is_read_again_when_it_is_wanted() -> None:
    cache = _core.ExpertCache()
    cache.add_matrix(cache.add_layer(2), 0, 64)
    cache.finish({64: 1}, 10, 1)
    cache.begin_step(1)
    cache.predict(0, [1])
    assert cache.next_read() == 1
    cache.want(0, [(1, 1)])
    assert cache.next_read() == -1
    cache.abandoned(1)
    assert cache.next_read() == 1
    cache.landed(1)
    cache.check()


def test_the_same_calls_give_the_same_decisions() -> None:
    def run() -> int:
        machine = Machine(5, n_layers=3, n_experts=16, n_slots=40)
        for _ in range(30):
            machine.cache.begin_step(1)
            for layer in range(3):
                machine.layer(layer, machine.choose(4), [e for e, _ in machine.choose(4)])
        return machine.reads

    assert run() == run()


def preload(machine: Machine, shares: list[float]) -> list[int]:
    """The slices that are read while nothing else is, in order."""
    machine.cache.restore_usage(shares)
    machine.cache.preload()
    read = []
    while (slice_ := machine.cache.next_idle_read()) >= 0:
        machine.cache.landed(slice_)
        read.append(slice_)
    machine.cache.check()
    return read


def test_preloading_takes_the_most_used_experts_and_only_free_slots() -> None:
    machine = Machine(8, n_layers=1, n_experts=8, n_slots=12)
    assert preload(machine, [0, 5, 1, 9, 0, 2, 3, 0]) == [3, 11, 19, 1, 9, 17, 6, 14, 22, 5, 13, 21]
    machine.cache.begin_step(1)
    machine.layer(0, [(3, 1), (1, 1)])
    assert machine.reads == 0
    machine.layer(0, [(0, 1), (4, 1)])
    assert machine.reads == 6
    machine.cache.check()
    assert preload(machine, [1] * 8) == [], "no slot is free"


def test_unused_experts_are_not_preloaded() -> None:
    assert preload(Machine(8, n_layers=1, n_experts=4, n_slots=12), [0, 0, 0, 1]) == [3, 7, 11]


def test_of_experts_used_equally_long_ago_those_of_layers_to_come_stay() -> None:
    machine = Machine(9, n_layers=4, n_experts=8, n_slots=30, passing=1, half_life=1)
    for _ in range(2):
        machine.cache.begin_step(1)
        for layer in range(4):
            machine.layer(layer, [(0, 1), (1, 1)])
    machine.cache.begin_step(1)
    machine.layer(0, [(6, 1), (7, 1), (5, 1)])  # 9 slices for 6 free slots: what goes is of layer 0, not of 1 to 3
    before = machine.reads
    for layer in (1, 2, 3):
        machine.layer(layer, [(0, 1), (1, 1)])
    assert machine.reads == before
