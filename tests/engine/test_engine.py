import gc
import threading

import numpy as np
import pytest

from tenth.batch import StepStopped
from tenth.engine.engine import Engine
from tenth.engine.request import Reaction, TokenChoice
from tenth.errors import RequestError, ResourceError

from .toy import VOCAB, ToyRuntime, ask, expected, prompt_of, random_traffic


@pytest.fixture
def start(start_engine):
    return lambda runtime=None, **options: start_engine(runtime or ToyRuntime(), **options)


@pytest.mark.parametrize("n_prompt", [1, 31, 32, 33, 63, 64, 65, 200])
@pytest.mark.parametrize("max_rows", [1, 7, 32, 100])
def test_the_text_does_not_depend_on_the_chunks(start, n_prompt, max_rows):
    prompt = prompt_of(n_prompt)
    if n_prompt * 32 // max_rows > 1000:
        prompt = prompt[:50]
    _, heard = ask(start(ToyRuntime(max_rows=max_rows)), prompt, 40)
    assert heard.wait().tokens == expected(prompt, 40)
    assert heard.reason == "length"


def test_the_text_does_not_depend_on_company(start):
    runtime = ToyRuntime(max_rows=40)
    engine = start(runtime, max_sequences=5)
    prompts = [prompt_of(n, seed=n) for n in (3, 150, 64, 31, 90, 1, 33, 100)]
    runtime.gate.clear()
    heard = [ask(engine, prompt, 30)[1] for prompt in prompts]
    runtime.gate.set()
    for prompt, listener in zip(prompts, heard, strict=True):
        assert listener.wait().tokens == expected(prompt, 30)
    assert max(len(batch.pages) for batch in runtime.batches) == 5


def test_the_text_does_not_depend_on_prefix_reuse(start):
    engine = start()
    prompt = prompt_of(100)
    for other, cached in [(prompt, 0), (prompt, 96), ([*prompt[:70], 1, 2], 64), ([5, *prompt], 0), (prompt[:96], 64)]:
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


def test_without_prefix_reuse_nothing_is_cached(start):
    engine = start(prefix_reuse=False)
    for _ in range(2):
        _, heard = ask(engine, prompt_of(100), 3)
        assert heard.wait().cached == 0


def test_when_pages_run_out_sequences_restart_and_their_text_stays_the_same(start):
    runtime = ToyRuntime(n_pages=8, max_rows=50)
    engine = start(runtime, max_sequences=4)
    prompts = [prompt_of(40, seed=i) for i in range(5)]
    runtime.gate.clear()
    heard = [ask(engine, prompt, 70)[1] for prompt in prompts]
    runtime.gate.set()
    for prompt, listener in zip(prompts, heard, strict=True):
        assert listener.wait().tokens == expected(prompt, 70)
    assert engine.stats.n_preemptions > 0


def test_random_traffic_with_few_pages_gives_everyone_the_right_text(start):
    random_traffic(start(ToyRuntime(n_pages=10, max_rows=33), max_sequences=4), 40, expected)


def test_random_numbers_are_keyed_by_request_and_number_of_the_token(start):
    engine = start()
    prompt = prompt_of(9)
    heard = [ask(engine, prompt, 10, choice=TokenChoice(seed=seed))[1] for seed in (1, 2, 1)]
    first, second, third = (listener.wait().tokens for listener in heard)
    assert first == third == expected(prompt, 10, seed=1)
    assert second == expected(prompt, 10, seed=2)


def test_a_stop_token_ends_the_request_and_is_not_reported(start):
    prompt = prompt_of(20)
    tokens = expected(prompt, 10)
    stop = next(t for i, t in enumerate(tokens) if i > 2 and t not in tokens[:i])
    _, heard = ask(start(), prompt, 10, stop_ids=frozenset([stop]))
    assert heard.wait().tokens == tokens[: tokens.index(stop)]
    assert (heard.reason, heard.n_generated) == ("stop", tokens.index(stop) + 1)


def test_a_listener_can_stop_its_request(start):
    _, heard = ask(start(), [1], 50, react=lambda token: Reaction(stop=True))
    assert heard.wait().reason == "stop"
    assert len(heard.tokens) == 1


