"""The reference against logits that transformers computed in float64, see scripts/make_goldens.py."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from tenth.models import build
from tenth.program import memory, passes
from tenth.program.reference import Batch, run

DATA = Path(__file__).parent.parent / "data"
CASES = [
    "chat", "gemma3", "gemma3_scaled", "kquants", "llama", "llama_bias", "llama_tied_scaled", "quantised", "qwen2",
    "qwen3",
]  # fmt: skip
# Measured: at most 9e-13 in float32, 1e-13 in float64 (rotary angles are float32 at any precision).
NMSE = {np.float32: 1e-11, np.float64: 1e-12}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="tests/data is not in this checkout")


class Golden:
    """A golden file, read with the gguf package: independent of tenth's own reader."""

    def __init__(self, case, fake_metadata):
        reader = gguf.GGUFReader(DATA / f"golden_{case}.gguf")
        values = {key: f.contents() for key, f in reader.fields.items() if not key.startswith("tokenizer.")}
        self.weights = {
            t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(t.shape[::-1].tolist())
            for t in reader.tensors
        }
        self.quantised = {t.name for t in reader.tensors if t.tensor_type.name not in ("F32", "F16", "BF16")}
        self.expected = np.load(DATA / f"golden_{case}.npz")
        shapes = {name: weight.shape for name, weight in self.weights.items()}
        self.program = build(values["general.architecture"], fake_metadata(values), shapes)
        self.batch = Batch.single(self.expected["tokens"])


@pytest.fixture(params=CASES, scope="module")
def golden(request, fake_metadata):
    return Golden(request.param, fake_metadata)


def nmse(a, b):
    return ((a.astype(np.float64) - b) ** 2).sum() / (b.astype(np.float64) ** 2).sum()


@pytest.mark.parametrize("dtype", NMSE, ids=lambda d: d.__name__)
def test_the_reference_reaches_the_recorded_logits(golden, dtype):
    logits = run(golden.program, golden.weights, golden.batch, dtype=dtype)
    assert nmse(logits, golden.expected["logits"]) <= NMSE[dtype]


def test_an_optimised_program_reaches_the_logits_recorded_with_q8_inputs(golden):
    expected = golden.expected["logits_q8" if "logits_q8" in golden.expected else "logits"]
    program = passes.optimise(golden.program, golden.quantised)
    assert nmse(run(program, golden.weights, golden.batch, dtype=np.float64), expected) <= 1e-12


def test_in_a_planned_arena_too(golden):
    program = passes.optimise(golden.program, set())
    n = len(golden.batch.tokens)
    arena = memory.plan(program, {"tokens": n, "outputs": n})
    logits = run(program, golden.weights, golden.batch, arena_bytes=arena)
    assert nmse(logits, golden.expected["logits"]) <= NMSE[np.float32]
