"""What one step takes and gives: flat arrays of token ids, page numbers and sampling settings. No tensors, no text.

The scheduler fills a ``Batch``; the runtime computes it and returns a ``StepResult``. Capital letters stand for sizes:
n rows (tokens) of s sequences, m of which need logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
F32 = NDArray[np.float32]

PAGE_TOKENS = 32  # tokens whose keys and values share one page; prefixes are shared in whole pages


def pages_for(n_tokens: int) -> int:
    """How many pages hold that many tokens."""
    return -(-n_tokens // PAGE_TOKENS)


# What a negative token in StepResult.tokens means (native/ops/sample.h, SampleStatus, with the sign changed).
SAMPLE_NOT_A_NUMBER = -1
SAMPLE_NOTHING_ALLOWED = -2


@dataclass(eq=False)
class Sampling:
    """How to choose the next token of each of m output rows. Every array has m entries; the value in brackets is off.

    The order of the steps is specified in native/ops/sample.h. The random number of a row depends on its seed and
    counter only, so a choice does not depend on the rows beside it.
    """

    temperature: F32  # 0 = always the most likely token
    top_k: I32  # (0)
    top_p: F32  # (1)
    min_p: F32  # (0)
    repetition: F32  # (1) divides the logits of tokens seen in the history
    presence: F32  # (0) subtracted once for a token that was generated before
    frequency: F32  # (0) subtracted for each time that a token was generated before
    seed: U64
    counter: I64  # number of the generated token, from 0
    n_top: I32  # how many of the most likely tokens to report
    n_prompt: I32  # so many tokens at the front of history are the prompt's: presence and frequency pass over them
    history: list[I32] = field(default_factory=list)  # m arrays: the tokens that the penalties look at
    bias: list[tuple[I32, F32]] = field(default_factory=list)  # m pairs: (ids, what is added to their logits)
    # [m, ceil(vocab/32)]; bit i%32 of word i/32 set = token i is allowed. A function: gives that, and is called only
    # when the logits are there, so that it may still be worked at beside the step.
    mask: U32 | Callable[[], U32] | None = None

    @classmethod
    def greedy(cls, m: int, n_top: int = 0) -> Sampling:
        """The most likely token for each of m rows, every filter and penalty off."""

        def full(value: float, dtype: Any) -> Any:
            return np.full(m, value, dtype)

        none = np.zeros(0, np.int32), np.zeros(0, np.float32)
        return cls(
            temperature=full(0, np.float32), top_k=full(0, np.int32), top_p=full(1, np.float32),
            min_p=full(0, np.float32), repetition=full(1, np.float32), presence=full(0, np.float32),
            frequency=full(0, np.float32), seed=full(0, np.uint64), counter=full(0, np.int64),
            n_top=full(n_top, np.int32), n_prompt=full(0, np.int32), history=[none[0]] * m, bias=[none] * m,
        )

    def packed(self) -> tuple[Any, ...]:
        """The settings as the flat arrays that the native side takes (native/bindings/sample.h reads this order)."""
        ids = [pair[0] for pair in self.bias]
        values = [pair[1] for pair in self.bias]
        return (
            self.temperature, self.top_k, self.top_p, self.min_p, self.repetition, self.presence, self.frequency,
            self.seed, self.counter, self.n_top, self.n_prompt,
            starts_of(map(len, self.history)), _joined(self.history, np.int32),
            starts_of(map(len, ids)), _joined(ids, np.int32), _joined(values, np.float32),
            self.mask() if callable(self.mask) else self.mask,
        )


@dataclass(eq=False)
class Batch:
    """One step's work: n rows, the rows of a sequence contiguous and with positions ascending by 1."""

    tokens: I32  # [n]
    positions: I32  # [n] position of each token in its sequence, from 0
    row_starts: I32  # [s+1] rows of sequence j are row_starts[j]:row_starts[j+1]
    pages: list[I32]  # s page tables: the page that holds positions 0..31, 32..63, ...
    outputs: I32  # [m] ascending numbers of the rows that need logits, or whose vectors are wanted
    sampling: Sampling | None = None  # None: no token is chosen
    slots: I32 = field(default_factory=lambda: np.zeros(0, np.int32))  # [s] where each one's recurrences are, if any
    # [n] slots that get a copy of the recurrences behind a row, or -1; empty: none is copied
    copies: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    sources: I32 = field(default_factory=lambda: np.zeros(0, np.int32))  # [n] of a draft: rows of the step before it
    # The first so many sequences have rows behind their prompt, all others rows of it. Only programs that compute
    # prompts otherwise (Program.prompts_apart) look at it.
    n_generated: int = 0


class StepStopped(Exception):
    """A step was stopped before its end: nothing of it counts, and it may be computed again."""


@dataclass(eq=False)
class StepResult:
    """What a step chose for its m output rows."""

    tokens: I32  # [m]; a negative number is a SAMPLE_ reason for having none
    logprobs: F32  # [m] of the chosen token under the raw logits: before mask, penalties, temperature and filters
    top_ids: list[I32]  # m arrays of n_top ids, most likely first
    top_logprobs: list[F32]  # their log-probabilities, of the raw logits as well
    vectors: F32 | None = None  # [m, width] what a program that writes no text gives instead of all that
    n_steps: int = 1  # in a row that it is of: m tokens of each, those of a sequence beside each other

    @classmethod
    def nothing(cls, vectors: F32 | None = None) -> StepResult:
        """No token was chosen."""
        return cls(np.zeros(0, np.int32), np.zeros(0, np.float32), [], [], vectors)


def starts_of(lengths: Iterable[int]) -> I32:
    """Where each of some runs begins, and where the last one ends."""
    return np.array([0, *accumulate(lengths)], np.int32)


def _joined(arrays: list[Any], dtype: Any) -> Any:
    if len(arrays) == 1:
        return np.asarray(arrays[0], dtype)
    return np.concatenate(arrays, dtype=dtype) if arrays else np.zeros(0, dtype)
