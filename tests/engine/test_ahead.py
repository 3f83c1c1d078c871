"""Steps that are run in one call: the same tokens as one by one, nothing kept of what came behind an end."""

import dataclasses
import threading

import numpy as np
import pytest

from tenth.batch import Batch, Sampling, StepResult
from tenth.config import EngineConfig
from tenth.engine.ahead import MOST_STEPS, Ahead
from tenth.engine.chunk import Chunk
from tenth.engine.request import GO_ON, Reaction, Request, Sequence, TokenChoice
from tenth.engine.speculation import Speculation
from tenth.loader import open_runtime
from tenth.weights.gguf import read_header
from tests.engine.test_end_to_end import FILE, engine_of, submit
from tests.engine.toy import Recorder, ToyRuntime, ask, digest, expected, next_token, prompt_of, random_traffic


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """However slow the machine, as many steps as else is allowed."""
    monkeypatch.setattr("tenth.engine.ahead.AHEAD_S", 1e9)


class AheadToy(ToyRuntime):
    """A toy that runs ahead, by its own steps; ``runs``: how many steps each call took."""

    runs_ahead = True

    def __init__(self, **options):
        super().__init__(**options)
        self.runs, self.is_hurried = [], False
        self.between = lambda n: None

    def hurry(self):
        self.is_hurried = True

    def run_ahead(self, batch, most, ends):
        assert len(batch.tokens) == len(batch.pages) == len(batch.outputs)
        parts, goes_on = [], True
        while goes_on and len(parts) < most:
            parts.append(self.step(batch))
            tokens = parts[-1].tokens
            self.between(len(parts))
            goes_on = not self.is_hurried and not np.isin(tokens, ends).any()
            self.is_hurried = False
            how = dataclasses.replace(batch.sampling, counter=batch.sampling.counter + 1)
            batch = dataclasses.replace(batch, tokens=tokens, positions=batch.positions + np.int32(1), sampling=how)
        self.runs.append(len(parts))
        each = [np.stack([getattr(part, name) for part in parts], 1).ravel() for name in ("tokens", "logprobs")]
        order = [(part, i) for i in range(len(parts[0].tokens)) for part in parts]
        return StepResult(*each, [p.top_ids[i] for p, i in order], [p.top_logprobs[i] for p, i in order],
                          n_steps=len(parts))


def test_the_tokens_are_the_same_and_the_first_one_comes_by_itself(start_engine):
    runtime = AheadToy()
    _, heard = ask(engine := start_engine(runtime), prompt_of(20), 50, speculate=False)
    assert heard.wait().tokens == expected(prompt_of(20), 50)
    assert max(runtime.runs) > 1
    assert len(runtime.batches) == engine.stats.n_steps == 50
    assert heard.n_generated == 50


def test_nothing_is_computed_behind_a_stop_token_or_the_last_one(start_engine):
    tokens = expected(prompt_of(20), 40)
    runtime = AheadToy()
    engine = start_engine(runtime)
    stop = next(i for i in range(20, 40) if tokens[i] not in tokens[:i])
    _, heard = ask(engine, prompt_of(20), 60, stop_ids=frozenset([tokens[stop]]), speculate=False)
    assert (heard.wait().tokens, heard.reason) == (tokens[:stop], "stop")
    assert len(runtime.batches) == stop + 1


@pytest.mark.parametrize("at", [3, 4, 5, 6, 7, 8, 9])
def test_what_a_listener_forces_or_ends_counts_and_what_was_computed_behind_it_does_not(start_engine, at):
    tokens, forced = expected(prompt_of(20), at), (5, 6, 7)

    def react(token):
        react.n += 1
        if react.n == at:
            return Reaction(force=forced)
        return Reaction(stop=True) if react.n == at + 9 else GO_ON

    react.n = 0
    runtime = AheadToy()
    engine = start_engine(runtime)
    _, heard = ask(engine, prompt_of(20), 100, react, speculate=False)
    heard.wait()
    assert heard.tokens[:at] == tokens
    assert heard.reason == "stop"
    assert heard.n_generated == at + 9 + 3
    assert heard.tokens[at:] == continued([*prompt_of(20), *tokens, *forced], at + 3, 9)
    engine.forget_prefixes()
    assert engine.pages["free"] == runtime.n_pages