def test_forced_tokens_follow_as_if_they_had_been_generated(start):
    prompt = prompt_of(60)
    first = expected(prompt, 1)[0]
    forced = tuple(prompt_of(40, seed=3))

    def react(token):
        return Reaction(force=forced) if token.id == first else Reaction()

    _, heard = ask(start(), prompt, 50, react=react)
    following = expected([*prompt, first, *forced], 50)
    assert heard.wait().n_generated == 50
    assert heard.tokens[0] == first
    assert len(heard.tokens) == 10  # 1 before and 9 behind the 40 that were forced
    assert following  # counters differ from a fresh request's, so compare through the toy's own rule
    from .toy import digest, next_token

    tokens, digests = [*prompt, first, *forced], []
    for n in range(9):
        for position in range(len(digests), len(tokens)):
            digests.append(digest(digests, tokens[position], position))
        tokens.append(next_token(digests[-1], 0, 41 + n))
    assert heard.tokens[1:] == tokens[-9:]


def test_the_end_of_the_context_is_reason_length(start):
    prompt = prompt_of(50)
    _, heard = ask(start(ToyRuntime(context_tokens=64)), prompt, None)
    assert heard.wait().tokens == expected(prompt, 14)
    assert heard.reason == "length"


def test_the_end_of_the_cache_is_reason_length(start):
    prompt = prompt_of(50)
    _, heard = ask(start(ToyRuntime(n_pages=2)), prompt, 1000)
    assert heard.wait().tokens == expected(prompt, 14)


@pytest.mark.parametrize("prompt", [[], [VOCAB], [-1], [1] * 1024, [1.5], ["a"], [1 << 70]])
def test_a_prompt_that_cannot_be_computed_is_refused_at_once(start, prompt):
    with pytest.raises(RequestError, match=r"\w"):
        ask(start(), prompt)


class Long(ToyRuntime):
    """Its first step with many rows takes until it is stopped."""

    def __init__(self, **options):
        super().__init__(**options)
        self.has_begun, self.was_told = threading.Event(), threading.Event()

    def stop(self):
        self.was_told.set()

    def step(self, batch):
        if len(batch.tokens) <= 32 or self.has_begun.is_set():
            return super().step(batch)
        self.has_begun.set()
        assert self.was_told.wait(60), "nobody stopped the step"
        raise StepStopped


def test_cancelling_a_long_prompt_stops_its_step_and_the_others_go_on_as_ever(start):
    runtime = Long(max_rows=64)
    engine = start(runtime, max_sequences=2)
    runtime.gate.clear()
    heard_other = ask(engine, prompt_of(5, seed=2), 30)[1]
    long, heard = ask(engine, prompt_of(200), 5)
    runtime.gate.set()
    assert runtime.has_begun.wait(60)
    engine.cancel(long)
    assert heard.wait().reason == "cancelled"
    assert heard_other.wait().tokens == expected(prompt_of(5, seed=2), 30)
    assert (engine.stats.n_stopped_steps, engine.stats.n_failed_steps) == (1, 0)
    heard_again = ask(engine, prompt_of(200), 5)[1]
    assert heard_again.wait().tokens == expected(prompt_of(200), 5)


class Watched:
    """A guide that allows everything, and notes when it is asked while it works at masks."""

    is_on, error = True, None

    def __init__(self):
        self.is_busy = self.was_disturbed = False
        self.is_slow, self.asked = threading.Event(), threading.Event()

    def fill(self, rows, draft):
        self.is_busy = True
        if self.is_slow.is_set():
            self.asked.wait(0.3)  # whoever does not wait for masks asks meanwhile
        rows[:] = 0xFFFFFFFF
        self.is_busy = False

    def n_allowed(self, draft):
        return len(draft)

    def forced(self):
        self.was_disturbed |= self.is_busy
        self.asked.set()
        return []


class Stopping(ToyRuntime):
    """Calls ``cancel`` in the first step with many rows and ends that one at once; takes the masks of the others."""

    cancel = None

    def step(self, batch):
        if self.cancel and len(batch.tokens) > 32:
            self.cancel()
            self.cancel = None
            raise StepStopped
        result = super().step(batch)
        if batch.sampling.mask:
            batch.sampling.mask()
        return result


