"""Matrices that no file has as such (DeepSeek's keys in old files) are made in loading, one at a time, and counted."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tenth.config import EngineConfig
from tenth.errors import ModelFileError
from tenth.loader import open_runtime, optimised_program, plan_limits, stored_tensors
from tenth.placing import memory_needs
from tenth.program.values import Transposed
from tenth.weights.gguf import read_header, read_transposed
from tests.runtime.native import DATA, all_logits, golden

FILE = DATA / "golden_deepseek2_lite.gguf"


def bytes_in_memory_files():
    """Of all open files in memory of this process."""
    total = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            total += os.stat(link).st_size if os.readlink(link).startswith("/memfd:") else 0
        except FileNotFoundError:  # the listing's own
            continue
    return total


def test_no_made_matrix_is_left_when_the_next_is_made(monkeypatch):
    seen = []

    def made(*args):
        seen.append(bytes_in_memory_files())
        return read_transposed(*args)

    monkeypatch.setattr("tenth.loader.read_transposed", made)
    before = bytes_in_memory_files()
    loaded = open_runtime(read_header(FILE), EngineConfig(), meanwhile=lambda: seen.append(bytes_in_memory_files()))
    assert len(seen) == 1 + sum(isinstance(how, Transposed) for how in loaded.program.derived.values()) > 2
    assert set(seen) == {before}
    expected = golden("deepseek2_lite")
    assert (all_logits(loaded.runtime, expected["tokens"]).argmax(-1) == expected["logits"].argmax(-1)).all()


def test_a_made_matrix_that_is_not_finite_is_named(monkeypatch):
    def broken(*args):
        matrix = read_transposed(*args)
        matrix[3, 2] = np.inf
        return matrix

    monkeypatch.setattr("tenth.loader.read_transposed", broken)
    with pytest.raises(ModelFileError, match=r"tensor blk.0.attn_kv_b.weight.*T of .*: .*row 3, weight 2 is infinite"):
        open_runtime(read_header(FILE), EngineConfig())


def test_what_making_takes_is_counted_where_it_is_more_than_the_workspace():
    header = read_header(FILE)
    program = optimised_program(header)
    stored, limits = stored_tensors(header, program), plan_limits(program, EngineConfig())
    small = replace(limits, arena_bytes=0, n_threads=0)
    largest = max(4 * np.prod(program.weights[name].shape) for name in program.derived)
    assert memory_needs(stored, program, small).workspace == 2 * largest
    assert memory_needs(stored, program, limits).workspace > 2 * largest
