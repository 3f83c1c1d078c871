"""The loop: one thread that owns the runtime. Messages come in through a queue, results go out through listeners.

The thread sleeps in the queue while nothing is to do. A step that fails ends the requests that were in it; the others
and the process go on.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from typing import Protocol

import numpy as np

from tenth.batch import F32, Batch, StepResult, StepStopped, pages_for
from tenth.engine import waking
from tenth.engine.ahead import Ahead
from tenth.engine.answers import Answers
from tenth.engine.batching import make_batch, make_reading
from tenth.engine.chunk import Chunk
from tenth.engine.drafter import Drafter
from tenth.engine.experts import NotedExperts
from tenth.engine.failures import as_tenth_error
from tenth.engine.masks import Masks
from tenth.engine.pages import Pages
from tenth.engine.request import Request, Sequence
from tenth.engine.scheduler import Limits, Scheduler
from tenth.engine.speculation import Asked
from tenth.engine.states import States
from tenth.engine.stats import EngineStats
from tenth.engine.step_runtime import StepRuntime
from tenth.errors import RequestError

LEAST_STOPPED_ROWS = 32  # of one prompt: a step with fewer is over soon


class Drafting(Protocol):
    """What the engine needs of tenth.engine.speculation.Speculation."""

    def propose(
        self, chunks: SequenceOf[Chunk], room: int, drafter: Asked | None = None
    ) -> dict[Sequence, tuple[int, ...]]:
        """Guesses for sequences of a step that has room for so many more rows; ``drafter``: if the model has one."""

    def most_ahead(self, sequences: SequenceOf[Sequence], n_steps: int) -> int:
        """How many of so many steps may be computed before guesses are looked for again."""

    def measured(self, chunks: SequenceOf[Chunk], seconds: float) -> None:
        """A step took so long."""

    def learn(self, chunk: Chunk, n_accepted: int, n_sequences: int) -> None:
        """So many of the guesses of a chunk were right."""


class Loop:
    """The engine's thread: everything here runs on it, except ``post`` and ``check_ids``."""

    def __init__(self, runtime: StepRuntime, max_sequences: int, prefix_reuse: bool, speculation: Drafting) -> None:
        limits = Limits(
            max_rows=runtime.max_rows,
            max_sequences=_most_sequences(runtime, max_sequences),
            context_tokens=runtime.context_tokens,
            max_outputs=runtime.max_outputs,
            whole=runtime.reads_whole,
            to_generate=int(runtime.writes_text),
            prompts_apart=runtime.prompts_apart,
        )
        self.runtime = runtime
        self.speculation = speculation
        self.ahead = Ahead()
        self.drafter = Drafter(runtime) if runtime.has_drafter else None
        self.masks = Masks(runtime.vocab_size)
        reuse = prefix_reuse and not runtime.reads_whole
        states = States(runtime.n_slots, runtime.n_spare_slots)
        self.scheduler = Scheduler(Pages(runtime.n_pages, reuse), limits, states)
        self.stats = EngineStats()
        self.answers = Answers(self.scheduler, self.stats)
        self._noted: list[list[int]] = []  # which experts the last step used
        self._experts: NotedExperts | None = None  # the same, by request
        self._long: frozenset[Request] = frozenset()  # who the running step computes much of; cancelling one stops it
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()  # None: stop
        self._is_open = True
        self.over = threading.Event()  # the runtime is closed
        self._door = threading.RLock()  # after closing, nothing gets into the inbox; a finaliser may post inside a post

    def post(self, work: Callable[[], None] | None) -> bool:
        """Have something done between two steps. False: the loop is closed, it will not be done."""
        with self._door:
            if self._is_open:
                self._inbox.put(work)
                if self.runtime.runs_ahead:
                    self.runtime.hurry()
            return self._is_open

    def run(self) -> None:
        """Work until told to stop, then end what is left and close the runtime."""
        waking.hold()
        try:
            while self._take_messages():
                self._step()
        except Exception as error:  # our own bug: say so to everyone who waits
            self.answers.fail_all(as_tenth_error(error))
            raise
        finally:
            try:
                self._close()
            finally:
                self.over.set()

    def _close(self) -> None:
        with self._door:
            self._is_open = False
        with contextlib.suppress(queue.Empty):
            while True:
                work = self._inbox.get_nowait()
                if work is not None:
                    work()
        self.answers.end_all("cancelled")
        waking.let_go()
        self.masks.close()
        self.runtime.close()

    def _step(self) -> None:
        """One step of the engine: plan, compute, note, deliver."""
        chunks = self.answers.announce(self.scheduler.plan())
        try:
            drafts = self._propose(chunks, self.scheduler.room(chunks))
            chunks = self.scheduler.with_drafts(chunks, drafts) if drafts else chunks
        except Exception as error:
            self._fail_step(chunks, error)
            chunks = []
        result = self._compute(chunks, self._steps_ahead(chunks))
        if self.drafter:
            self.drafter.note(chunks if result else ())
        if result is not None:
            self.scheduler.advance(chunks)
            self._deliver([chunk for chunk in chunks if chunk.sequence.n_pending == 0], result)

    def _take_messages(self) -> bool:
        """Do what was asked for since the last step; sleep while there is nothing to do. False: stop."""
        while True:
            is_idle = len(self.scheduler) == 0
            if is_idle:
                waking.let_go()
            try:
                work = self._inbox.get(block=is_idle)
            except queue.Empty:
                return True
            if work is None:
                return False
            work()

    def _propose(self, chunks: list[Chunk], room: int) -> dict[Sequence, tuple[int, ...]]:
        if not self.drafter:
            return self.speculation.propose(chunks, room)
        drafts = self.speculation.propose(chunks, room, self.drafter)
        self.drafter.hand_over()
        return drafts

    def _steps_ahead(self, chunks: list[Chunk]) -> int:
        """How many steps may be computed before anyone hears of their tokens."""
        if not self.runtime.runs_ahead or self.runtime.noted_experts is not None or not self._inbox.empty():
            return 1
        if any(chunk.draft for chunk in chunks):
            return 1
        n_steps = self.speculation.most_ahead([chunk.sequence for chunk in chunks], self.ahead.steps(chunks))
        return n_steps if n_steps == 1 else self.scheduler.steps_with_pages(chunks, n_steps)

    def _compute(self, chunks: list[Chunk], n_steps: int) -> StepResult | None:
        """The result of so many steps, or None after failing every request in them (or when there is none)."""
        if not chunks:
            return None
        started = time.perf_counter()
        try:
            self._long = self._long_ones(chunks)
            result = self._run(self._batch(chunks)) if n_steps == 1 else self._run_ahead(chunks, n_steps)
            if self.runtime.noted_experts is not None:
                self._experts = NotedExperts(chunks, self._noted)
        except StepStopped:  # who was cancelled is dropped before the next one, and the others' rows are computed again
            self.stats.n_stopped_steps += 1
            self.masks.settle()
            return None
        except Exception as error:
            self._fail_step(chunks, error)
            return None
        finally:
            self._long = frozenset()
        self.stats.n_steps += result.n_steps
        self.stats.n_preemptions = self.scheduler.n_preemptions
        self.stats.n_rows += result.n_steps * sum(c.n_all_rows for c in chunks)
        seconds = time.perf_counter() - started
        self.stats.step_s += seconds
        self.speculation.measured(chunks, seconds / result.n_steps)
        self.ahead.measured(chunks, seconds / result.n_steps)
        return result

    def _long_ones(self, chunks: list[Chunk]) -> frozenset[Request]:
        """Requests for which a step is worth stopping when they are cancelled. Recurrent states cannot be set back."""
        if self.scheduler.states:
            return frozenset()
        return frozenset(chunk.sequence.request for chunk in chunks if chunk.n_rows >= LEAST_STOPPED_ROWS)

    def stop_for(self, request: Request) -> None:
        """End the running step early if it computes a long part of a request's prompt. From any thread."""
        if request in self._long:
            self._long = frozenset()
            self.runtime.stop()

    def _batch(self, chunks: list[Chunk]) -> Batch:
        if self.runtime.writes_text:
            return make_batch(chunks, self.masks.begin(chunks))
        return make_reading(chunks, self.runtime.result_row == "first")

    def _run(self, batch: Batch) -> StepResult:
        """A step on states that are where they should be."""
        for source, target in self.scheduler.states.take_copies():
            self.runtime.copy_slot(source, target)
        waking.let_go()
        try:
            return self.runtime.step(batch)
        finally:  # also of a step that nobody counts, or that failed: what it noted is not the next one's
            if self.runtime.noted_experts is not None:
                self._noted = self.runtime.take_trace()

    def _run_ahead(self, chunks: list[Chunk], n_steps: int) -> StepResult:
        ends = set[int]().union(*(chunk.sequence.request.stop_ids for chunk in chunks))
        waking.let_go()
        return self.runtime.run_ahead(make_batch(chunks), n_steps, np.array(sorted(ends), np.int32))

    def _deliver(self, chunks: list[Chunk], result: StepResult) -> None:
        """Hand out the tokens of a step: of each chunk the first, and one more for each guess that was right.

        Of a model that writes no text, the vectors.
        """
        if result.vectors is not None:
            for chunk, vector in zip(chunks, result.vectors, strict=True):
                self.answers.give(chunk.sequence.request, vector)
            return
        first = 0
        for chunk in chunks:
            n_accepted = self.answers.follow(chunk, result, first, self._experts)
            first += result.n_steps + len(chunk.draft)
            self.speculation.learn(chunk, n_accepted, len(chunks))
            if (chunk.draft or result.n_steps > 1) and chunk.sequence.request in self.answers:
                self.scheduler.trim(chunk.sequence)

    def _fail_step(self, chunks: list[Chunk], error: Exception) -> None:
        """End everyone who has a part in a step that failed, and nobody else."""
        self.stats.n_failed_steps += 1
        for sequence, *_ in chunks:
            self.answers.fail(sequence.request, as_tenth_error(error))

    def compute_logits(self, ids: list[int], at_once: int) -> F32:
        """Logits after every token, in chunks of as many rows as may have them, or fewer."""
        if self.drafter:
            self.drafter.hand_over()
        most = min(self.runtime.max_outputs, self.runtime.max_rows, at_once or len(ids))
        tokens = np.array(ids, np.int32)
        pages, states = self.scheduler.make_room(pages_for(len(ids))), self.scheduler.states
        slots = np.array([states.take()] if states else [], np.int32)
        parts = []
        try:
            for start in range(0, len(ids), most):
                end = min(start + most, len(ids))
                rows = np.arange(end - start, dtype=np.int32)
                table = np.array(pages[: pages_for(end)], np.int32)
                starts = np.array([0, end - start], np.int32)
                self._run_whole(Batch(tokens[start:end], rows + np.int32(start), starts, [table], rows, slots=slots))
                parts.append(self.runtime.logits())
        finally:
            self.scheduler.pages.release(pages)
            for slot in slots.tolist():
                states.release(slot)
        return np.concatenate(parts)

    def _run_whole(self, batch: Batch) -> None:
        """A step that is computed again when a late word to another one stopped it."""
        while True:
            with contextlib.suppress(StepStopped):
                self._run(batch)
                return

    def check_ids(self, ids: object, what: str = "token id") -> None:
        """Raise RequestError when an id is outside the vocabulary; ``what``: as the message calls it."""
        n = self.runtime.vocab_size
        try:
            array = np.asarray(ids)
        except ValueError:  # lists of several lengths in it
            array = np.asarray(ids, object)
        if array.size and (array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= n):
            wrong = next(i for i in array.tolist() if type(i) is not int or not 0 <= i < n)
            raise RequestError(f"{what} {wrong!r} is not in the vocabulary (0 to {n - 1})")


def _most_sequences(runtime: StepRuntime, wanted: int) -> int:
    """Sequences at work at a time: each needs logits, and a slot if the model keeps states, with one slot left over.

    Texts that are only read leave soon: as many as can be.
    """
    most = min(wanted, runtime.max_outputs) if runtime.writes_text else runtime.max_outputs
    return min(most, runtime.n_slots - runtime.n_spare_slots - 1) if runtime.n_slots else most
