"""Drafters in the NumPy reference: against logits computed in torch, in chunks, and further ahead by their guess."""

import numpy as np
import pytest
from tests.golden_files import DATA, nmse

from tenth.errors import ModelFileError
from tenth.loader import read_by_products
from tenth.models import build
from tenth.program import memory, passes
from tenth.program.check import check
from tenth.program.listing import listing
from tenth.program.reference import Batch, Cache, run
from tenth.weights.gguf import read_header
from tenth.weights.tensors import read_tensor

CASES = ["glm4moe", "deepseek3_quantised", "qwen35", "qwen3next"]


class Golden:
    def __init__(self, case):
        header = read_header(DATA / f"golden_{case}.gguf")
        self.weights = {name: read_tensor(info) for name, info in header.tensors.items()}
        self.reads = read_by_products(header.tensors)
        self.expected = np.load(DATA / f"golden_{case}.npz")
        self.tokens = self.expected["tokens"]
        self.shapes = {name: info.shape for name, info in header.tensors.items()}
        self.metadata = header.metadata
        self.program = self.build()

    def build(self, drafts=True):
        return check(build(self.metadata.architecture, self.metadata, self.shapes, drafts))


@pytest.fixture(params=CASES, scope="module")
def golden(request):
    return Golden(request.param)


def drafted(program, weights, tokens, chunks, dtype=np.float64):
    """What the drafter takes tokens 2, 3, … to be, the model's steps and its own cut into chunks."""
    cache, rows = Cache(), []
    for start, end in chunks:
        run(program, weights, Batch.single(tokens[start:end], start), cache, dtype)
        last = min(end + 1, len(tokens))
        batch = Batch.single(tokens[start + 1 : last], start)
        batch.sources = np.arange(last - 1 - start)
        rows.append(run(program.drafter, weights, batch, cache, dtype))
    return np.concatenate(rows)


@pytest.mark.parametrize("chunks", [[(0, 40)], [(0, 7), (7, 8), (8, 32), (32, 39)]])
def test_a_drafter_gives_the_recorded_logits(golden, chunks):
    found = drafted(golden.program, golden.weights, golden.tokens, chunks)
    assert nmse(found, golden.expected["drafted"]) < 1e-12


def test_an_optimised_drafter_gives_the_logits_of_rounded_activations(golden):
    program = passes.optimise(golden.program, golden.reads)
    key = "drafted_q8" if "drafted_q8" in golden.expected else "drafted"
    assert nmse(drafted(program, golden.weights, golden.tokens, [(0, 40)]), golden.expected[key]) < 1e-12


def test_with_and_without_it_the_model_is_the_same(golden):
    plain, batch = golden.build(drafts=False), Batch.single(golden.tokens)
    assert plain.drafter is None
    assert not any(".nextn." in name for name in plain.weights)
    assert np.array_equal(run(plain, golden.weights, batch), run(golden.program, golden.weights, batch))
    n_rows = {"tokens": 64, "outputs": 8}
    assert memory.plan(golden.program, n_rows) >= memory.plan(golden.program.drafter, n_rows)


def test_it_goes_on_from_its_own_guess(golden):
    tokens, cache = golden.tokens, Cache()
    run(golden.program, golden.weights, Batch.single(tokens[:-1]), cache, np.float64)
    batch = Batch.single(tokens[1:], outputs=[len(tokens) - 2])
    batch.sources = np.arange(len(tokens) - 1)
    guess = run(golden.program.drafter, golden.weights, batch, cache, np.float64)[0].argmax()
    further = Batch.single([guess], len(tokens) - 1)
    further.sources = np.array([0])
    again = run(golden.program.drafter, golden.weights, further, cache, np.float64)
    assert again.shape == (1, golden.program.vocab_size)
    keys = cache.kv[golden.program.state[-1].layer, 0]
    assert keys.shape[1] == len(tokens)
    assert np.isfinite(keys).all()


def test_all_of_it_is_listed(golden):
    text = listing(golden.program)
    assert "drafter of" in text
    assert text.index("drafter of") < text.index("hidden_load")


@pytest.mark.parametrize("missing", ["enorm", "hnorm"])
def test_a_block_that_lacks_something_is_refused(missing):
    golden = Golden("glm4moe")
    del golden.shapes[f"blk.2.nextn.{missing}.weight"]
    with pytest.raises(ModelFileError, match=rf"blk.2.nextn.{missing}.weight is missing"):
        golden.build()
    assert golden.build(drafts=False).drafter is None


def test_a_file_without_the_block_has_no_drafter():
    golden = Golden("glm4moe")
    golden.shapes = {name: shape for name, shape in golden.shapes.items() if not name.startswith("blk.2.")}
    assert golden.build().drafter is None
