"""Traces of routing: what the program says each token used, streamed or resident, and no number changed by looking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tenth.batch import Batch
from tenth.tracing import VARIABLE, read_trace
from tests.runtime.native import all_logits, golden, i32, open_golden, open_streamed


@pytest.mark.parametrize("case", ["qwen3moe", "glm4moe"])
def test_a_trace_is_the_same_for_every_chunk_and_placement(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = golden(case)["tokens"]
    plain = all_logits(open_golden(case), tokens)
    found = []
    for number, (opened, chunk) in enumerate([(resident, None), (resident, 3), (half, 1), (half, 7)]):
        monkeypatch.setenv(VARIABLE, str(tmp_path / f"{number}.npz"))
        runtime = opened(case)
        assert np.array_equal(all_logits(runtime, tokens, chunk), plain)
        runtime.close()
        found.append(read_trace(tmp_path / f"{number}.npz"))
    n_tokens, n_layers, k = found[0].experts.shape
    assert (n_tokens, k) == (len(tokens), 3)
    assert found[0].n_experts > found[0].experts.max()
    assert all(len(set(chosen)) == k for token in found[0].experts.tolist() for chosen in token)
    assert n_layers == {"qwen3moe": 2, "glm4moe": 1}[case]
    for trace in found[1:]:
        assert np.array_equal(trace.experts, found[0].experts)


def test_rows_without_logits_have_no_experts_of_the_last_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "t.npz"))
    runtime = open_golden("qwen3moe")
    runtime.step(Batch(i32([5, 6, 7]), i32([0, 1, 2]), i32([0, 3]), [i32([0])], i32([2])))
    runtime.close()
    trace = read_trace(tmp_path / "t.npz")
    assert trace.experts.shape[:2] == (3, 2)
    assert (trace.experts[:, 0] >= 0).all()
    assert (trace.experts[:2, 1] == -1).all()
    assert (trace.experts[2, 1] >= 0).all()
    assert len(trace.complete.experts) == 1


def test_nothing_is_traced_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert all(i.op != "expert_trace" for i in open_golden("qwen3moe").program.instructions)


def resident(case):
    return open_golden(case)


def half(case):
    return open_streamed(case, lambda needs: needs.fixed + needs.experts // 2)
