"""A part of a step: the next tokens of one sequence. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tenth.batch import I32
from tenth.engine.request import Sequence


class Chunk(NamedTuple):
    """The next n_rows tokens of a sequence, and guesses at those that follow them (only behind its last token)."""

    sequence: Sequence
    n_rows: int
    draft: tuple[int, ...] = ()

    @property
    def n_all_rows(self) -> int:
        """Rows it takes in a step, guesses included."""
        return self.n_rows + len(self.draft)

    @property
    def known(self) -> I32:
        """The ids of its tokens, without guesses."""
        sequence = self.sequence
        return sequence.tokens[sequence.n_computed : sequence.n_computed + self.n_rows]

    @property
    def looks_back(self) -> bool:
        """Whether choosing its next token needs its history."""
        return self.sequence.request.choice.looks_back

    def history(self, n_guesses: int) -> I32:
        """All tokens of the sequence, and so many of the guesses behind them."""
        tokens = self.sequence.tokens
        return np.concatenate((tokens, self.draft[:n_guesses]), dtype=np.int32) if n_guesses else tokens

    @property
    def is_generated(self) -> bool:
        """Whether its first row is behind the prompt."""
        return self.sequence.n_computed >= self.sequence.n_prompt

    @property
    def reaches_end(self) -> bool:
        """Whether it has the last token of its sequence, so that the next one can be chosen."""
        return self.n_rows == self.sequence.n_pending
