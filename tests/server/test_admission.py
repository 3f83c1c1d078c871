"""The queue in front of a model: bounded, fair between callers, and never stuck."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.server.admission import Gate, Need, Room
from tenth.server.failures import Refused

ONE = Need(places=1, tokens=10)


def order(gate, tickets):
    """Names of the tickets that are at work."""
    return [name for name, ticket in tickets.items() if ticket.admitted.is_set()]


def test_places_and_tokens_bound_what_is_at_work():
    gate = Gate(Room(places=3, tokens=100, waiting=10))
    tickets = {"a": gate.enter("x", Need(1, 60)), "b": gate.enter("x", Need(1, 60)), "c": gate.enter("x", ONE)}
    assert order(gate, tickets) == ["a"]  # c does not overtake b, or a large request might wait for ever
    gate.leave(tickets["a"])
    assert order(gate, tickets) == ["a", "b", "c"]


def test_a_request_larger_than_the_model_runs_alone():
    gate = Gate(Room(places=2, tokens=100, waiting=10))
    big, small = gate.enter("x", Need(5, 1000)), gate.enter("x", ONE)
    assert big.admitted.is_set()
    assert not small.admitted.is_set()
    gate.leave(big)
    assert small.admitted.is_set()


def test_callers_take_turns_however_much_one_has_queued():
    gate = Gate(Room(places=1, tokens=100, waiting=20))
    tickets = {f"a{i}": gate.enter("a", ONE) for i in range(5)} | {f"b{i}": gate.enter("b", ONE) for i in range(2)}
    finished = []
    while gate.n_at_work:
        (now,) = [name for name in order(gate, tickets) if name not in finished]
        finished.append(now)
        gate.leave(tickets[now])
    assert finished == ["a0", "a1", "b0", "a2", "b1", "a3", "a4"]


def test_one_too_many_is_told_when_to_come_again():
    gate = Gate(Room(places=1, tokens=100, waiting=3))
    for _ in range(4):
        gate.enter("x", ONE)
    with pytest.raises(Refused) as caught:
        gate.enter("x", ONE)
    assert caught.value.status == 429
    assert 1 <= caught.value.retry_after_s <= 60
    gate.enter("another", ONE)  # whoever has nothing in the queue still finds room in it
    with pytest.raises(Refused):
        gate.enter("another", ONE)


def test_while_others_wait_nobody_has_more_than_half_of_the_queue():
    gate = Gate(Room(places=1, tokens=100, waiting=6))
    gate.enter("x", ONE)  # at work
    gate.enter("x", ONE)
    for _ in range(3):
        gate.enter("y", ONE)
    with pytest.raises(Refused):
        gate.enter("y", ONE)  # the fourth, though two places are left
    gate.enter("x", ONE)


def test_closing_refuses_who_waits_and_lets_the_others_finish():
    async def play():
        gate = Gate(Room(places=1, tokens=100, waiting=3))
        first, second = gate.enter("x", ONE), gate.enter("x", ONE)
        async with gate.turn(first):
            waiting = asyncio.create_task(_wait(gate, second))
            await asyncio.sleep(0)
            gate.close()
            with pytest.raises(Refused, match="shutting down"):
                await waiting
        assert gate.n_at_work == gate.n_waiting == 0

    asyncio.run(play())


async def _wait(gate, ticket):
    async with gate.turn(ticket):
        pass


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.integers(1, 150), st.booleans()), max_size=40))
def test_everybody_gets_a_turn_and_nothing_is_exceeded(requests):
    gate = Gate(Room(places=3, tokens=200, waiting=100))
    tickets = []
    for owner, places, tokens, gives_up in requests:
        tickets.append(gate.enter(owner, Need(places, tokens)))
        if gives_up:
            gate.leave(tickets.pop())
    finished = set()
    while len(finished) < len(tickets):
        at_work = [t for t in tickets if t.admitted.is_set() and t not in finished]
        assert at_work, "requests wait and none is at work"
        assert len(at_work) == gate.n_at_work
        if len(at_work) > 1:
            assert sum(t.need.places for t in at_work) <= 3
            assert sum(t.need.tokens for t in at_work) <= 200
        gate.leave(at_work[0])
        finished.add(at_work[0])
    assert gate.n_waiting == gate.n_at_work == 0
