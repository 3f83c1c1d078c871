"""Recurrent state: slots and checkpoints by themselves, in the engine on a toy, and on a real (tiny) model."""

import random

import pytest

from tenth.config import EngineConfig
from tenth.engine.engine import Engine
from tenth.engine.pages import Pages
from tenth.engine.request import Request, Sequence
from tenth.engine.scheduler import LEAST_SAVED_TOKENS, Limits, Scheduler
from tenth.engine.states import States
from tenth.errors import ResourceError
from tenth.loader import open_runtime
from tenth.weights.gguf import read_header

from .test_end_to_end import DATA, Heard, submit
from .test_speculation import Guesses
from .toy import Recorder, RepeatingRuntime, StatefulRuntime, ask, expected, prompt_of, repeating


def test_sequences_get_slots_of_their_own_and_give_them_back():
    states = States(3)
    taken = [states.take() for _ in range(3)]
    assert sorted(taken) == [0, 1, 2]
    states.release(taken[1])
    assert states.take() == taken[1]
    assert not States(0)


def test_a_checkpoint_is_a_copy_that_a_sequence_can_go_on_from():
    states = States(4)
    first = states.take()
    states.keep(7, first)
    ((source, copy),) = states.take_copies()
    assert source == first
    second = states.take(7)
    assert states.take_copies() == [(copy, second)]
    assert len({first, second, copy}) == 3
    assert states.take_copies() == []


def test_the_oldest_checkpoint_makes_room_but_never_the_one_that_is_gone_on_from():
    states = States(4)
    slot = states.take()
    for identity in (1, 2, 3):
        states.keep(identity, slot)
    states.keep(1, slot)  # used again: nothing is copied, and 2 is the oldest now
    assert len(states.take_copies()) == 3
    states.keep(4, slot)
    assert [states.has(identity) for identity in (1, 2, 3, 4)] == [True, False, True, True]
    states.take_copies()
    states.take(3)  # 1 goes: it is the oldest but for 3
    assert [states.has(identity) for identity in (1, 3, 4)] == [False, True, True]


def test_when_sequences_have_every_slot_there_is_no_checkpoint():
    states = States(2)
    first, _ = states.take(), states.take()
    states.keep(1, first)
    assert not states.has(1)
    assert states.take_copies() == []


def test_forgotten_checkpoints_give_their_slots_back():
    states = States(3)
    slot = states.take()
    states.keep(1, slot)
    states.keep(2, slot)
    states.forget(1)
    states.forget(5)
    assert states.n_checkpoints == 1
    states.clear()
    assert len({states.take(), states.take(), slot}) == 3


def rows_of_a_prompt(n_tokens, reuse=True):
    s = Scheduler(Pages(64, reuse), Limits(100, 4, 1024), States(6))
    s.add(Sequence(Request(list(range(n_tokens)), Recorder()), 1, 1024))
    rows = []
    while (chunks := s.plan())[0].sequence.n_pending > 0:
        rows.append(chunks[0].n_rows)
        s.advance(chunks)
        if chunks[0].sequence.n_pending == 0:
            break
    return rows, s.states.n_checkpoints


def test_a_chunk_ends_where_a_checkpoint_is_worth_it():
    assert rows_of_a_prompt(250) == ([100, 100, 24, 26], 1)
    assert rows_of_a_prompt(LEAST_SAVED_TOKENS) == ([100, 28], 0)
    assert rows_of_a_prompt(LEAST_SAVED_TOKENS + 1) == ([100, 28, 1], 1)
    assert rows_of_a_prompt(250, reuse=False) == ([100, 100, 50], 0)


@pytest.fixture
def start(start_engine):
    def make(runtime=None, **options):
        return start_engine(runtime or StatefulRuntime(n_slots=options.get("max_sequences", 8) + 3), **options)

    return make


def test_a_prompt_with_the_same_beginning_goes_on_from_the_checkpoint(start):
    engine = start()
    prompt = prompt_of(200)
    for other, cached in [(prompt, 0), (prompt, 192), ([*prompt, 1, 2], 192), (prompt[:150], 0), (prompt[:150], 128)]:
        _, heard = ask(engine, other, 20)
        assert heard.wait().tokens == expected(other, 20)
        assert heard.cached == cached


