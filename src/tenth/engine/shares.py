"""How many rows of a step each prompt gets, and where a chunk of one has to end. Pure."""

from __future__ import annotations

from tenth.engine.chunk import Chunk
from tenth.engine.request import Sequence

OLDEST_PART = 4  # a quarter of what a step has for prompts is the oldest one's


def share(sequences: list[Sequence], room: int) -> list[Chunk]:
    """Chunks of prompts in order of arrival: the one that needs least is served first, so that most wait least.

    A part of the room is the oldest one's, however many short ones keep coming.
    """
    if not sequences or room <= 0:
        return []
    oldest = sequences[0]
    rows = {oldest: min(oldest.n_pending, max(1, room // OLDEST_PART))}
    room -= rows[oldest]
    for sequence in sorted(sequences, key=lambda s: s.n_pending):  # stable: by arrival when equal
        more = min(sequence.n_pending - rows.get(sequence, 0), room)
        rows[sequence] = rows.get(sequence, 0) + more
        room -= more
    return [Chunk(s, rows[s]) for s in sequences if rows[s] > 0]


def whole(sequences: list[Sequence], max_rows: int, max_outputs: int) -> list[Chunk]:
    """Whole sequences in order of arrival, until the next does not fit."""
    chunks: list[Chunk] = []
    room = max_rows
    for sequence in sequences[:max_outputs]:
        room -= sequence.n_pending
        if room < 0:
            break
        chunks.append(Chunk(sequence, sequence.n_pending))
    assert chunks or not sequences, "a sequence is longer than a step"
    return chunks


def of_one_kind(chunk: Chunk) -> Chunk:
    """The chunk, or the part of it that is of the prompt."""
    left = chunk.sequence.n_prompt - chunk.sequence.n_computed
    return chunk._replace(n_rows=left) if 0 < left < chunk.n_rows else chunk


def until_checkpoint(chunk: Chunk) -> Chunk:
    """The chunk, or the part of it that ends where a checkpoint is to be made."""
    left = chunk.sequence.checkpoint_at - chunk.sequence.n_computed
    return chunk._replace(n_rows=left) if 0 < left < chunk.n_rows else chunk