def continued(tokens, counter, n):
    """n tokens behind some, the first of which is the request's token number ``counter``."""
    tokens, digests, out = list(tokens), [], []
    for i in range(n):
        for position in range(len(digests), len(tokens)):
            digests.append(digest(digests, tokens[position], position))
        out.append(next_token(digests[-1], 0, counter + i))
        tokens.append(out[-1])
    return out


def test_somebody_new_ends_a_run_behind_its_step(start_engine):
    runtime = AheadToy()
    engine = start_engine(runtime)
    reached, second = threading.Event(), []

    def between(n):
        if n == 2 and not reached.is_set():
            reached.set()
            second.append(ask(engine, prompt_of(30, 1), 5, speculate=False))

    runtime.between = between
    _, first = ask(engine, prompt_of(20), 60, speculate=False)
    assert first.wait().tokens == expected(prompt_of(20), 60)
    assert reached.is_set()
    assert second[0][1].wait().tokens == expected(prompt_of(30, 1), 5)
    assert 2 in runtime.runs


def test_without_pages_for_more_it_goes_step_by_step_and_nobody_is_preempted(start_engine):
    runtime = AheadToy(n_pages=2)
    engine = start_engine(runtime, prefix_reuse=False)
    _, heard = ask(engine, prompt_of(20), 44, speculate=False)
    assert heard.wait().tokens == expected(prompt_of(20), 44)
    assert engine.stats.n_preemptions == 0


def test_a_listener_that_fails_at_its_start_ends_its_own_request_only(start_engine):
    engine = start_engine(AheadToy())

    class Failing(Recorder):
        def started(self, n_cached_tokens):
            raise ValueError("not today")

    failing = Failing()
    engine.submit(Request(prompt_of(5), failing, max_tokens=5))
    assert str(failing.wait().error) == "not today"
    _, heard = ask(engine, prompt_of(20), 20)
    assert heard.wait().tokens == expected(prompt_of(20), 20)


def test_random_traffic_gets_the_right_texts(start_engine):
    runtime = AheadToy(n_pages=24)
    random_traffic(start_engine(runtime), 60, expected)
    assert max(runtime.runs) > 1


def chunk_of(prompt=(1, 2, 3), n_generated=2, max_tokens=100, **request):
    sequence = Sequence(Request(list(prompt), None, max_tokens=max_tokens, **request), 1, 1000)
    sequence.append(range(n_generated))
    sequence.n_computed = sequence.n_tokens - 1
    return Chunk(sequence, 1)


def test_how_many_steps_depends_on_their_time_and_on_what_is_left(monkeypatch):
    monkeypatch.setattr("tenth.engine.ahead.AHEAD_S", 0.025)
    ahead, chunk = Ahead(), chunk_of()
    assert ahead.steps([]) == 1  # everyone who was planned has ended meanwhile
    assert ahead.steps([chunk]) == 1  # not measured yet
    ahead.measured([chunk], 0.01)
    assert ahead.steps([chunk]) == 2
    assert ahead.steps([chunk, chunk_of()]) == 1  # of so many rows nothing is known
    ahead.measured([chunk], 0.03)
    assert ahead.steps([chunk]) == 1
    ahead.measured([chunk], 0.001)
    assert ahead.steps([chunk]) == MOST_STEPS
    assert ahead.steps([chunk_of(max_tokens=5)]) == 3
    assert ahead.steps([chunk_of(n_generated=0)._replace(n_rows=3)]) == 1
    assert ahead.steps([chunk_of(choice=TokenChoice(presence=1))]) == 1
    assert ahead.steps([chunk_of(guide=object())]) == 1
    ahead.measured([chunk._replace(draft=(1,))], 1.0)  # says nothing of plain steps
    assert ahead.steps([chunk]) == MOST_STEPS


