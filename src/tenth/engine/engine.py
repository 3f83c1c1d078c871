"""The loop: one thread that owns the runtime. Requests come in through a queue, results go out through listeners.

The thread sleeps in the queue while nothing is to do. A step that fails ends the requests that were in it; the others
and the process go on.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as SequenceOf
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from tenth.batch import F32, SAMPLE_NOT_A_NUMBER, Batch, StepResult, StepStopped, pages_for
from tenth.engine import waking
from tenth.engine.drafter import Drafter
from tenth.engine.experts import NotedExperts
from tenth.engine.masks import Masks
from tenth.engine.pages import Pages
from tenth.engine.request import FinishReason, Request, Sequence, Token
from tenth.engine.scheduler import Chunk, Limits, Scheduler, make_batch, make_reading
from tenth.engine.speculation import Asked, Speculation
from tenth.engine.states import States
from tenth.errors import Cause, RequestError, ResourceError, TenthError

T = TypeVar("T")

LEAST_STOPPED_ROWS = 32  # of one prompt: a step with fewer is over soon


class StepRuntime(Protocol):
    """What the engine needs of tenth.runtime.Runtime."""

    @property
    def n_pages(self) -> int:
        """Pages of the KV cache."""

    @property
    def max_rows(self) -> int:
        """Most tokens in one step."""

    @property
    def max_outputs(self) -> int:
        """Most rows with logits in one step."""

    @property
    def vocab_size(self) -> int:
        """Logits in a row."""

    @property
    def context_tokens(self) -> int:
        """Longest sequence."""

    @property
    def writes_text(self) -> bool:
        """Whether steps choose tokens; else they give vectors."""

    @property
    def reads_whole(self) -> bool:
        """Whether a step has to have a sequence whole."""

    @property
    def result_row(self) -> str:
        """Which row of a sequence a vector is of: "last", "first", or "every"."""

    @property
    def has_drafter(self) -> bool:
        """Whether ``draft`` can be asked."""

    def draft(self, batch: Batch) -> StepResult:
        """The likeliest next tokens of rows that go on from those of the last step, see engine/drafter.py."""

    @property
    def n_slots(self) -> int:
        """Places for recurrent states, more than sequences at work; 0 for a model that keeps none."""

    @property
    def n_spare_slots(self) -> int:
        """Of these, for states behind guesses."""

    @property
    def noted_experts(self) -> tuple[int, int] | None:
        """(layers, experts of each) where steps note which experts every row uses, for ``take_trace``; else None."""

    def take_trace(self) -> list[list[int]]:
        """What was noted since the last time, by layer."""

    def copy_slot(self, source: int, target: int) -> None:
        """Copy the state in one place to another."""

    def step(self, batch: Batch) -> StepResult:
        """Compute the rows of a batch; without sampling settings the result is not looked at."""

    def stop(self) -> None:
        """Have a step that runs in another thread raise StepStopped soon, if it can be computed again."""

    def logits(self) -> F32:
        """Logits [m, vocab] of the last step, a copy."""

    def close(self) -> None:
        """Free everything."""


class Drafting(Protocol):
    """What the engine needs of tenth.engine.speculation.Speculation."""

    def propose(
        self, chunks: SequenceOf[Chunk], room: int, drafter: Asked | None = None
    ) -> dict[Sequence, tuple[int, ...]]:
        """Guesses for sequences of a step that has room for so many more rows; ``drafter``: if the model has one."""

    def measured(self, chunks: SequenceOf[Chunk], seconds: float) -> None:
        """A step took so long."""

    def learn(self, chunk: Chunk, n_accepted: int, n_sequences: int) -> None:
        """So many of the guesses of a chunk were right."""


@dataclass
class EngineStats:
    """Counts since the engine started."""

    n_steps: int = 0
    n_rows: int = 0
    n_prompt_tokens: int = 0  # of requests whose work has begun
    n_cached_tokens: int = 0  # of these, known already
    n_requests: int = 0
    n_failed_steps: int = 0
    n_stopped_steps: int = 0  # because somebody was cancelled whose prompt they computed
    n_preemptions: int = 0
    n_drafted: int = 0  # guesses at tokens that were computed
    n_accepted: int = 0  # of these, right
    step_s: float = 0.0


class Engine:
    """Runs requests on a runtime, several in one step. Every method may be called from any thread.

    Closing it, or dropping the last reference to it, stops the thread, cancels what is unfinished and closes the
    runtime.
    """

    def __init__(
        self, runtime: StepRuntime, *, max_sequences: int = 8, prefix_reuse: bool = True,
        speculation: Drafting | None = None,
    ) -> None:
        self._loop = _Loop(runtime, max_sequences, prefix_reuse, speculation or Speculation())
        thread = threading.Thread(target=self._loop.run, name="tenth-engine", daemon=True)
        thread.start()
        self._finalizer = weakref.finalize(self, _stop, self._loop, thread)

    @property
    def stats(self) -> EngineStats:
        """Counts since the start; read them as a rough picture, they change while one looks."""
        return self._loop.stats

    @property
    def pages(self) -> dict[str, int]:
        """How many pages of the KV cache are free, kept for reuse, and used by sequences; as rough as ``stats``."""
        pages = self._loop.scheduler.pages
        n_free, n_cached = pages.n_available - pages.n_cached, pages.n_cached
        return {"free": n_free, "cached": n_cached, "used": self._loop.runtime.n_pages - n_free - n_cached}

    @property
    def limit_tokens(self) -> int:
        """Most tokens that one sequence can have, prompt and answer together."""
        return self._loop.scheduler.limit_tokens

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return not self._finalizer.alive

    def submit(self, request: Request) -> None:
        """Queue a request; its listener hears the rest. Raises RequestError when it can never be computed."""
        self.check(request.prompt, request.choice.bias[0])
        if not self._loop.post(lambda: self._loop.arrive(request)):
            raise _closed()

    def check(self, prompt: SequenceOf[int], biased: Iterable[int] = ()) -> None:
        """Raise RequestError when a prompt can never be computed, or an id of it or of the biases is not one."""
        self._loop.scheduler.check(len(prompt))
        self._loop.check_ids(prompt)
        self._loop.check_ids(list(biased), "logit_bias: token id")

    def cancel(self, request: Request) -> None:
        """End a request soon, in whatever phase it is. Nothing happens when it has ended already."""
        self._loop.post(lambda: self._loop.end(request, "cancelled"))
        self._loop.stop_for(request)

    def logits(self, ids: list[int], at_once: int = 0) -> F32:
        """Logits [len(ids), vocab] (or vectors) at every token of a sequence; others wait or are set back meanwhile.

        ``at_once``: most tokens in a step; 0: as many as may have logits. Raises RequestError when the sequence is
        empty, too long, or has an id outside the vocabulary, ResourceError when a step fails.
        """
        if not 0 < len(ids) <= self.limit_tokens:
            raise RequestError(f"the result at {len(ids)} tokens was asked for, expected 1 to {self.limit_tokens}")
        self._loop.check_ids(ids)
        try:
            return self._call(lambda: self._loop.compute_logits(ids, at_once))
        except RuntimeError as error:  # of the step: a weight that could not be read
            raise _as_tenth_error(error) from error

    def forget_prefixes(self) -> None:
        """Drop every cached page that no sequence uses."""
        self._call(self._loop.scheduler.forget)

    def close(self) -> None:
        """Cancel what is unfinished, stop the thread, close the runtime. May be called twice."""
        self._finalizer()

    def _call(self, function: Callable[[], T]) -> T:
        """What a function gives on the engine's thread, between two steps."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # handed to the caller
                future.set_exception(error)

        if not self._loop.post(work):
            raise _closed()
        return future.result()


