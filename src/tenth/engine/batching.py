"""The chunks of a step as the flat arrays that the runtime takes. Pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tenth.batch import I32, U32, Batch, Sampling, starts_of
from tenth.engine.chunk import Chunk
from tenth.engine.request import TokenChoice


def make_batch(chunks: list[Chunk], mask: Callable[[], U32] | None = None) -> Batch:
    """The flat arrays of a step. ``mask``: which tokens are allowed, see tenth.batch.Sampling."""
    starts = starts_of(c.n_all_rows for c in chunks)
    tokens = [part for c in chunks for part in (c.known, np.array(c.draft, np.int32))]
    positions = [np.arange(c.sequence.n_computed, c.sequence.n_computed + c.n_all_rows, dtype=np.int32) for c in chunks]
    outputs = [row for i, c in enumerate(chunks) if c.reaches_end
               for row in range(starts[i] + c.n_rows - 1, starts[i + 1])]
    return Batch(
        tokens=np.concatenate(tokens, dtype=np.int32),
        positions=np.concatenate(positions, dtype=np.int32),
        row_starts=starts,
        pages=[np.array(c.sequence.pages, np.int32) for c in chunks],
        outputs=np.array(outputs, np.int32),
        sampling=_sampling([(c, n) for c in chunks if c.reaches_end for n in range(1 + len(c.draft))], mask),
        slots=np.array([c.sequence.slot for c in chunks if c.sequence.slot >= 0], np.int32),
        copies=_copies(chunks),
        n_generated=sum(chunk.is_generated for chunk in chunks),
    )


def make_reading(chunks: list[Chunk], first_rows: bool) -> Batch:
    """The flat arrays of a step that chooses no tokens: results of the last row of each sequence, or of the first."""
    batch = make_batch(chunks)
    batch.sampling = None
    if first_rows:
        batch.outputs = batch.row_starts[:-1].copy()
    return batch


def _copies(chunks: list[Chunk]) -> I32:
    """Where the state behind each row goes: of guesses, and of what is known before them, all but the last."""
    if not any(chunk.sequence.ahead for chunk in chunks):
        return np.zeros(0, np.int32)
    rows = [([-1] * (c.n_rows - 1), c.sequence.ahead, [-1]) for c in chunks]
    return np.array([slot for parts in rows for part in parts for slot in part], np.int32)


def _sampling(rows: list[tuple[Chunk, int]], mask: Callable[[], U32] | None) -> Sampling:
    """How to choose the token after each (chunk, number of guesses before it)."""
    choices: list[TokenChoice] = [chunk.sequence.request.choice for chunk, _ in rows]
    nothing = np.zeros(0, np.int32)
    return Sampling(
        temperature=np.array([c.temperature for c in choices], np.float32),
        top_k=np.array([c.top_k for c in choices], np.int32),
        top_p=np.array([c.top_p for c in choices], np.float32),
        min_p=np.array([c.min_p for c in choices], np.float32),
        repetition=np.array([c.repetition for c in choices], np.float32),
        presence=np.array([c.presence for c in choices], np.float32),
        frequency=np.array([c.frequency for c in choices], np.float32),
        seed=np.array([c.seed for c in choices], np.uint64),
        counter=np.array([chunk.sequence.n_generated + n for chunk, n in rows], np.int64),
        n_top=np.array([c.n_top for c in choices], np.int32),
        n_prompt=np.array([chunk.sequence.n_prompt * chunk.looks_back for chunk, _ in rows], np.int32),
        history=[chunk.history(n) if chunk.looks_back else nothing for chunk, n in rows],
        bias=[c.bias for c in choices],
        mask=mask,
    )
