"""Mutated files are refused in order or read: a short run of the fuzz target, and hypothesis on single fields."""

from __future__ import annotations

import importlib.util
import random
import struct
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenth.errors import ModelFileError
from tenth.weights.gguf import read_header

from .writer import small_model

WHOLE = small_model().build()


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "fuzz" / "fuzz_gguf.py"
    spec = importlib.util.spec_from_file_location("fuzz_gguf", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mutated_files_give_a_model_or_a_model_file_error(fuzz: ModuleType) -> None:
    rng, seeds = random.Random(20), fuzz.example_files()
    assert all(fuzz.run_one(seed) for seed in seeds[:3])
    assert not fuzz.run_one(seeds[3])  # a part of a split model whose other part is missing
    outcomes = [fuzz.run_one(fuzz.mutate(rng.choice(seeds[:3]), rng)) for _ in range(1500)]
    assert 0.05 < sum(outcomes) / len(outcomes) < 0.95  # the mutations reach both


def test_the_fuzz_target_notices_an_error_of_another_kind(fuzz: ModuleType, monkeypatch) -> None:
    def broken(path: str) -> None:
        raise KeyError(path)

    monkeypatch.setattr(fuzz, "read_header", broken)
    with pytest.raises(KeyError):
        fuzz.run_one(WHOLE)


def read_bytes_as_model(data: bytes, folder: Path) -> None:
    path = folder / "m.gguf"
    path.write_bytes(data)
    try:
        model = read_header(path)
    except ModelFileError:
        return
    for info in model.tensors.values():
        assert info.offset + info.n_bytes <= len(data)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, len(WHOLE) - 8), number=st.integers(0, 2**64 - 1))
def test_any_number_at_any_place_is_read_or_refused(tmp_path: Path, at: int, number: int) -> None:
    read_bytes_as_model(WHOLE[:at] + struct.pack("<Q", number) + WHOLE[at + 8 :], tmp_path)


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=200), n_tensors=st.integers(0, 4), n_keys=st.integers(0, 4))
def test_any_bytes_after_the_counts_are_read_or_refused(
    tmp_path: Path, body: bytes, n_tensors: int, n_keys: int
) -> None:
    read_bytes_as_model(b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_keys) + body, tmp_path)
