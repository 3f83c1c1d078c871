"""Models that compute rows of a prompt otherwise than those behind it: whatever was known before, the text stays."""

import numpy as np
import pytest

from tenth.engine.engine import Engine
from tenth.engine.pages import Pages
from tenth.engine.request import Request, Sequence
from tenth.engine.scheduler import Limits, Scheduler
from tests.engine.test_end_to_end import DATA, engine_of, submit
from tests.engine.toy import (
    Recorder,
    RepeatingRuntime,
    ToyRuntime,
    ask,
    digest,
    next_repeating,
    next_token,
    prompt_of,
    random_traffic,
)
from tests.runtime.native import open_streamed

OF_PROMPTS = 1 << 20


class Apart:
    """A toy whose rows of prompts have other digests."""

    prompts_apart = True

    def kind(self, batch, j):
        return OF_PROMPTS if j >= batch.n_generated else 0


class ApartToy(Apart, ToyRuntime):
    pass


class RepeatingApart(Apart, RepeatingRuntime):
    pass


def expected(prompt, n, seed=0, next_token=next_token):
    """The n tokens that follow a prompt, computed with no pages at all."""
    tokens, digests = list(prompt), []
    while len(tokens) < len(prompt) + n:
        for position in range(len(digests), len(tokens)):
            kind = OF_PROMPTS if position < len(prompt) else 0
            digests.append(digest(digests, tokens[position], position + kind))
        tokens.append(next_token(digests[-1], seed, len(tokens) - len(prompt)))
    return tokens[len(prompt) :]


def repeating(prompt, n, seed=0):
    return expected(prompt, n, seed, next_repeating)


@pytest.mark.parametrize("size", [{"n_pages": 10, "max_rows": 33}, {"n_pages": 64, "max_rows": 7}])
def test_random_traffic_gets_the_right_texts(start_engine, size):
    engine = start_engine(ApartToy(**size), max_sequences=4)
    random_traffic(engine, 60, expected)
    assert size["n_pages"] > 10 or engine.stats.n_preemptions > 0


def test_guesses_change_nothing_of_it(start_engine):
    engine = start_engine(RepeatingApart(n_pages=10, max_rows=33), max_sequences=4)
    random_traffic(engine, 60, repeating)
    assert engine.stats.n_accepted > 0


def test_an_answer_that_became_part_of_a_prompt_is_read_again(start_engine):
    engine, prompt, known = start_engine(ApartToy()), prompt_of(70), 0
    for turn in range(3):
        _, heard = ask(engine, prompt, max_tokens=70)
        heard.wait()
        assert heard.tokens == expected(prompt, 70)
        assert heard.cached == known // 32 * 32, turn
        known, prompt = len(prompt), [*prompt, *heard.tokens, *prompt_of(5, turn)]


@pytest.mark.parametrize(("apart", "known"), [(True, 64), (False, 96)])
def test_one_that_begins_anew_takes_nothing_for_its_answer_that_was_another_s_prompt(apart, known):
    tokens = prompt_of(100)
    scheduler = Scheduler(Pages(16), Limits(64, 4, 1024, prompts_apart=apart))
    other = Sequence(Request(tokens, Recorder()), 0, 1024)
    scheduler.add(other)
    while other.n_pending:
        scheduler.advance(scheduler.plan())
    scheduler.remove(other)
    anew = Sequence(Request(tokens[:64], Recorder()), 1, 1024)
    anew.append(tokens[64:])
    scheduler.add(anew)
    ((_, n_rows, _),) = scheduler.plan()
    assert (anew.n_computed, n_rows) == (known, 100 - known)


def test_both_kinds_go_in_one_step_and_who_begins_anew_gets_both(start_engine):
    runtime = ApartToy(n_pages=10, max_rows=40)
    engine = start_engine(runtime, max_sequences=4)
    jobs = [(prompt_of(n, n), ask(engine, prompt_of(n, n), max_tokens=60)[1]) for n in (33, 40, 70, 90)]
    for prompt, heard in jobs:
        assert heard.wait().tokens == expected(prompt, 60)
    assert engine.stats.n_preemptions > 0
    assert any(0 < batch.n_generated < len(batch.pages) for batch in runtime.batches)


CASE = {"file": DATA / "golden_deepseek3_quantised.gguf", "prefill": "expanded", "speculate": False}


def talk(engine, n_turns=3):
    """What is said in turns, each prompt being all before it, and how much of each prompt was known."""
    random, said, known = np.random.default_rng(8), [], []
    prompt = random.integers(0, 96, 70).tolist()
    for _ in range(n_turns):
        heard = submit(engine, prompt, 50)
        said.append(heard.wait())
        known.append(heard.cached)
        prompt = [*prompt, *(id for id, *_ in said[-1]), *random.integers(0, 96, 5).tolist()]
    engine.close()
    return said, known


def test_a_conversation_is_the_same_whatever_was_known():
    alone, nothing = talk(engine_of(prefix_reuse=False, threads=1, **CASE))
    reused, known = talk(engine_of(threads=2, chunk_tokens=64, **CASE))
    assert reused == alone
    assert (nothing, known) == ([0, 0, 0], [0, 64, 96])  # whole pages of the prompts before: of 70 and 125 tokens
    _, absorbed = talk(engine_of(**{**CASE, "prefill": "absorbed"}))
    assert absorbed == [0, 96, 160]  # of the answers too


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_experts_read_from_the_disk_change_no_bit_of_it(share):
    said, _ = talk(engine_of(threads=1, **CASE), 2)
    settings = {"prefill": "expanded", "speculate": False, "threads": 2, "chunk_tokens": 33}
    runtime = open_streamed(
        "deepseek3_quantised", lambda needs: max(needs.least, int(needs.fixed + share * needs.experts)), **settings)
    engine = Engine(runtime, max_sequences=4, prefix_reuse=True)
    assert talk(engine, 2)[0] == said
