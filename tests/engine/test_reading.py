"""Texts that are read and not answered: what the engine promises, on a toy runtime that reads them whole."""

import threading

import numpy as np
import pytest

from tenth.batch import StepResult
from tenth.engine.engine import Engine
from tenth.errors import RequestError, ResourceError, TenthError
from tenth.gathering import AT_ONCE, Gathering
from tests.engine.toy import ToyRuntime


class ReadingRuntime(ToyRuntime):
    """Reads sequences whole; the vector of one is (its sum, its first token, its length)."""

    writes_text, reads_whole = False, True

    def __init__(self, result_row="last", **options):
        super().__init__(**{"max_rows": 64, "max_outputs": 32, "context_tokens": 64, "n_pages": 34} | options)
        self.result_row = result_row

    def step(self, batch):
        assert self.gate.wait(60)
        self.check(batch)
        self.batches.append(batch)
        if (error := self.fail_when(batch)) is not None:
            raise error
        assert batch.sampling is None
        starts, ends = batch.row_starts[:-1], batch.row_starts[1:]
        assert (batch.positions[starts] == 0).all(), "a sequence was not read from its beginning"
        assert np.array_equal(batch.outputs, starts if self.result_row == "first" else ends - 1)
        parts = [batch.tokens[a:b] for a, b in zip(starts, ends, strict=True)]
        return StepResult.nothing(np.array([[part.sum(), part[0], len(part)] for part in parts], np.float32))


def expected(prompts):
    return np.array([[sum(p), p[0], len(p)] for p in prompts], np.float32)


@pytest.fixture
def runtime():
    return ReadingRuntime()


@pytest.fixture
def engine(runtime):
    engine = Engine(runtime)
    yield engine
    engine.close()


def some(n, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 900, rng.integers(1, 65)).tolist() for _ in range(n)]


@pytest.mark.parametrize("row", ["last", "first"])
def test_every_text_gets_its_own_vector_in_order(row):
    runtime = ReadingRuntime(row)
    engine = Engine(runtime)
    prompts = some(200)
    assert np.array_equal(Gathering(engine, prompts).rows(), expected(prompts))
    engine.close()
    assert sum(len(batch.pages) for batch in runtime.batches) == 200


def test_texts_share_steps_as_they_fit(engine, runtime):
    runtime.gate.clear()
    prompts = [[1] * 20, [2] * 20, [3] * 20, [4] * 20, [5]]
    gathering = Gathering(engine, prompts)
    runtime.gate.set()
    assert np.array_equal(gathering.rows(), expected(prompts))
    assert len(runtime.batches) <= 3  # the first may be alone in its step: the others came when it was planned


def test_equal_texts_are_read_each_for_themselves(engine):
    prompts = [[7] * 64] * 5  # nothing of one is known when the next comes: its beginning sees its end
    assert np.array_equal(Gathering(engine, prompts).rows(), expected(prompts))
    assert engine.stats.n_cached_tokens == 0


def test_who_has_many_texts_keeps_nobody_waiting_for_all_of_them(engine, runtime):
    runtime.gate.clear()
    many = Gathering(engine, [[1] * 64] * 300)
    done_at = []
    few = Gathering(engine, [[2] * 64], lambda: done_at.append(len(runtime.batches)))
    runtime.gate.set()
    few.rows()
    many.rows()
    assert done_at[0] <= AT_ONCE + 1


def test_a_text_that_is_too_long_is_refused(engine):
    with pytest.raises(RequestError, match="has 65 tokens, the model reads at most 64"):
        engine.check([1] * 65)
    with pytest.raises(RequestError, match="token id 997 is not in the vocabulary"):
        Gathering(engine, [[1], [997]]).rows()
    assert np.array_equal(Gathering(engine, [[1] * 64]).rows(), expected([[1] * 64]))


def test_a_step_that_fails_fails_the_texts_together_and_the_next_go_on(engine, runtime):
    runtime.fail_when = lambda batch: RuntimeError("out of order") if 13 in batch.tokens else None
    with pytest.raises(TenthError, match="out of order"):
        Gathering(engine, [[1], [13], *some(100)]).rows()
    assert np.array_equal(Gathering(engine, [[1, 2]]).rows(), expected([[1, 2]]))


def test_giving_up_ends_it_and_leaves_the_others(engine, runtime):
    runtime.gate.clear()
    calls = []
    first = Gathering(engine, some(100), lambda: calls.append(1))
    second = Gathering(engine, [[5, 6]])
    first.cancel()
    first.cancel()
    runtime.gate.set()
    with pytest.raises(RequestError, match="given up"):
        first.rows()
    assert np.array_equal(second.rows(), expected([[5, 6]]))
    assert calls == [1]
    assert sum(len(batch.pages) for batch in runtime.batches) < 100


def test_closing_the_engine_ends_what_waits():
    runtime = ReadingRuntime()
    engine = Engine(runtime)
    runtime.gate.clear()
    gathering = Gathering(engine, some(50))
    closing = threading.Thread(target=engine.close)
    closing.start()
    runtime.gate.set()
    closing.join(60)
    with pytest.raises(RequestError, match="closed"):
        gathering.rows()
    with pytest.raises(RequestError, match="closed"):
        Gathering(engine, [[1]]).rows()


def test_numbers_that_are_none_are_an_error(engine, runtime):
    step = runtime.step
    runtime.step = lambda batch: StepResult.nothing(step(batch).vectors * np.float32(np.nan))
    with pytest.raises(ResourceError, match="numbers that are none"):
        Gathering(engine, [[1]]).rows()


def test_no_texts_are_done_at_once(engine):
    gathering = Gathering(engine, [])
    assert gathering.is_done
