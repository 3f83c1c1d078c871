"""Traces of routing: which experts every token used, in a file that ``python -m tenth.bench.replay`` reads.

A compressed .npz of `experts` int16 [n_tokens, n_layers, k], layers being those with experts, and `n_experts`, how many
a layer has. -1 stands where a layer was not computed: of a prompt only the last token goes through the last layer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tenth.errors import ModelFileError, RequestError

VARIABLE = "TENTH_TRACE"
MOST_TOKENS = 1 << 16  # then recording stops: 50 MB for the largest shapes
Experts = np.ndarray[tuple[int, ...], np.dtype[np.int16]]


@dataclass(frozen=True)
class Trace:
    """Experts int16 [n_tokens, n_layers, k] of ``n_experts`` in each layer, rows in the order of computation."""

    experts: Experts
    n_experts: int

    @property
    def complete(self) -> Trace:
        """Only the tokens that went through every layer."""
        return Trace(self.experts[(self.experts >= 0).all((1, 2))], self.n_experts)


class Recorder:
    """Gathers what steps noted, and writes it when the model is closed."""

    def __init__(self, path: Path, n_experts: int, take: Callable[[], list[list[int]]]):
        self.path, self.n_experts = path, n_experts
        self._take = take
        self._parts: list[Experts] = []
        self._n_tokens = 0

    def after_step(self, n_rows: int) -> None:
        """Note the experts of a step of so many rows."""
        layers = self._take()
        if self._n_tokens + n_rows <= MOST_TOKENS:
            self._parts.append(np.array(layers, np.int16).reshape(len(layers), n_rows, -1).swapaxes(0, 1))
            self._n_tokens += n_rows

    def close(self) -> None:
        """Write the file, or say why that cannot be: whoever closes a model can do nothing about it."""
        if self._parts:
            try:
                write_trace(self.path, Trace(np.concatenate(self._parts), self.n_experts))
            except OSError as error:
                print(f"note: the trace could not be written: {error}", file=sys.stderr)


def trace_path() -> Path | None:
    """Where to record, if anybody asked for it."""
    path = os.environ.get(VARIABLE)
    return Path(path) if path else None


def write_trace(path: Path, trace: Trace) -> None:
    """Write the file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, experts=trace.experts, n_experts=np.int32(trace.n_experts))
    part.replace(path)


def read_trace(path: Path) -> Trace:
    """A trace from its file. Raises ModelFileError when it is none, RequestError when there is no file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            trace = Trace(arrays["experts"], int(arrays["n_experts"]))
    except FileNotFoundError:
        raise RequestError(f"there is no trace {path}", f"record one: {VARIABLE}={path} tenth run MODEL …") from None
    except Exception as error:  # zip, zlib and npy each have their own
        raise ModelFileError(f"{path} is no trace: {error}") from error
    e, n = trace.experts, trace.n_experts
    if e.dtype != np.int16 or e.ndim != 3 or not e.size or e.min() < -1 or e.max() >= n:
        raise ModelFileError(f"{path} is no trace: experts are {e.dtype} {e.shape}, expected int16 below {n}")
    return trace
