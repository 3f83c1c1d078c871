"""Experts of one answer: what its requests count is what a trace of the same tokens has, in any company."""

import numpy as np
import pytest

from tenth.engine.experts import ExpertUse
from tenth.engine.request import Request
from tenth.tracing import VARIABLE, read_trace

from ..runtime.native import all_logits, open_golden, open_streamed
from .toy import Recorder

CASES = ["qwen3moe", "glm4moe"]
PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [5, 6, 7, 8, 9, 30, 31]]


def answers(start_engine, runtime, n=12):
    """(tokens, counts) of an answer to each prompt, made at the same time."""
    engine = start_engine(runtime, max_sequences=len(PROMPTS))
    uses = [ExpertUse(*runtime.noted_experts) if runtime.noted_experts else None for _ in PROMPTS]
    listeners = [Recorder() for _ in PROMPTS]
    for prompt, listener, use in zip(PROMPTS, listeners, uses, strict=True):
        engine.submit(Request(prompt, listener, max_tokens=n, experts=use))
    for listener in listeners:
        listener.wait()
    return [(listener.tokens, use.counts if use else None) for listener, use in zip(listeners, uses, strict=True)]


def traced(case, ids, folder, monkeypatch):
    """Experts [n_tokens, n_layers, k] of a sequence, as TENTH_TRACE records them."""
    monkeypatch.setenv(VARIABLE, str(folder / "trace.npz"))
    runtime = open_golden(case)
    all_logits(runtime, np.array(ids, np.int32))
    runtime.close()
    monkeypatch.delenv(VARIABLE)
    return read_trace(folder / "trace.npz").experts


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("opened", [
    lambda case: open_golden(case, note_experts=True),
    lambda case: open_golden(case, note_experts=True, chunk_tokens=2),
    lambda case: open_streamed(case, lambda needs: needs.fixed + needs.experts // 2, note_experts=True),
], ids=["resident", "chunks of 2", "streamed"])  # fmt: skip
def test_an_answer_s_experts_are_those_of_its_tokens(start_engine, case, opened, tmp_path, monkeypatch):
    plain = [ids for ids, _ in answers(start_engine, open_golden(case))]
    for prompt, expected, (ids, counts) in zip(PROMPTS, plain, answers(start_engine, opened(case)), strict=True):
        assert ids == expected
        experts = traced(case, [*prompt, *ids], tmp_path, monkeypatch)
        rows = experts[len(prompt) - 1 : len(prompt) - 1 + len(ids)]  # each token comes from the row before it
        for layer, layer_counts in enumerate(counts):
            assert layer_counts.tolist() == np.bincount(rows[:, layer].ravel(), minlength=len(layer_counts)).tolist()


def test_tokens_that_are_computed_again_count_once(start_engine):
    plain = answers(start_engine, open_golden("qwen3moe", note_experts=True), n=40)
    few = open_golden("qwen3moe", note_experts=True, kv_tokens=96)
    assert few.n_pages < 6  # which all three need together in the end: one gives its pages up and begins anew
    for (ids, counts), (expected, expected_counts) in zip(answers(start_engine, few, n=40), plain, strict=True):
        assert ids == expected
        assert np.array_equal(counts, expected_counts)


def test_without_being_asked_nothing_is_counted():
    assert open_golden("qwen3moe").noted_experts is None
    assert open_golden("llama", note_experts=True).noted_experts is None


def test_logits_in_between_are_nobody_s(start_engine):
    runtime = open_golden("qwen3moe", note_experts=True)
    (_, alone), *_ = answers(start_engine, runtime)
    again = open_golden("qwen3moe", note_experts=True)
    engine = start_engine(again, max_sequences=1)
    use, listener = ExpertUse(*again.noted_experts), Recorder()
    engine.logits([1, 2, 3])
    engine.submit(Request(PROMPTS[0], listener, max_tokens=12, experts=use))
    engine.logits([4, 5])
    listener.wait()
    assert np.array_equal(use.counts, alone)
