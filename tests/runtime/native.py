"""Runs programs and model files natively, without an engine: the tests' own small scheduler."""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from tenth.batch import Batch, pages_for
from tenth.config import EngineConfig
from tenth.loader import open_runtime
from tenth.program import memory
from tenth.program.passes import kept_as_floats
from tenth.program.reference import derived
from tenth.runtime import Limits, MatrixSource, Runtime
from tenth.weights import placement
from tenth.weights.gguf import read_header

DATA = Path(__file__).parent.parent / "data"


def i32(values):
    return np.ascontiguousarray(values, np.int32)


def open_golden(case, **settings):
    """Of a golden model, by its name, or of a file."""
    path = case if isinstance(case, Path) else DATA / f"golden_{case}.gguf"
    return open_runtime(read_header(path), EngineConfig(**settings)).runtime


def open_streamed(case, budget, **settings):
    """A golden model whose experts get what ``budget`` makes of the model's Needs, in bytes.

    Beside such small experts the readers' buffers would be large; they do not count here.
    """

    def place_within(needs, *_):
        needs = replace(needs, stream_workspace=0)
        return placement.place(needs, budget(needs))

    with mock.patch("tenth.loader.place", place_within):
        runtime = open_golden(case, **settings)
    assert runtime.expert_counters() is not None, "everything was resident"
    return runtime


def golden(case):
    return dict(np.load(DATA / f"golden_{case}.npz"))


def step_logits(runtime, rows, n_generated=0):
    """One step. rows: (tokens, first position, pages, the first names the slot) per sequence; logits of every row."""
    starts = np.cumsum([0, *(len(tokens) for tokens, _, _ in rows)])
    batch = Batch(
        i32(np.concatenate([tokens for tokens, _, _ in rows])),
        i32(np.concatenate([np.arange(first, first + len(tokens)) for tokens, first, _ in rows])),
        i32(starts), [i32(pages) for _, _, pages in rows], i32(np.arange(starts[-1])),
        slots=i32([pages[0] for _, _, pages in rows]) if runtime.n_slots else i32([]), n_generated=n_generated,
    )
    runtime.step(batch)
    return runtime.logits()


def all_logits(runtime, tokens, chunk=None, pages=None):
    """Logits [n, vocab] of one sequence, computed `chunk` rows at a time."""
    pages = np.arange(pages_for(len(tokens))) if pages is None else pages
    chunk = min(chunk or len(tokens), runtime.max_outputs)
    pieces = [step_logits(runtime, [(tokens[i : i + chunk], i, pages)]) for i in range(0, len(tokens), chunk)]
    return np.concatenate(pieces)


def open_program(program, weights, folder, rows=64, kv_format="f32", threads=2, context=256, pages=16):
    """A runtime for any program: matrices go through a file, in F32 or as GGUFWriter takes them (uint8 rows and a
    format number: ``weights`` then holds the pair), the other weights directly."""
    matrices, vectors, at = {}, {}, 0
    path, floats = folder / "weights.bin", kept_as_floats(program)
    with path.open("wb") as file:
        for name in program.weights:
            how = program.derived.get(name)
            data = derived(weights[how.source], how) if how else weights[name]
            data, gguf_id = data if isinstance(data, tuple) else (np.ascontiguousarray(data, np.float32), 0)
            if name in floats:
                vectors[name] = data
            else:
                shape = program.weights[name].shape
                matrices[name] = MatrixSource(path, at, data.nbytes, gguf_id, expert_bytes=data.nbytes // shape[0])
                at += file.write(data.tobytes())
    arena = memory.plan(program, {"tokens": rows, "outputs": rows})
    slots = 16 if program.recurrences else 0
    limits = Limits(threads, rows, rows, context, pages, kv_format, arena, n_slots=slots)
    return Runtime(program, matrices, vectors, limits)
