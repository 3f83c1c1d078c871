"""The smallest model of the catalogue, for real: commands, same bits, distance from exact arithmetic, memory.

Takes the model from the library, or pulls it into a folder of this session; skipped where it cannot be had.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import tenth
from tenth.errors import TenthError
from tenth.library import resolve
from tenth.models import build
from tenth.program import reference
from tenth.runtime import kernel_isas
from tenth.weights.gguf import read_header, read_tensor

pytestmark = pytest.mark.model

NAME = "smollm2:135m"
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
TEXT = Path(__file__).parent / "data" / "ordinary_text.txt"
MB = 1_000_000


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    try:
        return resolve(NAME, download=False)
    except TenthError:
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENTH_HOME", str(tmp_path_factory.mktemp("home")))
        try:
            return resolve(NAME)
        except TenthError as error:
            pytest.skip(f"{NAME} cannot be had: {error.message}")


@pytest.fixture
def command(file):
    """Runs ``python -m tenth`` on a library that holds the model."""
    source = str(Path(tenth.__file__).parents[1])
    home = next(folder.parent for folder in file.parents if folder.name == "models")

    def run(*args, **env):
        where = {"PYTHONPATH": source, "TENTH_HOME": str(home)}
        return subprocess.run([sys.executable, "-m", "tenth", *map(str, args)], env=os.environ | where | env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)

    return run


def test_ask_answers_and_says_what_it_took(command, capsys):
    assert len(command("ask", "Why is the sky blue?", "--max-tokens", "24", "--seed", "1").stdout.strip()) > 10
    start = time.perf_counter()
    result = json.loads(command("ask", "Why is the sky blue?", "--max-tokens", "1", "--json").stdout)
    took_s = time.perf_counter() - start
    assert set(result) == {"model", "text", "thinking", "finish_reason", "usage", "timings", "speculation", "memory"}
    assert result["usage"]["completion_tokens"] == 1
    with capsys.disabled():  # a busy machine must not fail this, so it is only said
        print(f"\n{NAME}: an answer of one token takes {took_s:.2f} s from start to end of the process")


def test_peak_memory_is_the_model_and_the_keys_in_use_and_150_mb(file, command, capsys):
    result = json.loads(command("run", file, TEXT.read_text()[:4000], "--max-tokens", "8", "--json").stdout)
    memory, usage = result["memory"], result["usage"]
    context = read_header(file).metadata.get_int("llama.context_length")
    used = memory["kv_bytes"] * (usage["prompt_tokens"] + usage["completion_tokens"]) / context
    rest = memory["peak_bytes"] - file.stat().st_size - used
    with capsys.disabled():
        print(f"\n{NAME}: peak {memory['peak_bytes'] / MB:.0f} MB, {rest / MB:.0f} MB beside file and keys in use")
    assert usage["prompt_tokens"] > 500
    assert rest < 150 * MB


def answer(model, n_tokens=16):
    """Greedy tokens with their log-probabilities, text and logits of the whole sequence: what must not change."""
    stream = model.chat(MESSAGES, temperature=0.0, max_tokens=n_tokens)
    ids = model.tokenize(stream.text, special=False)
    return [(t.token, t.logprob) for t in stream.logprobs], stream.text, model.logits(ids).tobytes()


@pytest.fixture(scope="module")
def alone(file):
    """The answer of one thread, alone, in one chunk, with nothing reused."""
    with tenth.load(file, threads=1, context=256, prefix_reuse=False) as model:
        return answer(model)


@pytest.mark.parametrize("settings", [{"threads": 2}, {"threads": 2, "chunk_tokens": 7, "max_sequences": 3}], ids=str)
def test_threads_and_chunks_do_not_change_a_bit(file, alone, settings):
    with tenth.load(file, context=256, **settings) as model:
        assert answer(model) == alone


def test_company_and_reused_prefixes_do_not_change_a_bit(file, alone):
    with tenth.load(file, threads=2, context=512) as model:
        company = [model.generate(text, temperature=0.9, max_tokens=24) for text in ("Once upon a time", "def f(x):")]
        assert answer(model) == alone
        assert all(stream.text for stream in company)
        stream = model.chat(MESSAGES, temperature=0.0, max_tokens=16)
        assert stream.usage.cached_tokens >= 32
        assert [(t.token, t.logprob) for t in stream.logprobs] == alone[0]


ON_ONE_ISA = """
import hashlib, json, sys, tenth
with tenth.load(sys.argv[1], context=256) as model:
    stream = model.generate([1, 28, 506, 6376], temperature=0.0, max_tokens=int(sys.argv[2]))
    logits = model.logits([1, 28, 506, 6376]).tobytes()
    print(json.dumps([[[t.token, t.logprob] for t in stream.logprobs], hashlib.sha256(logits).hexdigest()]))
"""


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_instruction_sets_do_not_change_a_bit(file, isa):
    if isa not in kernel_isas():
        pytest.skip(f"this CPU has no {isa}")
    n_tokens = 2 if isa == "scalar" else 16  # the scalar kernels are for meaning, not for speed
    env = os.environ | {"TENTH_ISA": isa, "PYTHONPATH": str(Path(tenth.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", ON_ONE_ISA, str(file), str(n_tokens)], env=env, capture_output=True,
                          text=True, check=True)
    choices, digest = json.loads(done.stdout)
    with tenth.load(file, context=256) as model:
        stream = model.generate([1, 28, 506, 6376], temperature=0.0, max_tokens=n_tokens)
        assert [[t.token, t.logprob] for t in stream.logprobs] == choices
        assert hashlib.sha256(model.logits([1, 28, 506, 6376]).tobytes()).hexdigest() == digest


class ExactWeights(Mapping):
    """Every weight of a file as the exact numbers it stands for, decoded when it is asked for."""

    def __init__(self, header):
        self.tensors = header.tensors

    def __getitem__(self, name):
        return read_tensor(self.tensors[name])

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self):
        return len(self.tensors)


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_the_next_token_distribution_is_that_of_exact_arithmetic(file):
    header = read_header(file)
    program = build("llama", header.metadata, {name: info.shape for name, info in header.tensors.items()})
    with tenth.load(file, context=256) as model:
        ids = model.tokenize(TEXT.read_text()[:400])[:24]
        measured = log_softmax(model.logits(ids))
    exact = log_softmax(reference.run(program, ExactWeights(header), reference.Batch.single(ids)))
    kl = (np.exp(exact) * (exact - measured)).sum(-1)  # nats; docs/quality.md has 500 tokens: 2.7e-3
    assert len(kl) == 24
    assert kl.mean() < 0.02
    assert kl.min() > -1e-6
    assert (exact.argmax(-1) == measured.argmax(-1)).mean() > 0.8
