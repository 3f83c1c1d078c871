"""What the meaning of an op may look at: the step's batch, what is kept between steps; and the table of meanings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass
class Batch:
    """One step. Rows of sequence j are row_starts[j]:row_starts[j+1]; ``outputs``: rows that need logits, ascending.

    ``sequences``: which sequence of the cache each one is; by default 0, 1, 2 … ``sources``: of a drafter's rows.
    ``n_generated``: the first so many sequences are behind their prompt, all others at it.
    """

    tokens: Array
    positions: Array
    row_starts: Array
    outputs: Array
    sequences: Sequence[int] = ()
    sources: Array | None = None
    n_generated: int = 0

    def __post_init__(self) -> None:
        self.sequences = self.sequences or range(len(self.row_starts) - 1)

    @classmethod
    def single(cls, tokens: Sequence[int], start: int = 0, outputs: Sequence[int] | None = None) -> Batch:
        """One sequence from position ``start`` on; logits for every row unless ``outputs`` says which."""
        n = len(tokens)
        rows = np.arange(n) if outputs is None else np.asarray(outputs, int)
        return cls(np.asarray(tokens), np.arange(start, start + n), np.array([0, n]), rows)


@dataclass
class Cache:
    """What is kept between steps.

    ``kv``: keys and values, (layer, sequence) -> [2, positions, n_kv_heads, head_dim]; latents: [1, …]. ``recurrent``:
    (number of the recurrence, sequence) -> its numbers. ``hidden``: the rows that the last hidden_store kept.
    """

    kv: dict[tuple[int, int], Array] = field(default_factory=dict)
    recurrent: dict[tuple[int, int], Array] = field(default_factory=dict)
    hidden: Array | None = None


class Context(NamedTuple):
    """What an op may need besides its inputs."""

    batch: Batch
    cache: Cache
    dtype: type[np.floating[Any]]


Attrs = dict[str, Any]
Meaning = Callable[[list[Any], Attrs, Context], Any]
MEANINGS: dict[str, Meaning] = {}


def means(op: str) -> Callable[[Meaning], Meaning]:
    """The function is what this op of the table means."""

    def register(function: Meaning) -> Meaning:
        MEANINGS[op] = function
        return function

    return register


def sequences(batch: Batch) -> list[tuple[slice, int]]:
    """(rows, sequence of the cache) of each sequence that has rows in the step."""
    starts = [int(start) for start in batch.row_starts]
    return [(slice(a, b), s) for a, b, s in zip(starts, starts[1:], batch.sequences, strict=False) if b > a]


def softmax(x: Array) -> Array:
    """Over the last dimension."""
    e: Array = np.exp(x - x.max(-1, keepdims=True))
    e /= e.sum(-1, keepdims=True)
    return e