def _closed() -> RequestError:
    return RequestError("the model is closed", "load it again", cause=Cause("model-closed"))


def _stop(loop: _Loop, thread: threading.Thread) -> None:
    loop.post(None)
    if thread is threading.current_thread():
        return
    try:
        loop.over.wait()  # before join, which takes a thread for ended once Ctrl-C has interrupted it
        thread.join()
    except BaseException:  # Ctrl-C while a step is computed: native code must have returned before Python ends
        atexit.register(loop.over.wait)
        raise


class _Loop:
    """The engine's thread: everything here runs on it, except ``post`` and ``check_ids``."""

    def __init__(self, runtime: StepRuntime, max_sequences: int, prefix_reuse: bool, speculation: Drafting) -> None:
        limits = Limits(
            max_rows=runtime.max_rows,
            max_sequences=_most_sequences(runtime, max_sequences),
            context_tokens=runtime.context_tokens,
            max_outputs=runtime.max_outputs,
            whole=runtime.reads_whole,
            to_generate=int(runtime.writes_text),
        )
        self.runtime = runtime
        self.speculation = speculation
        self.drafter = Drafter(runtime) if runtime.has_drafter else None
        self.masks = Masks(runtime.vocab_size)
        reuse = prefix_reuse and not runtime.reads_whole
        states = States(runtime.n_slots, runtime.n_spare_slots)
        self.scheduler = Scheduler(Pages(runtime.n_pages, reuse), limits, states)
        self.sequences: dict[Request, Sequence] = {}
        self.stats = EngineStats()
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
            return self._is_open

    def run(self) -> None:
        """Work until told to stop, then end what is left and close the runtime."""
        waking.hold()
        try:
            while self._take_messages():
                self._step()
        except Exception as error:  # our own bug: say so to everyone who waits
            for request in list(self.sequences):
                self._fail(request, _as_tenth_error(error))
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
        for request in list(self.sequences):
            self.end(request, "cancelled")
        waking.let_go()
        self.masks.close()
        self.runtime.close()

    def _step(self) -> None:
        """One step of the engine: plan, compute, note, deliver."""
        chunks = self._announce(self.scheduler.plan())
        try:
            drafts = self._propose(chunks, self.scheduler.room(chunks))
            chunks = self.scheduler.with_drafts(chunks, drafts) if drafts else chunks
        except Exception as error:
            self._fail_step(chunks, error)
            chunks = []
        result = self._compute(chunks)
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

    def _announce(self, chunks: list[Chunk]) -> list[Chunk]:
        """Tell listeners whose first chunk this is; gives the chunks of those that are still at work then."""
        for sequence, *_ in chunks:
            if not sequence.was_started:
                sequence.was_started = True
                self.stats.n_prompt_tokens += sequence.n_prompt
                self.stats.n_cached_tokens += sequence.n_computed
                with self._failing(sequence.request):
                    sequence.request.listener.started(sequence.n_computed)
        return [chunk for chunk in chunks if chunk.sequence.request in self.sequences]

    def _propose(self, chunks: list[Chunk], room: int) -> dict[Sequence, tuple[int, ...]]:
        if not self.drafter:
            return self.speculation.propose(chunks, room)
        drafts = self.speculation.propose(chunks, room, self.drafter)
        self.drafter.hand_over()
        return drafts

    def _compute(self, chunks: list[Chunk]) -> StepResult | None:
        """The result of a step, or None after failing every request in it (or when there is none)."""
        if not chunks:
            return None
        started = time.perf_counter()
        try:
            self._long = self._long_ones(chunks)
            result = self._run(self._batch(chunks))
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
        self.stats.n_steps += 1
        self.stats.n_preemptions = self.scheduler.n_preemptions
        self.stats.n_rows += sum(c.n_all_rows for c in chunks)
        seconds = time.perf_counter() - started
        self.stats.step_s += seconds
        self.speculation.measured(chunks, seconds)
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

    def _deliver(self, chunks: list[Chunk], result: StepResult) -> None:
        """Hand out the tokens of a step: of each chunk the first, and one more for each guess that was right.

        Of a model that writes no text, the vectors.
        """
        if result.vectors is not None:
            for chunk, vector in zip(chunks, result.vectors, strict=True):
                self._give(chunk.sequence.request, vector)
            return
        first = 0
        for chunk in chunks:
            n_accepted = self._accept(chunk, result, first)
            first += 1 + len(chunk.draft)
            self.speculation.learn(chunk, n_accepted, len(chunks))
            if chunk.draft and chunk.sequence.request in self.sequences:
                self.scheduler.trim(chunk.sequence)

    def _give(self, request: Request, vector: F32) -> None:
        assert request.take is not None, "nobody takes the result of a model that writes no text"
        with self._failing(request):
            request.take(vector)
            self.end(request, "stop")

    def _accept(self, chunk: Chunk, result: StepResult, first: int) -> int:
        """Follow the tokens of a chunk, whose rows begin at ``first``, as far as they hold; how many guesses did."""
        sequence, counts = chunk.sequence, chunk.sequence.request.speculated
        counts.n_steps += 1
        counts.n_drafted += len(chunk.draft)
        self.stats.n_drafted += len(chunk.draft)
        for n, guess in enumerate((*chunk.draft, None)):
            if result.tokens[first + n] < 0:
                guide = sequence.request.guide
                error = guide.error if guide else None
                self._fail(sequence.request, error or _sample_error(int(result.tokens[first + n])))
                return n
            if n and self._experts is not None:
                self._experts.accept(sequence.request, n - 1)
            token = _token(result, first + n)
            goes_on = False
            with self._failing(sequence.request):
                goes_on = self._follow(sequence, token)
            if not goes_on or token.id != guess:
                return n
            self.scheduler.accept(sequence)
            counts.n_accepted += 1
            self.stats.n_accepted += 1
        raise AssertionError("a token equalled no guess and yet was accepted")

    def _follow(self, sequence: Sequence, token: Token) -> bool:
        """Add a token to its sequence, tell the listener, and end the request when it is time.

        False: it has ended, or other tokens than what the model says next come now.
        """
        request = sequence.request
        sequence.append([token.id])
        if token.id in request.stop_ids:
            self.end(request, "stop")
            return False
        reaction = request.listener.token(token)
        if reaction.stop:
            self.end(request, "stop")
            return False
        sequence.append(reaction.force[: sequence.max_tokens - sequence.n_generated])
        if sequence.n_generated >= sequence.max_tokens:
            self.end(request, "length")
            return False
        return not reaction.force

    def arrive(self, request: Request) -> None:
        """Queue a request that was checked."""
        self.stats.n_requests += 1
        self.sequences[request] = Sequence(request, self.stats.n_requests, self.scheduler.limit_tokens)
        self.scheduler.add(self.sequences[request])

    def end(self, request: Request, reason: FinishReason) -> None:
        """Drop a request and tell its listener why. Nothing happens when it has ended already."""
        sequence = self.sequences.pop(request, None)
        if sequence is not None:
            self.scheduler.remove(sequence)
            with contextlib.suppress(Exception):  # nobody is left to be told
                request.listener.finished(reason, sequence.n_generated)

    def _fail_step(self, chunks: list[Chunk], error: Exception) -> None:
        """End everyone who has a part in a step that failed, and nobody else."""
        self.stats.n_failed_steps += 1
        for sequence, *_ in chunks:
            self._fail(sequence.request, _as_tenth_error(error))

    def _fail(self, request: Request, error: Exception) -> None:
        sequence = self.sequences.pop(request, None)
        if sequence is not None:
            self.scheduler.remove(sequence)
            with contextlib.suppress(Exception):
                request.listener.failed(error)

    @contextlib.contextmanager
    def _failing(self, request: Request) -> Iterator[None]:
        """A listener that raises ends its own request only."""
        try:
            yield
        except Exception as error:
            self._fail(request, error)

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
        array, n = np.asarray(ids), self.runtime.vocab_size
        if array.size and (array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= n):
            wrong = next(i for i in array.tolist() if type(i) is not int or not 0 <= i < n)
            raise RequestError(f"{what} {wrong!r} is not in the vocabulary (0 to {n - 1})")


