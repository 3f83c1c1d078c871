"""Which experts one answer used: a count for each expert of each layer, of the tokens that were generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tenth.engine.chunk import Chunk
    from tenth.engine.request import Request

Experts = np.ndarray[tuple[int, ...], np.dtype[np.int16]]


class ExpertUse:
    """``counts`` int64 [n_layers, n_experts], of ``n_rows``. The engine's thread counts; read it after the end."""

    def __init__(self, n_layers: int, n_experts: int) -> None:
        self.counts, self.n_rows = np.zeros((n_layers, n_experts), np.int64), 0

    def add(self, experts: Experts) -> None:
        """Count the experts of some rows: [n_layers, n, k], -1 where a layer was not computed."""
        layers = np.broadcast_to(np.arange(len(experts))[:, None, None], experts.shape)
        used = experts >= 0
        np.add.at(self.counts, (layers[used], experts[used]), 1)
        self.n_rows += experts.shape[1]


class NotedExperts:
    """What a step noted, by sequence: counted for a request when its rows turn out to be its answer's.

    ``noted``: by layer, k experts for each row. Make it before the chunks count as computed.
    """

    def __init__(self, chunks: Sequence[Chunk], noted: list[list[int]]) -> None:
        n_rows = sum(chunk.n_all_rows for chunk in chunks)
        layers = np.array(noted, np.int16).reshape(len(noted), n_rows, -1)
        self._guesses: dict[ExpertUse, Experts] = {}
        first = 0
        for chunk in chunks:
            sequence, known, last = chunk.sequence, first + chunk.n_rows, first + chunk.n_all_rows
            if (use := sequence.request.experts) is not None:
                # A prompt's last row gives the first token. After a preemption what counted before is computed again.
                n_before = max(sequence.n_prompt - 1 + use.n_rows - sequence.n_computed, 0)
                use.add(layers[:, min(first + n_before, known) : known])
                self._guesses[use] = layers[:, known:last]
            first = last

    def accept(self, request: Request, guess: int) -> None:
        """Count the row of a guess that was right: it gives a token."""
        if request.experts in self._guesses:
            request.experts.add(self._guesses[request.experts][:, guess : guess + 1])