def test_a_text_that_repeats_itself_is_looked_at_behind_every_token():
    speculation, text = Speculation(), [*range(10), *range(10), *range(10), *range(50, 90)]
    chunk = chunk_of(text[:5], 0)
    ahead = []
    for id in text[5:]:
        speculation.propose([chunk], 8)
        chunk.sequence.append([id])
        chunk.sequence.n_computed += 1
        speculation.learn(chunk, 0, 1)
        ahead.append(speculation.most_ahead([chunk.sequence], 8))
    assert ahead[:4] == [1, 2, 2, 3]  # the answer's first tokens: it may be a copy of the prompt
    assert set(ahead[8:25]) == {1}
    assert ahead[-1] == 8
    assert Speculation().most_ahead([chunk_of(speculate=False).sequence], 8) == 8


def test_several_tokens_at_once_teach_what_they_teach_one_by_one():
    text = [1, 2, 3, 4, 9, 1, 2, 3, 4, 5, 1, 2, 3, 4, 9, 1, 2, 7, 8, 1, 2, 3]
    outlooks = []
    for step in (1, 3):  # 18 tokens
        speculation, chunk = Speculation(), chunk_of(text[:4], 0)
        for at in range(4, len(text), step):
            speculation.propose([chunk], 8)
            chunk.sequence.append(text[at : at + step])
            chunk.sequence.n_computed += step
            speculation.learn(chunk, 0, 1)
        outlooks.append(speculation._outlook(chunk.sequence))
    one, three = outlooks
    assert one._counts == three._counts
    assert one._n_since_copy == three._n_since_copy


def test_a_real_model_says_the_same_bit_for_bit():
    def stepwise():
        engine = engine_of(threads=2)
        engine._loop.runtime.runs_ahead = False
        try:
            heard = [submit(engine, [3, 5, 7, i], speculate=False, temperature=0.8, seed=i) for i in range(3)]
            return [h.wait() for h in heard]
        finally:
            engine.close()

    engine = engine_of(threads=2)
    runtime = engine._loop.runtime
    run, n_steps = runtime.run_ahead, []
    runtime.run_ahead = lambda *how: (result := run(*how), n_steps.append(result.n_steps))[0]
    try:
        heard = [submit(engine, [3, 5, 7, i], speculate=False, temperature=0.8, seed=i) for i in range(3)]
        assert [h.wait() for h in heard] == stepwise()
    finally:
        engine.close()
    assert max(n_steps) > 1


def test_a_run_that_was_told_to_hurry_takes_one_step():
    runtime = open_runtime(read_header(FILE), EngineConfig(threads=1)).runtime

    def batch():
        return Batch(np.array([3], np.int32), np.array([0], np.int32), np.array([0, 1], np.int32),
                     [np.array([0], np.int32)], np.array([0], np.int32), Sampling.greedy(1, 2))

    nothing = np.zeros(0, np.int32)
    whole = runtime.run_ahead(batch(), 6, nothing)
    assert whole.n_steps == len(whole.tokens) == len(whole.top_ids) == 6
    assert all(len(ids) == 2 and ids[0] == token for ids, token in zip(whole.top_ids, whole.tokens, strict=True))
    runtime.hurry()
    assert runtime.run_ahead(batch(), 6, nothing).n_steps == 1
    assert runtime.run_ahead(batch(), 6, nothing).tokens.tolist() == whole.tokens.tolist()
    tokens = whole.tokens.tolist()
    ended = runtime.run_ahead(batch(), 6, whole.tokens[2:3])
    assert ended.tokens.tolist() == tokens[: tokens.index(tokens[2]) + 1]
    runtime.close()
