"""Readers on event loops are woken once a step, however many answers had a token in it, and always in the end."""

import asyncio
from pathlib import Path

import pytest

import tenth
from tenth.engine import waking

TINY = Path(__file__).parents[1] / "data" / "golden_chat.gguf"


class Loop:
    def __init__(self):
        self.told = 0

    def call_soon_threadsafe(self, call, *values):
        self.told += 1
        call(*values)


@pytest.fixture
def held():
    waking.hold()
    yield
    waking._noted.calls = None


def test_what_is_not_held_is_done_at_once():
    loop, done = Loop(), []
    waking.soon(loop, lambda: done.append(1))
    assert (loop.told, done) == (1, [1])


def test_what_is_held_is_done_once_for_each_loop(held):
    loops, done = [Loop(), Loop()], []
    for i in range(6):
        waking.soon(loops[i % 2], lambda i=i: done.append(i))
    assert done == []
    waking.let_go()
    waking.let_go()
    assert done == [0, 2, 4, 1, 3, 5]
    assert [loop.told for loop in loops] == [1, 1]


def test_a_closed_loop_keeps_nobody_from_being_woken(held):
    loop, open_one = asyncio.new_event_loop(), Loop()
    loop.close()
    done = []
    waking.soon(loop, lambda: done.append("closed"))
    waking.soon(open_one, lambda: done.append("open"))
    waking.let_go()
    assert done == ["open"]


def test_a_loop_is_woken_once_a_step():
    async def read(model, loop):
        n_before, told, tell = model.stats.n_steps, [0], loop.call_soon_threadsafe

        def counted(*what):
            told[0] += 1
            return tell(*what)

        loop.call_soon_threadsafe = counted
        streams = [model.generate("abc", max_tokens=40, ignore_eos=True, temperature=0.0) for _ in range(6)]

        async def take(stream):
            return "".join([piece async for piece in stream])

        texts = await asyncio.gather(*map(take, streams))
        return texts, told[0], model.stats.n_steps - n_before

    async def main(model):
        return await read(model, asyncio.get_running_loop())

    with tenth.load(TINY, max_sequences=6, speculate=False) as model:
        texts, n_told, n_steps = asyncio.run(main(model))
        assert set(texts) == {model.generate("abc", max_tokens=40, ignore_eos=True, temperature=0.0).text}
        assert n_told <= n_steps + 2  # one more when the engine falls asleep