def _most_sequences(runtime: StepRuntime, wanted: int) -> int:
    """Sequences at work at a time: each needs logits, and a slot if the model keeps states, with one slot left over.

    Texts that are only read leave soon: as many as can be.
    """
    most = min(wanted, runtime.max_outputs) if runtime.writes_text else runtime.max_outputs
    return min(most, runtime.n_slots - runtime.n_spare_slots - 1) if runtime.n_slots else most


def _token(result: StepResult, row: int) -> Token:
    top = zip(result.top_ids[row].tolist(), result.top_logprobs[row].tolist(), strict=True)
    return Token(int(result.tokens[row]), float(result.logprobs[row]), tuple(top))


def _as_tenth_error(error: Exception) -> TenthError:
    if isinstance(error, TenthError):
        return error
    return ResourceError(
        f"a step of the model failed: {error or type(error).__name__}",
        "the requests in that step were ended; the model goes on with others",
        cause=Cause("answer-failed"),
    )


def _sample_error(code: int) -> TenthError:
    if code == SAMPLE_NOT_A_NUMBER:
        return ResourceError(
            "the model computed logits that are not numbers",
            "the model file may be damaged: check it with tenth verify",
            cause=Cause("model-damaged"),
        )
    return RequestError(
        "no token is allowed: every logit is -inf",
        "loosen logit_bias or the grammar so that some token stays possible",
        cause=Cause("answer-failed"),
    )

