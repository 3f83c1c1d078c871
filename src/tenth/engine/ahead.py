"""How many steps the runtime computes before anyone hears of their tokens. Pure.

What Python does between two steps (arrays of settings, text, waking readers) takes 0.3 to 0.4 ms on two cores: a sixth
of the token of a small model. While every sequence only goes on from its last token, nothing has to be known of a token
before the next one is computed. So a few steps are run in one call; whoever comes or leaves meanwhile ends it behind
its step. What was computed behind a token that ended its answer is thrown away, as behind a guess that was wrong.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

from tenth.engine.chunk import Chunk
from tenth.engine.request import Sequence
from tenth.engine.speculation import is_plain

AHEAD_S = 0.05  # tokens of one answer may come together that would have come within this time: 20 times a second
MOST_STEPS = 16


class Ahead:
    """Chooses how many steps are run in one call. One for an engine."""

    def __init__(self) -> None:
        self._timed: tuple[int, float] = (0, 0.0)  # rows of the last plain step, and its seconds

    def measured(self, chunks: SequenceOf[Chunk], seconds: float) -> None:
        """A step took so long."""
        if is_plain(chunks) and not any(chunk.draft for chunk in chunks):
            self._timed = len(chunks), seconds

    def steps(self, chunks: SequenceOf[Chunk]) -> int:
        """How many steps these chunks, without guesses, may begin."""
        n_rows, seconds = self._timed
        if not chunks or n_rows != len(chunks) or not is_plain(chunks):
            return 1
        if not all(_is_free(chunk.sequence) for chunk in chunks):
            return 1
        left = min(chunk.sequence.max_tokens - chunk.sequence.n_generated for chunk in chunks)
        return max(1, min(MOST_STEPS, int(AHEAD_S / seconds), left))


def _is_free(sequence: Sequence) -> bool:
    """Whether its next tokens need nothing but logits. Nobody waits for the first one longer than for a step."""
    request = sequence.request
    return sequence.n_generated > 0 and request.guide is None and not request.choice.looks_back
