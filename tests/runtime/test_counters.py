"""The native counters: every instruction and step is counted, and the instructions fit into the steps."""

import pytest

from tenth.bench.profile import profile_prompt
from tenth.config import EngineConfig
from tenth.loader import open_runtime

from .native import DATA, open_golden, step_logits


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_hold_their_instructions_and_counters_start_again(threads):
    runtime = open_golden("llama", threads=threads)
    for _ in range(3):
        step_logits(runtime, [([1, 2, 3], 0, [0])])
    counters, instructions = runtime.step_counters(), runtime.profile()
    assert counters.steps == 3
    assert counters.sample_seconds == 0
    assert {row.calls for row in instructions} == {3}
    assert 0 < sum(row.seconds for row in instructions) <= counters.step_seconds * 1.001  # ticks are scaled twice
    runtime.reset_profile()
    assert (runtime.step_counters().steps, {row.calls for row in runtime.profile()}) == (0, {0})


def test_a_profile_of_a_real_program_names_all_of_its_time():
    loaded = open_runtime(DATA / "golden_chat.gguf", EngineConfig(threads=1, chunk_tokens=32))
    profile = profile_prompt(loaded.runtime, loaded, 0, 32)
    assert len(profile.rows) == len(loaded.program.instructions)
    rest = profile.rest
    total = sum(row.seconds for row in profile.rows) + rest.waking + rest.sampling + rest.python
    assert total == pytest.approx(profile.step_seconds, rel=0.01)
    assert rest.sampling > 0
    by_op = {row.cost.op: row.cost for row in profile.groups()}
    assert by_op["attention"].kv_bytes == sum(
        32 * 2 * layer.n_kv_heads * layer.head_dim * 2 for layer in loaded.program.state)