def test_a_guide_is_not_asked_while_masks_of_a_stopped_step_are_made(start):
    runtime, guide = Stopping(max_rows=64), Watched()
    engine = start(runtime, max_sequences=2)
    _, heard = ask(engine, prompt_of(5, seed=2), 200, guide=guide)
    assert heard.first.wait(60)
    runtime.gate.clear()
    long, heard_long = ask(engine, prompt_of(200), 5)
    guide.is_slow.set()
    guide.asked.clear()
    runtime.cancel = lambda: engine.cancel(long)
    runtime.gate.set()
    assert heard_long.wait().reason == "cancelled"
    assert heard.wait().tokens == expected(prompt_of(5, seed=2), 200)
    assert engine.stats.n_stopped_steps == 1
    assert not guide.was_disturbed


def test_cancelling_somebody_whose_prompt_is_not_computed_stops_nothing(start):
    runtime = ToyRuntime()
    engine = start(runtime, max_sequences=2)
    generating, heard = ask(engine, prompt_of(5), None)
    assert heard.first.wait(60)
    engine.cancel(generating)
    assert heard.wait().reason == "cancelled"
    assert engine.stats.n_stopped_steps == 0


def test_cancelling_works_in_every_phase(start):
    runtime = ToyRuntime(max_rows=8)
    engine = start(runtime, max_sequences=1)
    runtime.gate.clear()
    at_prompt, heard_prompt = ask(engine, prompt_of(200), 50)
    waiting, heard_waiting = ask(engine, prompt_of(20), 50)
    engine.cancel(waiting)
    engine.cancel(at_prompt)
    runtime.gate.set()
    assert heard_waiting.wait().reason == "cancelled"
    assert heard_prompt.wait().reason == "cancelled"
    assert heard_waiting.tokens == heard_prompt.tokens == []
    generating, heard = ask(engine, prompt_of(5), None)
    assert heard.first.wait(60)
    engine.cancel(generating)
    assert heard.wait().reason == "cancelled"
    engine.cancel(generating)  # has ended: nothing happens
    assert ask(engine, [3], 4)[1].wait().tokens == expected([3], 4)
    engine.forget_prefixes()
    assert engine._loop.scheduler.pages.n_available == runtime.n_pages


def test_a_step_that_fails_ends_its_requests_with_a_clear_error_and_no_others(start):
    runtime = ToyRuntime(max_rows=64)
    engine = start(runtime, max_sequences=2)
    runtime.fail_when = lambda batch: RuntimeError("disk gone") if 3 in batch.tokens else None
    runtime.gate.clear()
    bad = [ask(engine, [3, *prompt_of(70)], 5)[1], ask(engine, [4, 5], 500)[1]]  # in one step with it
    good = ask(engine, prompt_of(40), 5)[1]
    runtime.gate.set()
    for heard in bad:
        assert isinstance(heard.wait().error, ResourceError)
        assert "disk gone" in str(heard.error)
    assert good.wait().tokens == expected(prompt_of(40), 5)
    again = ask(engine, prompt_of(64), 3)[1]
    assert again.wait().tokens == expected(prompt_of(64), 3)
    assert engine.stats.n_failed_steps == 1
    engine.forget_prefixes()
    assert engine._loop.scheduler.pages.n_available == runtime.n_pages


def test_guessing_that_fails_ends_the_requests_of_its_step_and_no_others(start):
    class Failing:
        """Guesses nothing, and once raises."""

        def propose(self, chunks, room, drafter=None):
            if any(chunk.sequence.tokens[0] == 3 for chunk in chunks):
                raise RuntimeError("no idea")
            return {}

        def measured(self, chunks, seconds):
            pass

        def learn(self, chunk, n_accepted, n_sequences):
            pass

    runtime = ToyRuntime()
    engine = start(runtime, speculation=Failing())
    bad = ask(engine, [3, 4])[1]
    assert "no idea" in str(bad.wait().error)
    assert ask(engine, [5, 6])[1].wait().tokens == expected([5, 6], 5)
    assert engine.stats.n_failed_steps == 1
    engine.forget_prefixes()
    assert engine._loop.scheduler.pages.n_available == runtime.n_pages


