"""Which tokens each row of a step may be followed by, worked out on a thread of its own while the step is computed.

A mask takes tens of microseconds, a hard one some milliseconds, the step it runs beside tens of milliseconds: the
sampler, which is called when the logits are there, finds the masks ready.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from tenth.batch import U32
from tenth.engine.chunk import Chunk

ALL = np.uint32(0xFFFFFFFF)


class Masks:
    """Asks the guides of a step. One for an engine; its thread starts with the first request that has a guide."""

    def __init__(self, vocab_size: int) -> None:
        self._n_words = -(-vocab_size // 32)
        self._thread: ThreadPoolExecutor | None = None
        self._begun: Future[U32] | None = None  # of the last step that needed some

    def begin(self, chunks: SequenceOf[Chunk]) -> Callable[[], U32] | None:
        """Start on the masks of a step: a function that waits for them, [m, words]. None when none are needed."""
        if not any(_guided(chunk) for chunk in chunks):
            return None
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "tenth-masks")
        self._begun = self._thread.submit(self._compute, [chunk for chunk in chunks if chunk.reaches_end])
        return self._begun.result

    def settle(self) -> None:
        """Wait for masks that nobody took, because the step ended early: till then the guides are not the engine's."""
        if self._begun is not None:
            wait([self._begun])

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown()

    def _compute(self, chunks: list[Chunk]) -> U32:
        n_rows = [1 + len(chunk.draft) for chunk in chunks]
        masks = np.zeros((sum(n_rows), self._n_words), np.uint32)
        first = 0
        for chunk, n in zip(chunks, n_rows, strict=True):
            guide, rows = chunk.sequence.request.guide, masks[first : first + n]
            if guide is not None and guide.is_on:
                guide.fill(rows, chunk.draft)
            else:
                rows[:] = ALL
            first += n
        return masks


def _guided(chunk: Chunk) -> bool:
    guide = chunk.sequence.request.guide
    return chunk.reaches_end and guide is not None and guide.is_on