def test_the_answer_is_reused_by_the_next_turn(start):
    engine = start()
    prompt = prompt_of(40)
    answer = ask(engine, prompt, 60)[1].wait().tokens
    following = [*prompt, *answer, 7, 8]
    _, heard = ask(engine, following, 5)
    assert heard.wait().cached == 96
    assert heard.tokens == expected(following, 5)


def test_without_prefix_reuse_nothing_is_copied(start):
    runtime = StatefulRuntime()
    engine = start(runtime, prefix_reuse=False)
    for _ in range(2):
        _, heard = ask(engine, prompt_of(200), 50)
        assert heard.wait().cached == 0
    assert runtime.n_copies == 0


def test_a_prompt_goes_on_after_its_pages_were_evicted(start):
    engine = start(StatefulRuntime(n_pages=9))
    prompt = prompt_of(200)
    for other in (prompt, prompt_of(230, seed=1), prompt):
        _, heard = ask(engine, other, 20)
        assert heard.wait().tokens == expected(other, 20)
        assert heard.cached == 0


class RepeatingStates(RepeatingRuntime, StatefulRuntime):
    """Text that can be guessed at, with a state."""


def test_without_spare_slots_nothing_is_guessed_ahead_of_a_state(start):
    engine = start(RepeatingStates(n_slots=2), max_sequences=1, speculation=Guesses(), prefix_reuse=False)
    _, heard = ask(engine, prompt_of(9), 60)
    assert heard.wait().tokens == repeating(prompt_of(9), 60)
    assert engine.stats.n_drafted == 0


@pytest.mark.parametrize("wrong_every", [1, 2, 5, 1000])
@pytest.mark.parametrize("n_prompt", [1, 31, 32, 33, 140])
@pytest.mark.parametrize("n_spare", [1, 3, 7])
def test_guesses_ahead_of_a_state_change_no_text(start, n_prompt, wrong_every, n_spare):
    runtime = RepeatingStates(n_slots=5 + n_spare, n_spare_slots=n_spare)
    engine = start(runtime, max_sequences=2, speculation=Guesses(wrong_every=wrong_every))
    prompt = prompt_of(n_prompt)
    for cached in (False, True):
        request, heard = ask(engine, prompt, 150)
        assert heard.wait().tokens == repeating(prompt, 150)
        assert request.speculated.n_drafted > 0
        assert (request.speculated.n_accepted == 0) == (wrong_every == 1)
        assert not cached or n_prompt < 140 or heard.cached >= 128
    scheduler = engine._loop.scheduler
    engine.forget_prefixes()
    assert scheduler.states.n_ahead == n_spare
    assert len({scheduler.states.take() for _ in range(5 + n_spare)}) == 5 + n_spare  # every slot came back


def test_checkpoints_leave_the_spare_slots_alone():
    states = States(5, n_spare=2)
    slot = states.take()
    for identity in range(1, 6):
        states.keep(identity, slot)
    assert (states.n_checkpoints, states.n_ahead) == (2, 2)
    ahead = states.take_ahead(2)
    assert len({*ahead, slot}) == 3
    states.keep(9, slot)  # in the place of the oldest
    assert [states.has(identity) for identity in (4, 5, 9)] == [False, True, True]
    states.release_ahead(ahead)
    assert states.n_ahead == 2


def test_random_traffic_with_guesses_and_states_gives_everyone_the_right_text(start):
    rng = random.Random(13)
    runtime = RepeatingStates(n_pages=14, max_rows=33, n_slots=9, n_spare_slots=3)
    engine = start(runtime, max_sequences=4, speculation=Guesses(n=3))
    for _ in range(5):
        runtime.gate.clear()
        jobs = []
        for _ in range(6):
            prompt = prompt_of(rng.choice((20, 140, 200)), seed=rng.randrange(3))
            jobs.append((prompt, *ask(engine, prompt, rng.randint(1, 90))))
        runtime.gate.set()
        for i, (_, request, heard) in enumerate(jobs):
            if i % 4 == 3:
                heard.first.wait(60)
                engine.cancel(request)
        for prompt, _, heard in jobs:
            heard.wait()
            assert heard.error is None
            assert heard.tokens == repeating(prompt, len(heard.tokens))
    assert engine.stats.n_accepted > 0
    engine.forget_prefixes()
    assert len({engine._loop.scheduler.states.take() for _ in range(9)}) == 9


