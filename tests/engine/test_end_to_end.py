"""The real engine on a real (tiny, random) model file: the same tokens and log-probabilities, bit for bit, however the
work is cut up; and the public API from a chat message to an answer."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import tenth
from tenth.config import EngineConfig
from tenth.engine.engine import Engine
from tenth.engine.request import GO_ON, Request, TokenChoice
from tenth.loader import open_runtime
from tenth.weights.gguf import read_header
from tests.runtime.native import open_streamed

DATA = Path(__file__).parents[1] / "data"
FILE = DATA / "golden_chat.gguf"
MESSAGES = [{"role": "user", "content": "What is the tallest mountain on this small planet?"}]
N = 40


class Heard:
    """Every token of a request with its log-probability."""

    def __init__(self):
        self.said, self.cached, self.error = [], None, None
        self.done = threading.Event()

    def started(self, n_cached_tokens):
        self.cached = n_cached_tokens

    def token(self, token):
        self.said.append((token.id, token.logprob, token.top))
        return GO_ON

    def finished(self, reason, n_generated):
        self.done.set()

    def failed(self, error):
        self.error = error
        self.done.set()

    def wait(self):
        assert self.done.wait(60), "the request never ended"
        assert self.error is None, self.error
        return self.said


class Told:
    """Speculation that was told the answers (tokens to go on with, by prompt) and guesses every third token wrong."""

    def __init__(self, answers):
        self.answers, self.n_tries = answers, 0

    def propose(self, chunks, room):
        drafts = {}
        for sequence, n_rows, _ in chunks:
            if n_rows != 1 or sequence.n_pending != 1:
                continue
            answer = self.answers[tuple(sequence.tokens[: sequence.n_prompt].tolist())]
            most = min(room, 7, sequence.max_tokens - sequence.n_generated - 1)
            draft = answer[sequence.n_generated : sequence.n_generated + most]
            self.n_tries += 1
            drafts[sequence] = tuple((id + ((i + self.n_tries) % 3 == 0)) % 96 for i, id in enumerate(draft))
            room -= len(draft)
        return drafts

    def most_ahead(self, sequences, n_steps):
        return 1

    def measured(self, chunks, seconds):
        pass

    def learn(self, chunk, n_accepted, n_sequences):
        pass


def engine_of(file=FILE, speculation=None, **settings):
    config = EngineConfig(**settings)
    runtime = open_runtime(read_header(file), config).runtime
    return Engine(
        runtime, max_sequences=config.max_sequences, prefix_reuse=config.prefix_reuse, speculation=speculation
    )


def submit(engine, prompt, n=N, speculate=True, **choice):
    heard = Heard()
    engine.submit(Request(prompt, heard, TokenChoice(n_top=3, **choice), max_tokens=n, speculate=speculate))
    return heard


def prompts():
    random = np.random.default_rng(3)
    stem = random.integers(0, 96, 75).tolist()
    return [stem, stem[:33], [*stem[:64], 5], random.integers(0, 96, 50).tolist(), [7]]


def answers(together=False, choice=None, **settings):
    """What the model says to each prompt, in turn or all at once; plainly if ``speculation`` is not given."""
    engine = engine_of(**settings)
    told = "speculation" in settings
    how = {"speculate": told, **(choice or {})}
    try:
        if together:
            said = [heard.wait() for heard in [submit(engine, prompt, **how) for prompt in prompts()]]
            assert told or "kv_tokens" not in settings or engine.stats.n_preemptions > 0
            return said
        return [submit(engine, prompt, **how).wait() for prompt in prompts()]
    finally:
        assert not told or 0 < engine.stats.n_accepted < engine.stats.n_drafted
        engine.close()


CASES = [("chat", "f16"), ("chat", "f32"), ("kquants", "q8_0"), ("qwen3", "q8_0"), ("gemma3", "f16"), ("qwen2", "f16"),
         ("qwen35_quantised", "f16"), ("deepseek2_quantised", "f16", "expanded"),
         ("deepseek3_quantised", "bf16", "expanded")]


@pytest.fixture(scope="module", params=CASES, ids=" ".join)
def case(request):
    """A model, a KV format, how prompts are read; q8_0 needs heads of 32 and gemma3 has sliding windows."""
    name, kv_format, *prefill = request.param
    how = {"prefill": prefill[0], "speculate": False} if prefill else {}  # Told takes the place of the file's drafter
    return {"file": DATA / f"golden_{name}.gguf", "kv_format": kv_format, **how}


@pytest.fixture(scope="module")
def reference(case):
    """One thread, one prompt at a time, nothing reused, in large chunks."""
    return answers(threads=1, prefix_reuse=False, **case)


WAYS = {
    "two threads": {"threads": 2},
    "chunks of one": {"chunk_tokens": 1, "max_sequences": 1, "threads": 1},
    "chunks of 33": {"chunk_tokens": 33, "threads": 2},
    "a reused prefix": {"prefix_reuse": True, "threads": 1},
    "batched": {"together": True, "threads": 2},
    "batched in small chunks": {"together": True, "chunk_tokens": 16, "max_sequences": 3, "threads": 2},
    "batched with too few pages": {"together": True, "kv_tokens": 150, "threads": 1},
}


@pytest.mark.parametrize("way", WAYS)
def test_greedy_tokens_and_log_probabilities_are_the_same_bits(way, case, reference):
    assert answers(**case, **WAYS[way]) == reference


def told(said):
    return Told({tuple(prompt): [id for id, *_ in answer] for prompt, answer in zip(prompts(), said, strict=True)})


@pytest.mark.parametrize("way", WAYS)
def test_guessing_changes_no_bit_of_tokens_and_log_probabilities(way, case, reference):
    assert answers(**case, **WAYS[way], speculation=told(reference)) == reference


SAMPLED = {"temperature": 0.9, "top_p": 0.9, "top_k": 60, "repetition": 1.2, "presence": 0.2, "seed": 99}


def test_guessing_changes_no_bit_of_sampled_tokens_with_penalties(case):
    plain = answers(threads=1, choice=SAMPLED, **case)
    for together in (False, True):
        assert answers(together, SAMPLED, threads=2, speculation=told(plain), **case) == plain


def test_a_prefix_is_really_reused():
    engine = engine_of(threads=1)
    first, second = submit(engine, prompts()[0]), submit(engine, prompts()[0])
    first.wait()
    again = submit(engine, prompts()[2])
    again.wait()
    second.wait()
    engine.close()
    assert first.cached == 0
    assert again.cached == 64


def test_sampled_tokens_are_the_same_alone_and_in_company():
    choice = {"temperature": 0.9, "top_p": 0.9, "top_k": 60, "repetition": 1.2, "presence": 0.2, "seed": 99}
    engine = engine_of(threads=2)
    alone = submit(engine, prompts()[3], **choice).wait()
    crowd = [submit(engine, prompt, **choice) for prompt in prompts()]
    assert crowd[3].wait() == alone
    engine.close()


def test_logits_of_all_positions_are_those_of_the_steps():
    engine = engine_of(threads=2, chunk_tokens=16)
    prompt = prompts()[0]
    said = submit(engine, prompt, 10).wait()
    logits = engine.logits([*prompt, *(token for token, *_ in said)])
    engine.close()
    rows = logits[len(prompt) - 1 : -1].astype(np.float64)
    exact = rows - np.log(np.exp(rows - rows.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)) - rows.max(
        axis=1, keepdims=True
    )
    assert rows.argmax(axis=1).tolist() == [token for token, *_ in said]
    np.testing.assert_allclose([logprob for _, logprob, _ in said], exact.max(axis=1), atol=2e-6)


# ---- the public API


@pytest.fixture(scope="module")
def model():
    with tenth.load(FILE, threads=2) as opened:
        yield opened


def test_a_chat_streams_pieces_that_make_up_the_text(model):
    stream = model.chat(MESSAGES, temperature=0, max_tokens=N)
    pieces = list(stream)
    assert "".join(p for p in pieces if p.kind == "content") == stream.text
    assert stream.usage.completion_tokens <= N
    assert stream.finish_reason in ("stop", "length")
    assert stream.usage.prompt_tokens > 10
    assert len(stream.logprobs) in (stream.usage.completion_tokens, stream.usage.completion_tokens - 1)


def test_greedy_text_is_the_same_chatted_again_and_batched(model):
    text = model.generate("Once upon a time", temperature=0, max_tokens=N).text
    streams = model.generate(["Once upon a time", "A", "Once upon a time"], temperature=0, max_tokens=N)
    assert [streams[0].text, streams[2].text] == [text, text]
    ids = model.tokenize("Once upon a time")
    assert model.generate(ids, temperature=0, max_tokens=N).text == text


def test_the_same_seed_gives_the_same_text_and_is_told(model):
    first = model.generate("Once", temperature=1.5, max_tokens=N)
    again = model.generate("Once", temperature=1.5, max_tokens=N, seed=first.seed)
    assert again.text == first.text


def test_a_stop_string_ends_the_text_before_it(model):
    whole = model.generate("Once upon", temperature=0, max_tokens=N).text
    stop = whole[len(whole) // 2 :][:3]
    stream = model.generate("Once upon", temperature=0, max_tokens=N, stop=stop)
    assert stream.text == whole.partition(stop)[0]
    assert stream.finish_reason == "stop"


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_guessing_can_be_switched_off_and_its_figures_are_told(temperature):
    prompt = "Once upon a time, once upon a time, once upon a time"
    texts = []
    for speculate in (True, False):
        with tenth.load(FILE, threads=1, speculate=speculate) as opened:
            stream = opened.generate(prompt, temperature=temperature, seed=3, max_tokens=200, ignore_eos=True)
            texts.append((stream.text, stream.logprobs))
            said = stream.speculation
            assert said.steps + said.accepted == 200
            assert said.drafted >= said.accepted >= 0
    assert said.drafted == 0
    assert texts[0] == texts[1]


def test_streams_can_be_awaited_and_cancelled(model):
    async def main():
        first = model.generate("One", temperature=0, max_tokens=N)
        second = model.generate("Two", temperature=0)
        pieces = [piece async for piece in first]
        second.cancel()
        async for _ in second:
            pass
        return "".join(pieces) == first.text, second.finish_reason

    same, reason = asyncio.run(main())
    assert same
    assert reason in ("cancelled", "length", "stop")


def test_logits_memory_and_description(model):
    ids = model.tokenize("Hello there")
    assert model.logits(ids).shape == (len(ids), model.loaded.runtime.vocab_size)
    memory = model.memory()
    assert set(memory) == {"peak_bytes", "weights_bytes", "kv_bytes", "workspace_bytes"}
    assert all(value > 0 for value in memory.values())
    assert model.description["architecture"] == "llama"
    assert model.description["parameters"] > 1000
    assert model.detokenize(ids).strip() == "Hello there"
    assert model.name


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: m.chat([]), "1 to 4096"),
        (lambda m: m.chat("hi"), "list"),
        (lambda m: m.chat([{"role": "user"}]), "message 0"),
        (lambda m: m.chat(MESSAGES, thinking_budget=-1), "thinking_budget"),
        (lambda m: m.chat(MESSAGES, temperature=-1), "temperature"),
        (lambda m: m.chat(MESSAGES, tempo=1), "tempo"),
        (lambda m: m.generate([]), "prompt"),
        (lambda m: m.generate(7), "prompt"),
        (lambda m: m.generate(["a", 7]), "prompt"),
        (lambda m: m.generate([1 << 30]), "vocabulary"),
        (lambda m: m.generate("x", logit_bias={1 << 30: 1}), "vocabulary"),
        (lambda m: m.generate([1] * 100_000), "context"),
        (lambda m: m.logits([]), "expected 1"),
        (lambda m: m.tokenize(3), "string"),
        (lambda m: m.generate([True, False]), "token id True"),
        (lambda m: m.generate([1.5]), "token id 1.5"),
        (lambda m: m.generate([[[1], [1, 2]]]), r"token id \[1\]"),
        (lambda m: m.detokenize(["a"]), "token id 'a'"),
        (lambda m: m.detokenize([True]), "token id True"),
        (lambda m: m.detokenize([[1]]), r"token id \[1\]"),
        (lambda m: m.detokenize(5), "ids are 5"),
        (lambda m: m.logits(5), "ids are 5"),
        (lambda m: m.logits([[1]]), r"token id \[1\]"),
    ],
)
def test_what_cannot_be_answered_is_refused_at_once(model, call, match):
    with pytest.raises(tenth.RequestError, match=match):
        call(model)


def test_a_prompt_longer_than_the_context_is_refused_naming_the_numbers():
    with tenth.load(FILE, context=32, threads=1) as small:
        with pytest.raises(tenth.RequestError, match="the context holds 32"):
            small.generate([1] * 40)
        stream = small.generate([1] * 20, temperature=0)
        assert stream.usage.completion_tokens <= 12
        assert stream.finish_reason in ("length", "stop")


def test_a_closed_model_refuses_and_can_be_closed_again():
    model = tenth.load(FILE, threads=1)
    model.close()
    model.close()
    with pytest.raises(tenth.RequestError, match="closed"):
        model.logits([1])


def test_unknown_settings_are_refused():
    with pytest.raises(tenth.RequestError, match="thread_count"):
        tenth.load(FILE, thread_count=2)


@pytest.mark.parametrize(("name", "value"), [("threads", True), ("prefix_reuse", "no"), ("kv", "f8")])
def test_settings_of_the_wrong_kind_are_refused(name, value):
    with pytest.raises(tenth.RequestError, match=name):
        tenth.load(FILE, **{name: value})


def test_requests_in_one_step_share_each_read_of_an_expert():
    """Four of the same ask for the slices that one asks for, and read no more; four others for more than one."""
    def counts(prompts):
        runtime = open_streamed("qwen3moe", lambda needs: needs.least, threads=2)
        engine, heard = Engine(runtime, prefix_reuse=False, max_sequences=4), [Heard() for _ in prompts]
        for prompt, one in zip(prompts, heard, strict=True):
            engine.submit(Request(prompt, one, max_tokens=20, speculate=False))
        said = [one.wait() for one in heard]
        found = runtime.expert_counters()
        engine.close()
        return said, found.wanted, found.read_bytes

    prompt = [5, 9, 2]
    (alone,), wanted, n_bytes = counts([prompt])
    said, wanted_together, bytes_together = counts([prompt] * 4)
    assert said == [alone] * 4
    assert wanted_together == wanted
    assert bytes_together < 1.2 * n_bytes  # what is read ahead depends on the time
    _, wanted_others, bytes_others = counts([prompt, [7, 1, 3], [11, 2, 8], [4, 4, 4]])
    assert wanted < wanted_others < 4 * wanted
    assert n_bytes < bytes_others < 4 * n_bytes


# Ctrl-C once more while close() waits for a step that takes long. Native code does not survive the end of Python.
IMPATIENT = f"""
import signal, threading
import tenth
from tenth.runtime import read_bandwidth

model = tenth.load({str(FILE)!r}, threads=1)
runtime, at_work, main = model.loaded.runtime, threading.Event(), threading.main_thread().ident
step = runtime.step

def long_step(batch):
    at_work.set()
    read_bandwidth(1, 1.0, 1 << 20)
    return step(batch)

runtime.step = long_step
stream = model.generate([1, 2, 3], max_tokens=2)
at_work.wait()
threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
try:
    model.close()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_step_may_end_before_the_process_does_when_closing_is_interrupted():
    done = subprocess.run([sys.executable, "-c", IMPATIENT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
