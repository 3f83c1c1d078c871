"""The Model without text: what a file without a tokenizer can and cannot do, and how settings are refused."""

from types import SimpleNamespace

import numpy as np
import pytest

import tenth
import tenth.opening
from tenth.config import EngineConfig
from tenth.model import Model

from .toy import ToyRuntime


class Metadata:
    """A file that says nothing but its architecture."""

    architecture = "toy"

    def has(self, key):
        return False

    def get_str(self, key, default=None):
        return default

    def get_float(self, key, default=None, low=None, high=None):
        return default

    get_int = get_float


@pytest.fixture
def toy():
    runtime = ToyRuntime()
    runtime.memory = lambda: {"weights_bytes": 10, "kv_bytes": 20, "workspace_bytes": 30}
    tensors = {
        "a": SimpleNamespace(shape=(6, 4), format="Q8_0"),
        "b": SimpleNamespace(shape=(3,), format="F32"),
        "c": SimpleNamespace(shape=(2, 2), format="Q8_0"),
    }
    header = SimpleNamespace(metadata=Metadata(), tensors=tensors, paths=("/models/small.gguf",))
    program = SimpleNamespace(task="generate")
    with Model(SimpleNamespace(runtime=runtime, header=header, program=program), EngineConfig()) as model:
        yield model


def test_a_file_without_a_tokenizer_gives_logits(toy):
    np.testing.assert_array_equal(toy.logits([1, 2, 3])[:2], toy.logits([1, 2]))
    np.testing.assert_array_equal(toy.logits([1, 2, 3], at_once=1), toy.logits([1, 2, 3]))
    with pytest.raises(tenth.RequestError, match="at_once is -1"):
        toy.logits([1, 2, 3], at_once=-1)


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m.chat([{"role": "user", "content": "hi"}]),
        lambda m: m.generate("hi"),
        lambda m: m.generate([1, 2]),
        lambda m: m.tokenize("hi"),
        lambda m: m.detokenize([1]),
        lambda m: m.tokenizer,
    ],
)
def test_a_file_without_a_tokenizer_says_so_when_text_is_wanted(toy, use):
    with pytest.raises(tenth.ModelFileError, match="no tokenizer") as refused:
        use(toy)
    assert "logits" in refused.value.hint


def test_the_description_counts_weights_by_format(toy):
    assert toy.description == {
        "task": "generate",
        "architecture": "toy",
        "parameters": 31,
        "context_tokens": 1024,
        "formats": {"Q8_0": 28, "F32": 3},
    }
    assert toy.name == "small"


def test_memory_has_the_peak_of_the_process_and_the_runtime_by_kind(toy):
    memory = toy.memory()
    assert memory["kv_bytes"] == 20
    assert memory["peak_bytes"] > 1 << 20


def test_closing_frees_the_runtime_and_later_use_is_refused(toy):
    toy.close()
    assert toy.loaded.runtime.closed
    toy.close()
    for use in (toy.memory, lambda: toy.logits([1])):
        with pytest.raises(tenth.RequestError, match="closed"):
            use()


def test_settings_of_load_are_checked_before_anything_is_looked_for():
    with pytest.raises(tenth.RequestError, match="'thread_count'") as refused:
        tenth.opening._config({"threads": 1}, {"thread_count": 2})
    assert "max_sequences" in refused.value.hint
    with pytest.raises(tenth.RequestError, match="threads"):
        tenth.opening._config({"threads": -1}, {})