def test_logits_of_a_text_disturb_nobody(start):
    engine = start(StatefulRuntime(n_slots=4, max_outputs=16), max_sequences=3)
    prompts = [prompt_of(n, seed=n) for n in (150, 40, 90)]
    heard = [ask(engine, prompt, 60)[1] for prompt in prompts]
    alone = engine.logits(prompts[0])
    for prompt, listener in zip(prompts, heard, strict=True):
        assert listener.wait().tokens == expected(prompt, 60)
    assert (engine.logits(prompts[0]) == alone).all()


def test_random_traffic_with_few_pages_and_slots_gives_everyone_the_right_text(start):
    rng, runtime = random.Random(12), StatefulRuntime(n_pages=14, max_rows=33, n_slots=6)
    engine = start(runtime, max_sequences=4)
    stems = [prompt_of(250, seed=i) for i in range(2)]
    for _ in range(6):
        runtime.gate.clear()  # all of these arrive at once
        jobs = []
        for _ in range(8):
            prompt = stems[rng.randrange(2)][: rng.choice((20, 140, 250))] + prompt_of(rng.randint(0, 40), rng.random())
            jobs.append((prompt, *ask(engine, prompt, rng.randint(1, 90))))
        runtime.gate.set()
        for i, (_, request, heard) in enumerate(jobs):
            if i % 4 == 3:
                heard.first.wait(60)
                engine.cancel(request)
        for prompt, _, heard in jobs:
            heard.wait()
            assert heard.error is None
            assert heard.tokens == expected(prompt, len(heard.tokens))
    assert engine.stats.n_preemptions > 0
    assert engine.stats.n_cached_tokens > 0
    engine.forget_prefixes()
    scheduler = engine._loop.scheduler
    assert scheduler.pages.n_available == 14
    assert len({scheduler.states.take() for _ in range(6)}) == 6  # every slot came back


def test_a_failed_step_ends_its_requests_and_leaves_no_slot_taken(start):
    runtime = StatefulRuntime(n_slots=3)
    engine = start(runtime, max_sequences=1)
    runtime.fail_when = lambda batch: ResourceError("no") if len(runtime.batches) == 2 else None
    _, heard = ask(engine, prompt_of(100), 30)
    assert isinstance(heard.wait().error, ResourceError)
    for _ in range(4):
        _, heard = ask(engine, prompt_of(100), 30)
        assert heard.wait().tokens == expected(prompt_of(100), 30)


# ---- a real model


def real(**settings):
    config = EngineConfig(**settings)
    runtime = open_runtime(read_header(DATA / "golden_qwen35_quantised.gguf"), config).runtime
    return Engine(runtime, max_sequences=config.max_sequences, prefix_reuse=config.prefix_reuse)


def test_a_checkpoint_gives_the_same_bits_as_computing_everything():
    rng = random.Random(4)
    prompt = [rng.randrange(96) for _ in range(180)]
    first = real(prefix_reuse=False, threads=1)
    plain = submit(first, prompt, 20).wait()
    following = [*prompt, *(token for token, *_ in plain), 5, 6, 7]
    turn = submit(first, following, 20).wait()
    first.close()
    engine = real(threads=2, chunk_tokens=50)
    for cached in (0, 160):
        heard = submit(engine, prompt, 20)
        assert heard.wait() == plain
        assert heard.cached == cached
    heard = submit(engine, following, 20)
    assert heard.wait() == turn
    assert heard.cached == 192
    engine.close()


def test_more_sequences_than_may_run_all_get_their_own_text():
    rng = random.Random(5)
    prompts = [[rng.randrange(96) for _ in range(20 + 9 * i)] for i in range(5)]
    alone = real(threads=1)
    expected_texts = [submit(alone, prompt, 40).wait() for prompt in prompts]
    alone.close()
    engine = real(threads=2, max_sequences=2, kv_tokens=96)
    heard: list[Heard] = [submit(engine, prompt, 40) for prompt in prompts]
    assert [one.wait() for one in heard] == expected_texts
    assert engine.stats.n_preemptions > 0
    engine.close()