@pytest.mark.parametrize(("code", "match"), [(-1, "not numbers"), (-2, "no token is allowed")])
def test_a_row_without_a_token_fails_its_request_only(start, code, match):
    runtime = ToyRuntime()
    plain_step = runtime.step

    def step(batch):
        result = plain_step(batch)
        result.tokens[batch.sampling.seed == 13] = code
        return result

    runtime.step = step
    engine = start(runtime)
    runtime.gate.clear()
    bad = ask(engine, [1, 2], choice=TokenChoice(seed=13))[1]
    good = ask(engine, [1, 2])[1]
    runtime.gate.set()
    assert match in str(bad.wait().error)
    assert good.wait().tokens == expected([1, 2], 5)


def test_a_listener_that_raises_fails_its_own_request_only(start):
    def react(token):
        raise KeyError("mine")

    engine = start()
    bad, good = ask(engine, [1], react=react)[1], ask(engine, [2])[1]
    assert isinstance(bad.wait().error, KeyError)
    assert good.wait().tokens == expected([2], 5)


def test_a_listener_that_raises_at_the_start_fails_its_own_request_only(start):
    runtime = ToyRuntime()
    engine = start(runtime)
    runtime.gate.clear()
    ask(engine, [9], 1)
    bad, good = ask(engine, prompt_of(50))[1], ask(engine, [2, 3])[1]
    bad.started = lambda n: 1 / 0
    runtime.gate.set()
    assert isinstance(bad.wait().error, ZeroDivisionError)
    assert good.wait().tokens == expected([2, 3], 5)


def test_an_error_of_our_own_ends_everything_with_that_error_and_not_in_silence():
    runtime = ToyRuntime()
    engine = Engine(runtime)
    hooks, threading.excepthook = threading.excepthook, lambda args: None
    try:
        engine._loop.scheduler.plan = lambda: 1 / 0
        _, heard = ask(engine, [1])
        assert "division" in str(heard.wait().error)
    finally:
        engine.close()
        threading.excepthook = hooks
    assert runtime.closed


def test_closing_cancels_what_is_unfinished_and_closes_the_runtime():
    runtime = ToyRuntime()
    engine = Engine(runtime)
    _, heard = ask(engine, [1], None)
    engine.close()
    assert heard.wait().reason in ("cancelled", "length")
    assert runtime.closed
    engine.close()
    with pytest.raises(RequestError, match="closed"):
        ask(engine, [1])
    with pytest.raises(RequestError, match="closed"):
        engine.logits([1])


def test_dropping_the_engine_stops_its_thread():
    runtime = ToyRuntime()
    engine = Engine(runtime)
    del engine
    gc.collect()
    assert runtime.closed
    assert not [t for t in threading.enumerate() if t.name == "tenth-engine" and t.is_alive()]


def test_an_idle_engine_takes_no_steps(start):
    runtime = ToyRuntime()
    engine = start(runtime)
    ask(engine, [1], 3)[1].wait()
    n = len(runtime.batches)
    threading.Event().wait(0.05)
    assert len(runtime.batches) == n == 3


@pytest.mark.parametrize("max_rows", [3, 200])
def test_logits_of_all_positions_come_in_chunks_and_between_requests(start, max_rows):
    runtime = ToyRuntime(max_rows=max_rows, n_pages=8)
    engine = start(runtime)
    running = ask(engine, prompt_of(20, seed=1), 150)[1]
    ids = prompt_of(200)
    logits = engine.logits(ids)
    assert logits.shape == (200, VOCAB)
    tokens, digests = ids, []
    from .toy import digest

    for position, token in enumerate(tokens):
        digests.append(digest(digests, token, position))
    np.testing.assert_array_equal(logits[:, 95], np.array(digests) % 97)
    assert running.wait().tokens == expected(prompt_of(20, seed=1), 150)


@pytest.mark.parametrize("ids", [[], [VOCAB], [-1], [0] * 3000])
def test_logits_of_an_impossible_sequence_are_refused(start, ids):
    with pytest.raises(RequestError, match=r"\w"):
        start().logits(ids)


def test_many_threads_may_submit_at_once(start):
    engine = start(ToyRuntime(n_pages=20))
    results = {}

    def work(i):
        results[i] = ask(engine, [i, i + 1], 10)[1].wait().tokens

    threads = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: expected([i, i + 1], 10) for i in range(20)}
