"""Asks the model's drafter, if it has one: which rows it is given, and where they lie. No policy, see speculation.py.

A drafter (models/nextn.py) goes on from hidden states that the runtime keeps of the last step. Its row for position i
of a sequence takes the state of that position and the token at i + 1, which is known once the step is over, and guesses
the token at i + 2. It attends to what it kept of earlier positions, in the pages of the sequence. So every row of every
step is handed to it before the next step, also where nothing is asked: that costs its first product, keys and values.

What it keeps of the last position of a shared page was computed with one continuation; a sequence that goes on
otherwise sees that one too. It is a guess's matter: no text depends on it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from typing import NamedTuple, Protocol

import numpy as np

from tenth.batch import I32, PAGE_TOKENS, Batch, StepResult, pages_for
from tenth.engine.chunk import Chunk
from tenth.engine.request import Sequence


class Guess(NamedTuple):
    """A token that may come next, and how likely the drafter takes it to be."""

    id: int
    probability: float


class DraftRuntime(Protocol):
    """What this needs of tenth.runtime.Runtime."""

    @property
    def max_outputs(self) -> int:
        """Most rows with logits in one step."""

    @property
    def context_tokens(self) -> int:
        """Longest sequence."""

    def draft(self, batch: Batch) -> StepResult:
        """The likeliest tokens after the output rows of a batch with ``sources``."""


class _Rows(NamedTuple):
    """Rows of one sequence for the drafter: tokens, the position of the first, and where that one's state is kept."""

    sequence: Sequence
    tokens: I32
    position: int
    source: int


class Drafter:
    """The rows that the last step left, and how far guesses behind them have come."""

    def __init__(self, runtime: DraftRuntime) -> None:
        self._runtime = runtime
        self._left: list[tuple[Sequence, int, int, int]] = []  # position and place of the first row, rows
        self._ends: dict[Sequence, _Rows] = {}  # what a further guess goes on from

    def note(self, chunks: Iterable[Chunk]) -> None:
        """A step was computed and is about to be counted as such: which rows it left. None: it failed, or was none."""
        self._ends, self._left, place = {}, [], 0
        for chunk in chunks:
            self._left.append((chunk.sequence, chunk.sequence.n_computed, place, chunk.n_all_rows))
            place += chunk.n_all_rows

    def hand_over(self) -> None:
        """Give it the rows that the last step left, if nothing was asked since, so that it has no gap."""
        if self._left:
            self.guess([])

    def can_guess(self, sequence: Sequence) -> bool:
        """Whether ``guess`` has something to go on from."""
        if self._left:
            return any(left[0] is sequence and self._rows(*left) for left in self._left)
        return sequence in self._ends

    def guess(self, sequences: SequenceOf[Sequence]) -> tuple[dict[Sequence, Guess], float]:
        """A guess for each of the sequences, further ahead with every call; and the seconds it took.

        The first call behind a step hands over its rows.
        """
        rows = [found for left in self._left if (found := self._rows(*left))] if self._left else [
            self._ends[sequence] for sequence in sequences
        ]  # fmt: skip
        self._left = []
        if not rows:
            return {}, 0.0
        asked = set(sequences[: self._runtime.max_outputs])
        started = time.perf_counter()
        result = self._runtime.draft(_batch(rows, asked))
        seconds = time.perf_counter() - started
        answered = [row for row in rows if row.sequence in asked]
        guesses = {row.sequence: Guess(int(id), math.exp(min(float(logprob), 0.0)))
                   for row, id, logprob in zip(answered, result.tokens, result.logprobs, strict=True) if id >= 0}
        self._ends = {}
        for place, (sequence, tokens, position, _) in enumerate(answered):
            following = position + len(tokens)
            fits = following < min(len(sequence.pages) * PAGE_TOKENS, self._runtime.context_tokens)
            if sequence in guesses and fits:
                self._ends[sequence] = _Rows(sequence, np.array([guesses[sequence].id], np.int32), following, place)
        return guesses, seconds

    def _rows(self, sequence: Sequence, position: int, place: int, n_rows: int) -> _Rows | None:
        """The rows that a step left of a sequence, as far as they hold; None when it has ended or begins anew."""
        end = min(sequence.n_computed, sequence.n_tokens - 1, position + n_rows)
        if end <= position or not sequence.request.speculate or len(sequence.pages) < pages_for(end):
            return None
        return _Rows(sequence, sequence.tokens[position + 1 : end + 1], position, place)


def _batch(rows: list[_Rows], asked: set[Sequence]) -> Batch:
    counts = [len(row.tokens) for row in rows]
    starts = np.cumsum([0, *counts], dtype=np.int32)
    return Batch(
        tokens=np.concatenate([row.tokens for row in rows], dtype=np.int32),
        positions=_ranges([row.position for row in rows], counts),
        row_starts=starts,
        pages=[np.array(row.sequence.pages, np.int32) for row in rows],
        outputs=np.array([end - 1 for row, end in zip(rows, starts[1:], strict=True) if row.sequence in asked],
                         np.int32),
        sources=_ranges([row.source for row in rows], counts),
    )  # fmt: skip


def _ranges(firsts: list[int], counts: list[int]) -> I32:
    pieces = [np.arange(first, first + n, dtype=np.int32) for first, n in zip(firsts, counts, strict=True)]
    return np.concatenate(pieces, dtype=np.int32)
