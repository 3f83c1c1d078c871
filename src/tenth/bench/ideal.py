"""The most that a cache of experts and a disk allow: what budgets.py sets measured speeds against.

tokens/s = 1 / max(seconds to compute a token when all experts are in memory, bytes it misses / the disk's rate)

Missed bytes come from simulating LRU on the very routing that was measured, with as many slots as the budget left.
Reading and computing overlap in this ideal, so that it is a maximum and not a sum.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenth.bench.limits import DIRECT_ALIGNMENT, read_buffer
from tenth.bench.policies import lru_misses
from tenth.config import EngineConfig
from tenth.loader import lay_out, matrix_source
from tenth.placing import expert_weights
from tenth.program.streaming import expert_layers, stream_experts
from tenth.tracing import Experts
from tenth.weights.gguf import read_header


@dataclass(frozen=True)
class Piece:
    """Bytes of a file."""

    path: Path
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class ExpertFile:
    """Where experts lie: by layer and expert the pieces of its matrices. ``n_experts`` of each layer."""

    layers: list[list[list[Piece]]]
    n_experts: int

    @classmethod
    def of(cls, file: Path) -> ExpertFile:
        """That of a model file. Raises ModelFileError."""
        header = read_header(file)
        layout = lay_out(header, EngineConfig())
        program = stream_experts(layout.program, expert_weights(layout.program))
        layers = []
        for names in expert_layers(program):
            infos = [layout.stored[name] for stage in names for name in stage]
            sources = [(info, matrix_source(info, header, program).expert_bytes) for info in infos]
            layers.append([[Piece(Path(info.path), info.offset + e * stride, info.n_bytes // info.shape[0])
                            for info, stride in sources] for e in range(infos[0].shape[0])])
        return cls(layers, max(map(len, layers)))

    @property
    def n_bytes(self) -> int:
        """Of all experts together."""
        return sum(piece.n_bytes for layer in self.layers for expert in layer for piece in expert)

    def pieces(self, experts: Iterable[int]) -> list[Piece]:
        """Of experts as ``groups`` numbers them."""
        return [piece for e in experts for piece in self.layers[e // self.n_experts][e % self.n_experts]]


def groups(steps: Sequence[Experts], n_experts: int) -> list[list[int]]:
    """What each layer of each step needs, layers one after the other; experts of all layers are numbered through.

    ``steps``: of each [n_rows, n_layers, k], -1 where a row did not go through a layer.
    """
    found = []
    for step in steps:
        for layer in range(step.shape[1]):
            used = sorted({int(e) for e in step[:, layer].ravel() if e >= 0})
            found.append([layer * n_experts + e for e in used])
    return found


def missed(before: Sequence[Experts], measured: Sequence[Experts], file: ExpertFile, slot_share: float) -> list[Piece]:
    """What LRU reads in the measured steps, after those before. ``slot_share``: of all experts, so many have slots."""
    n_layers, first = len(file.layers), len(before) * len(file.layers)
    n_slots = int(slot_share * n_layers * file.n_experts)
    misses = lru_misses(groups([*before, *measured], file.n_experts), n_slots)[first:]
    return file.pieces(e for group in misses for e in group)


def tokens_per_second(compute_s: float, missed_bytes: float, disk_rate: float) -> float:
    """The ideal; all of one token."""
    return 1 / max(compute_s, missed_bytes / disk_rate)


class Room:
    """Memory that no process has used yet, given out piece by piece; what does not fit goes to buffers used again."""

    def __init__(self, n_bytes: int):
        self._view, self._at = read_buffer(n_bytes), 0

    def take(self, n_bytes: int) -> memoryview | None:
        """So many bytes that were not taken before, or None."""
        start, self._at = self._at, min(self._at + n_bytes, len(self._view))
        return self._view[start : self._at] if self._at - start == n_bytes else None


def aligned(piece: Piece) -> tuple[int, int]:
    """Where a direct read of a piece begins, and its bytes."""
    first = piece.offset // DIRECT_ALIGNMENT * DIRECT_ALIGNMENT
    end = -(-(piece.offset + piece.n_bytes) // DIRECT_ALIGNMENT) * DIRECT_ALIGNMENT
    return first, end - first


def read_piece(descriptor: int, piece: Piece, target: memoryview) -> None:
    """Reads a piece. Raises OSError, also when the file ends within it."""
    first, n_bytes = aligned(piece)
    if first + os.preadv(descriptor, [target[:n_bytes]], first) < piece.offset + piece.n_bytes:
        raise OSError(errno.EIO, f"{piece.path} ends within what was to be read")


def read_seconds(pieces: Sequence[Piece], in_flight: int = 8, kept_bytes: int = 0) -> float:
    """Seconds to read the pieces past the page cache in this order, so many at a time. Raises OSError.

    The first ``kept_bytes`` of them go to fresh memory, as what stays in slots that were empty does; the others to one
    buffer for each read in flight.
    """
    files = {path: os.open(path, os.O_RDONLY | os.O_DIRECT) for path in {piece.path for piece in pieces}}
    waiting, lock, failures = iter(pieces), threading.Lock(), list[OSError]()
    longest, room = max((aligned(piece)[1] for piece in pieces), default=1), Room(kept_bytes)

    def work() -> None:
        try:
            view = read_buffer(longest)
            while True:
                with lock:
                    if (piece := next(waiting, None)) is None:
                        return
                    kept = room.take(aligned(piece)[1])
                read_piece(files[piece.path], piece, kept or view)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(in_flight)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    for descriptor in files.values():
        os.close(descriptor)
    if failures:
        raise failures[0]
    return seconds
