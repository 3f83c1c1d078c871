"""The engine: what other threads may ask of the loop that owns the runtime (loop.py)."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceOf
from concurrent.futures import Future
from typing import TypeVar

from tenth.batch import F32
from tenth.engine.failures import as_tenth_error
from tenth.engine.loop import Drafting, Loop
from tenth.engine.request import Request
from tenth.engine.speculation import Speculation
from tenth.engine.stats import EngineStats
from tenth.engine.step_runtime import StepRuntime
from tenth.errors import Cause, RequestError

__all__ = ["Engine", "EngineStats"]

T = TypeVar("T")


class Engine:
    """Runs requests on a runtime, several in one step. Every method may be called from any thread.

    Closing it, or dropping the last reference to it, stops the thread, cancels what is unfinished and closes the
    runtime.
    """

    def __init__(
        self, runtime: StepRuntime, *, max_sequences: int = 8, prefix_reuse: bool = True,
        speculation: Drafting | None = None,
    ) -> None:
        self._loop = Loop(runtime, max_sequences, prefix_reuse, speculation or Speculation())
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
        if not self._loop.post(lambda: self._loop.answers.arrive(request)):
            raise _closed()

    def check(self, prompt: SequenceOf[int], biased: Iterable[int] = ()) -> None:
        """Raise RequestError when a prompt can never be computed, or an id of it or of the biases is not one."""
        self._loop.scheduler.check(len(prompt))
        self._loop.check_ids(prompt)
        self._loop.check_ids(list(biased), "logit_bias: token id")

    def cancel(self, request: Request) -> None:
        """End a request soon, in whatever phase it is. Nothing happens when it has ended already."""
        self._loop.post(lambda: self._loop.answers.end(request, "cancelled"))
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
            raise as_tenth_error(error) from error

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


def _stop(loop: Loop, thread: threading.Thread) -> None:
    loop.post(None)
    if thread is threading.current_thread():
        return
    try:
        loop.over.wait()  # before join, which takes a thread for ended once Ctrl-C has interrupted it
        thread.join()
    except BaseException:  # Ctrl-C while a step is computed: native code must have returned before Python ends
        atexit.register(loop.over.wait)
        raise
