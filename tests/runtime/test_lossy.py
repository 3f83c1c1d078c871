"""What reads less at the price of another text: only where that was asked for, only what is not in memory, and told."""

import numpy as np
import pytest

from tenth.config import EngineConfig
from tenth.errors import RequestError
from tenth.loader import ALWAYS_STREAM
from tests.runtime.native import all_logits, golden, open_golden, open_streamed

CASES = ["qwen3moe", "deepseek3_quantised", "gpt_oss"]  # softmax, sigmoid with bias and groups, softmax of the chosen


def half(needs):
    return needs.fixed + needs.experts // 2


def least(needs):
    return needs.least


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lossy", [{"lossy_drop": 1.0}, {"lossy_prefer": 2.0}, {"lossy_drop": 0.5, "lossy_prefer": 2}])
def test_prompts_are_exact_and_generation_reads_less(case, lossy):
    """With half of the experts in memory: what is read changes by 1 % with how threads are timed, and must by more."""
    tokens = golden(case)["tokens"]
    exact = all_logits(open_golden(case), tokens)
    plain, changed = (open_streamed(case, half, predict_experts=False, **how) for how in ({}, lossy))
    assert np.array_equal(all_logits(changed, tokens, chunk=len(tokens)), exact), "a prompt"
    for runtime in (plain, changed):
        runtime.reset_profile()
        one_by_one = all_logits(runtime, tokens, chunk=1)
        assert np.array_equal(one_by_one, exact) is (runtime is plain)
        assert np.isfinite(one_by_one).all()
    assert changed.expert_counters().read_bytes < 0.85 * plain.expert_counters().read_bytes
    assert plain.expert_counters().dropped == 0
    if lossy.keys() == {"lossy_drop"}:
        assert changed.expert_counters().dropped > 0


def test_nothing_is_lost_of_what_is_in_memory(monkeypatch):
    tokens = golden("qwen3moe")["tokens"]
    exact = all_logits(open_golden("qwen3moe"), tokens)
    monkeypatch.setenv(ALWAYS_STREAM, "1")  # a slot for every slice
    runtime = open_golden("qwen3moe", lossy_drop=1.0, lossy_prefer=1.0)
    assert "route_lossy" in {i.op for i in runtime.program.instructions}
    all_logits(runtime, tokens, chunk=len(tokens))  # exact, and brings in what it uses
    runtime.reset_profile()
    assert np.array_equal(all_logits(runtime, tokens, chunk=1), exact)
    assert runtime.expert_counters().dropped == 0


def test_a_program_that_loses_something_says_so():
    plain, lossy = (open_streamed("qwen3moe", least, **how) for how in ({}, {"lossy_drop": 0.5}))
    ops = [{i.op for i in runtime.program.instructions} for runtime in (plain, lossy)]
    assert "route_lossy" not in ops[0]
    assert "route" not in ops[1]


@pytest.mark.parametrize("wrong", [{"lossy_drop": 1.5}, {"lossy_drop": -1}, {"lossy_drop": float("nan")},
                                   {"lossy_prefer": "x"}, {"lossy_prefer": True}])
def test_shares_that_mean_nothing_are_refused(wrong):
    with pytest.raises(RequestError, match=next(iter(wrong))):
        EngineConfig(**wrong)
