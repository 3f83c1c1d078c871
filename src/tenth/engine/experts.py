"""Which experts one answer used: a count for each expert of each layer, of the tokens that were generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tenth.engine.scheduler import Chunk


class ExpertUse:
    """``counts`` int64 [n_layers, n_experts]. The engine's thread counts; read it after the end."""

    def __init__(self, n_layers: int, n_experts: int) -> None:
        self.counts = np.zeros((n_layers, n_experts), np.int64)

    def add(self, experts: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> None:
        """Count the experts of some rows: [n_layers, n, k], -1 where a layer was not computed."""
        layers = np.broadcast_to(np.arange(len(experts))[:, None, None], experts.shape)
        used = experts >= 0
        np.add.at(self.counts, (layers[used], experts[used]), 1)


def count_experts(chunks: Sequence[Chunk], noted: list[list[int]]) -> None:
    """Count what a step noted, for each request that wants it: the rows from which its answer's tokens come.

    ``noted``: by layer, k experts for each row. Call it before the chunks count as computed.
    """
    n_rows = sum(chunk.n_all_rows for chunk in chunks)
    layers = np.array(noted, np.int16).reshape(len(noted), n_rows, -1)
    first = 0
    for chunk in chunks:
        sequence, last = chunk.sequence, first + chunk.n_all_rows
        if (use := sequence.request.experts) is not None:
            of_prompt = max(sequence.n_prompt - 1 - sequence.n_computed, 0)
            use.add(layers[:, min(first + of_prompt, last) : last])
        first = last
