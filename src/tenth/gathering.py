"""Results of several texts that a model reads and does not answer: vectors of an embedder, scores of a reranker.

So many texts are with the engine at a time as one step may have; the next one is handed over when one is done, on the
engine's thread. So others who ask meanwhile wait for a few steps, however many texts there are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tenth.batch import F32
from tenth.engine.request import FinishReason, Reaction, Request, Token
from tenth.errors import RequestError, ResourceError

AT_ONCE = 32  # texts of one caller with the engine: a step has results of so many


class GivenUp(RequestError):
    """Texts that were not read because somebody cancelled them, or closed the model."""


class Submitting(Protocol):
    """What this needs of tenth.engine.Engine."""

    def submit(self, request: Request) -> None:
        """Queue a request; raises RequestError when it can never be computed."""

    def cancel(self, request: Request) -> None:
        """End a request soon."""


class Gathering:
    """Texts on their way through the engine. ``when_done`` is called once, on some thread, at the end of all."""

    def __init__(
        self, engine: Submitting, prompts: Sequence[Sequence[int]], when_done: Callable[[], None] | None = None
    ) -> None:
        self._engine, self._prompts, self._when_done = engine, prompts, when_done
        self._rows: list[F32 | None] = [None] * len(prompts)
        self._lock = threading.RLock()
        self._next, self._open = 0, 0
        self._requests: dict[int, Request] = {}
        self._error: Exception | None = None
        self._done = threading.Event()
        with self._lock:
            for _ in range(min(AT_ONCE, len(prompts))):
                self._hand_over()
            self._end_if_over()

    @property
    def is_done(self) -> bool:
        """Whether ``rows`` would not wait."""
        return self._done.is_set()

    @property
    def was_given_up(self) -> bool:
        """Whether it ended because somebody cancelled it, or closed the model."""
        return isinstance(self._error, GivenUp)

    def rows(self) -> F32:
        """The results [n, width] in order; waits for them. Raises what failed, the first of several."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        rows: F32 = np.stack([row for row in self._rows if row is not None])
        if not np.isfinite(rows).all():
            raise ResourceError("the model computed numbers that are none",
                                "the model file may be damaged: check it with tenth verify")
        return rows

    def cancel(self) -> None:
        """Give up what is not done. May be called at any time, more than once."""
        self._fail(GivenUp("the texts were given up"))

    def _hand_over(self) -> None:
        """Submit the next text, if there is one and nothing has failed."""
        with self._lock:
            number = self._next
            if number == len(self._prompts) or self._error is not None:
                return
            self._next += 1
            request = Request(self._prompts[number], _One(self, number), take=self._taker(number))
            self._requests[number] = request
            try:
                self._engine.submit(request)
            except Exception as error:
                del self._requests[number]
                self._fail(error)

    def _taker(self, number: int) -> Callable[[F32], None]:
        def take(row: F32) -> None:
            self._rows[number] = row.copy()

        return take

    def ended(self, number: int, error: Exception | None) -> None:
        """A text is done, or will not be."""
        with self._lock:
            self._requests.pop(number, None)
            if error is not None:
                self._fail(error)
            else:
                self._hand_over()
            self._end_if_over()

    def _fail(self, error: Exception) -> None:
        with self._lock:
            if self._error is None and not self._done.is_set():
                self._error = error
                for request in list(self._requests.values()):
                    self._engine.cancel(request)
                self._end_if_over()

    def _end_if_over(self) -> None:
        if not self._requests and (self._error is not None or self._next == len(self._prompts)):
            is_first = not self._done.is_set()
            self._done.set()
            if is_first and self._when_done is not None:
                self._when_done()


class _One:
    """Hears what becomes of one text."""

    def __init__(self, gathering: Gathering, number: int) -> None:
        self._gathering, self._number = gathering, number

    def started(self, n_cached_tokens: int) -> None:
        """See Listener."""

    def token(self, token: Token) -> Reaction:
        """See Listener."""
        raise AssertionError("a model that writes no text has written a token")

    def finished(self, reason: FinishReason, n_generated: int) -> None:
        """See Listener."""
        given_up = GivenUp("the texts were given up, or the model was closed") if reason == "cancelled" else None
        self._gathering.ended(self._number, given_up)

    def failed(self, error: Exception) -> None:
        """See Listener."""
        self._gathering.ended(self._number, error)


def check_dimensions(dimensions: int | None, width: int) -> None:
    """Raise RequestError for dimensions that vectors of this width cannot be cut to."""
    is_number = isinstance(dimensions, int) and not isinstance(dimensions, bool)
    if dimensions is not None and not (is_number and 1 <= dimensions <= width):
        raise RequestError(f"dimensions is {dimensions!r}, expected 1 to {width}", "leave it out to get all of them")


def vectors(rows: F32, dimensions: int | None = None, *, normalize: bool = True) -> F32:
    """Rows [n, width] as a user wants them: the first ``dimensions`` numbers of each, of length 1."""
    rows = rows[:, :dimensions]
    if not normalize:
        return rows
    lengths = np.sqrt((rows.astype(np.float64) ** 2).sum(-1, keepdims=True))
    unit: F32 = np.divide(rows, lengths, out=np.zeros(rows.shape), where=lengths > 0).astype(np.float32)
    return unit


def scores(rows: F32) -> NDArray[np.float64]:
    """Rows [n, 1] of a head as probabilities [n], by the logistic function; [n, 2] says yes and no."""
    logits = rows.astype(np.float64)
    odds = logits[:, 0] - (logits[:, 1] if logits.shape[1] == 2 else 0.0)
    with np.errstate(over="ignore"):  # exp(-x) = inf gives 0, which is right
        result: NDArray[np.float64] = 1 / (1 + np.exp(-odds))
    return result
