import numpy as np
import pytest

from tenth.program import memory, passes
from tenth.program.reference import Batch, run
from tenth.program.values import Q8_BLOCK_BYTES

CAPACITY = {"tokens": 9, "outputs": 3}


@pytest.fixture(params=["plain", "optimised"])
def either(request, program, matrices):
    return program if request.param == "plain" else passes.optimise(program, matrices)


def test_buffers_that_live_together_do_not_overlap(either):
    arena = memory.plan(either, CAPACITY)
    lives = memory.lifetimes(either)
    for a in lives:
        assert a.offset % memory.ALIGNMENT == 0
        assert 0 <= a.offset <= a.offset + memory.size_bytes(a, CAPACITY) <= arena
        for b in lives:
            if a is not b and lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1]:
                first, second = sorted((a, b), key=lambda v: v.offset)
                assert first.offset + memory.size_bytes(first, CAPACITY) <= second.offset


def test_what_joins_gate_and_up_has_room_while_they_are_made(program, matrices):
    improved = passes.optimise(program, matrices)
    lives = memory.lifetimes(improved)
    joins = [(i, at) for at, i in enumerate(improved.instructions) if i.op in memory.JOINS]
    assert joins
    for join, at in joins:
        assert improved.instructions[at - 1].outputs == join.inputs
        assert lives[join.outputs[0]][0] == at - 1


def test_space_is_used_again(either):
    arena = memory.plan(either, CAPACITY)
    assert arena < sum(memory.size_bytes(v, CAPACITY) for v in memory.lifetimes(either)) / 3


def test_q8_buffers_hold_a_multiple_of_sixteen_rows(program, matrices):
    improved = passes.optimise(program, matrices)
    q8 = next(v for v in memory.lifetimes(improved) if v.dtype == "q8")
    assert q8.shape == (32,)
    assert memory.size_bytes(q8, CAPACITY) == 16 * Q8_BLOCK_BYTES  # for 9 rows
    assert memory.size_bytes(q8, {"tokens": 17, "outputs": 1}) == 32 * Q8_BLOCK_BYTES


@pytest.mark.parametrize("n", [1, 9])
def test_the_arena_gives_what_loose_buffers_give(either, weights, n):
    arena = memory.plan(either, CAPACITY)
    batch = Batch.single(list(range(n)), outputs=[n - 1])
    assert np.array_equal(run(either, weights, batch, arena_bytes=arena), run(either, weights, batch))


def test_a_wrong_plan_shows(program, weights):
    arena = memory.plan(program, CAPACITY)
    batch = Batch.single([1, 2, 3])
    embedded = program.instructions[1].outputs[0]  # lives long
    crushing = program.instructions[2].outputs[0]
    crushing.offset = embedded.offset
    assert not np.array_equal(run(program, weights, batch, arena_bytes=arena), run(program, weights, batch))


def test_views_lie_where_their_base_lies(either):
    memory.plan(either, CAPACITY)
    views = [v for i in either.instructions for v in i.inputs if v.base is not None]
    assert views
    assert all(v.offset == v.base.offset >= 0 for v in views)
