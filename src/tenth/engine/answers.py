"""The requests at work, and what their listeners hear: that work begins, tokens, the end, what went wrong.

A listener that raises ends its own request only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tenth.batch import F32, StepResult
from tenth.engine.chunk import Chunk
from tenth.engine.experts import NotedExperts
from tenth.engine.failures import sample_error
from tenth.engine.request import FinishReason, Request, Sequence, Token
from tenth.engine.scheduler import Scheduler
from tenth.engine.stats import EngineStats


class Answers:
    """Everybody who waits for something. Used on the engine's thread."""

    def __init__(self, scheduler: Scheduler, stats: EngineStats) -> None:
        self._scheduler, self._stats = scheduler, stats
        self._sequences: dict[Request, Sequence] = {}

    def __contains__(self, request: Request) -> bool:
        return request in self._sequences

    def arrive(self, request: Request) -> None:
        """Queue a request that was checked."""
        self._stats.n_requests += 1
        self._sequences[request] = Sequence(request, self._stats.n_requests, self._scheduler.limit_tokens)
        self._scheduler.add(self._sequences[request])

    def announce(self, chunks: list[Chunk]) -> list[Chunk]:
        """Tell listeners whose first chunk this is; gives the chunks of those that are still at work then."""
        for sequence, *_ in chunks:
            if not sequence.was_started:
                sequence.was_started = True
                self._stats.n_prompt_tokens += sequence.n_prompt
                self._stats.n_cached_tokens += sequence.n_computed
                with self._failing(sequence.request):
                    sequence.request.listener.started(sequence.n_computed)
        return [chunk for chunk in chunks if chunk.sequence.request in self]

    def follow(self, chunk: Chunk, result: StepResult, first: int, experts: NotedExperts | None) -> int:
        """Follow the tokens of a chunk, whose rows begin at ``first``, as far as they hold; how many guesses did.

        ``experts``: what the step noted, if it did.
        """
        if result.n_steps != 1:
            return self._follow_all(chunk, result, first)
        return self._accept(chunk, result, first, experts)

    def _accept(self, chunk: Chunk, result: StepResult, first: int, experts: NotedExperts | None) -> int:
        """Follow the tokens of a chunk, whose rows begin at ``first``, as far as they hold; how many guesses did."""
        sequence, counts = chunk.sequence, chunk.sequence.request.speculated
        counts.n_steps += 1
        counts.n_drafted += len(chunk.draft)
        self._stats.n_drafted += len(chunk.draft)
        for n, guess in enumerate((*chunk.draft, None)):
            if n and experts is not None and result.tokens[first + n] >= 0:
                experts.accept(sequence.request, n - 1)
            if not self._take(sequence, result, first + n) or result.tokens[first + n] != guess:
                return n
            self._scheduler.accept(sequence)
            counts.n_accepted += 1
            self._stats.n_accepted += 1
        raise AssertionError("a token equalled no guess and yet was accepted")

    def _follow_all(self, chunk: Chunk, result: StepResult, first: int) -> int:
        """Follow the tokens that several steps chose for a chunk, as far as they hold. They were no guesses: 0."""
        for n in range(result.n_steps):
            if n:
                self._scheduler.accept(chunk.sequence)
            chunk.sequence.request.speculated.n_steps += 1
            if not self._take(chunk.sequence, result, first + n):
                break
        return 0

    def _take(self, sequence: Sequence, result: StepResult, row: int) -> bool:
        """Follow the token of a row, or fail where none could be chosen. Whether what the model says comes next."""
        if result.tokens[row] < 0:
            guide = sequence.request.guide
            error = guide.error if guide else None
            self.fail(sequence.request, error or sample_error(int(result.tokens[row])))
            return False
        try:
            return self._follow(sequence, _token(result, row))
        except Exception as error:  # of its listener, which ends its own request only
            self.fail(sequence.request, error)
            return False

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

    def give(self, request: Request, vector: F32) -> None:
        """Hand a vector to a request of a model that writes no text, which ends it."""
        assert request.take is not None, "nobody takes the result of a model that writes no text"
        with self._failing(request):
            request.take(vector)
            self.end(request, "stop")

    def end(self, request: Request, reason: FinishReason) -> None:
        """Drop a request and tell its listener why. Nothing happens when it has ended already."""
        sequence = self._sequences.pop(request, None)
        if sequence is not None:
            self._scheduler.remove(sequence)
            with contextlib.suppress(Exception):  # nobody is left to be told
                request.listener.finished(reason, sequence.n_generated)

    def end_all(self, reason: FinishReason) -> None:
        """Drop every request."""
        for request in list(self._sequences):
            self.end(request, reason)

    def fail(self, request: Request, error: Exception) -> None:
        """Drop a request and tell its listener what went wrong. Nothing happens when it has ended already."""
        sequence = self._sequences.pop(request, None)
        if sequence is not None:
            self._scheduler.remove(sequence)
            with contextlib.suppress(Exception):
                request.listener.failed(error)

    def fail_all(self, error: Exception) -> None:
        """Drop every request; all of them failed."""
        for request in list(self._sequences):
            self.fail(request, error)

    @contextlib.contextmanager
    def _failing(self, request: Request) -> Iterator[None]:
        """A listener that raises ends its own request only."""
        try:
            yield
        except Exception as error:
            self.fail(request, error)


def _token(result: StepResult, row: int) -> Token:
    top = zip(result.top_ids[row].tolist(), result.top_logprobs[row].tolist(), strict=True)
    return Token(int(result.tokens[row]), float(result.logprobs[row]), tuple(top))
