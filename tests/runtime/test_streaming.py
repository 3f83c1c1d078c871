"""Streamed experts give the same bits as resident ones, with few slots and many, while they come and go."""

import itertools
import os
import shutil
import threading
import time
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from gguf import GGMLQuantizationType

import tenth
from tenth.config import EngineConfig
from tenth.errors import ResourceError
from tenth.loader import ALWAYS_STREAM, open_runtime
from tenth.model import Model
from tenth.weights.gguf import read_header
from tenth.weights.placement import place
from tests.moe_file import write_moe
from tests.runtime.native import DATA, all_logits, golden, open_golden, open_streamed, step_logits

CASES = ["qwen3moe", "moe_quantised", "olmoe", "qwen2moe", "mixtral", "glm4moe", "deepseek3_quantised",
         "gpt_oss", "gpt_oss_quantised", "qwen35moe", "qwen3next"]  # fmt: skip


def least(needs):
    return needs.least


def half(needs):
    return needs.fixed + needs.experts // 2


def nearly_all(needs):
    return needs.fixed + needs.experts - 1


BUDGETS = {"least": least, "half": half, "nearly all": nearly_all}


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("case", CASES)
def test_every_budget_gives_the_logits_of_resident_experts(case, budget):
    tokens = golden(case)["tokens"]
    resident = all_logits(open_golden(case, threads=2), tokens)
    for threads in (1, 2, 3):
        runtime = open_streamed(case, BUDGETS[budget], threads=threads)
        for chunk in (1, 5, 16, len(tokens)):
            assert np.array_equal(resident, all_logits(runtime, tokens, chunk)), (threads, chunk)
        counts = runtime.expert_counters()
        assert counts.wanted > 0
        assert counts.read_bytes > 0
        runtime.close()


def test_experts_in_bfloat16_stream_too(tmp_path):
    path = write_moe(tmp_path / "moe.gguf", matrices_in=GGMLQuantizationType.BF16)
    tokens = np.arange(70) % 50
    resident = all_logits(open_golden(path, max_sequences=70), tokens)
    streamed = open_streamed(path, half, max_sequences=70)
    for chunk in (1, 17, 70):
        assert np.array_equal(resident, all_logits(streamed, tokens, chunk)), chunk
    assert streamed.expert_counters().read_bytes > 0


KINDS = ["qwen3moe", "gpt_oss_quantised", "deepseek3_quantised", "qwen35moe", "qwen3next"]


@pytest.mark.parametrize("disk", ["auto", "direct", "buffered"])
@pytest.mark.parametrize("predict", [True, False])
@pytest.mark.parametrize("case", KINDS)
def test_the_way_of_reading_changes_nothing(case, disk, predict):
    tokens = golden(case)["tokens"]
    resident = all_logits(open_golden(case), tokens)
    runtime = open_streamed(case, half, disk=disk, predict_experts=predict)
    assert np.array_equal(resident, all_logits(runtime, tokens, chunk=1))
    assert runtime.expert_counters().read_bytes > 0
    assert predict or runtime.expert_counters().predicted == 0


@pytest.mark.parametrize("case", ["moe_quantised", *KINDS])
def test_batch_mates_change_nothing(case):
    tokens = golden(case)["tokens"]
    alone = all_logits(open_golden(case), tokens)
    runtime, other = open_streamed(case, least), tokens[::-1]
    step_logits(runtime, [(tokens[:7], 0, [5, 1]), (other[:4], 0, [2, 3])])
    together = step_logits(runtime, [(other[4:9], 4, [2, 3]), (tokens[7:20], 7, [5, 1])])
    assert np.array_equal(together[5:], alone[7:20])


def test_with_little_room_experts_are_read_again_and_with_room_they_are_not():
    tokens = golden("moe_quantised")["tokens"]
    size = (DATA / "golden_moe_quantised.gguf").stat().st_size
    small, large = (open_streamed("moe_quantised", budget) for budget in (least, nearly_all))
    for runtime in (small, large):
        all_logits(runtime, tokens, chunk=1)
    assert small.expert_counters().read_bytes > 2 * size, "nothing was evicted"
    assert large.expert_counters().read_bytes < small.expert_counters().read_bytes
    assert large.expert_counters().ready > small.expert_counters().ready


def streamed_copy(tmp_path, monkeypatch):
    """A streamed model in a file of its own, so that the file can be harmed."""
    path = tmp_path / "golden_moe_quantised.gguf"
    shutil.copy(DATA / path.name, path)
    monkeypatch.setattr("tests.runtime.native.DATA", tmp_path)
    return path, open_streamed("moe_quantised", least)


def test_a_file_that_is_changed_fails_the_step_and_the_model_goes_on_when_it_is_whole_again(tmp_path, monkeypatch):
    path, runtime = streamed_copy(tmp_path, monkeypatch)
    tokens, whole, times = golden_tokens(), path.read_bytes(), os.stat(path)
    before = all_logits(runtime, tokens)

    os.truncate(path, 20_000)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(RuntimeError, match=r"golden_moe_quantised.gguf: the file was changed"):
        all_logits(runtime, tokens)
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert np.array_equal(all_logits(runtime, tokens), before)


def test_what_streaming_costs_is_told():
    def half_of(needs, *_):
        return place(replace(needs, stream_workspace=0), half(needs))

    with mock.patch("tenth.loader.place", half_of):
        loaded = open_runtime(read_header(DATA / "golden_qwen3moe.gguf"), EngineConfig())
    with Model(loaded, EngineConfig()) as model:
        model.logits(golden("qwen3moe")["tokens"].tolist())
        told = model.expert_statistics()
        assert 0 < told["hit_rate"] < 1
        assert told["read_bytes_per_token"] > 0
        assert 0 <= told["waiting_share"] <= 1
        assert "expert_slot_bytes" in model.memory()
    assert model.expert_statistics() == {}


def golden_tokens():
    return dict(np.load(os.path.join(os.path.dirname(__file__), "..", "data", "golden_moe_quantised.npz")))["tokens"]


def test_a_read_that_fails_in_the_middle_of_a_step_fails_that_step_only(tmp_path, monkeypatch):
    path, runtime = streamed_copy(tmp_path, monkeypatch)
    tokens, whole, times = golden_tokens(), path.read_bytes(), os.stat(path)
    before = all_logits(runtime, tokens)
    failures, stop = [], threading.Event()

    def harm():
        while not stop.is_set():
            os.truncate(path, 30_000)
            path.write_bytes(whole)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    thread = threading.Thread(target=harm)
    thread.start()
    try:
        end = time.monotonic() + 60
        for n in itertools.count():
            if n >= 300 and (failures or time.monotonic() > end):
                break
            try:
                all_logits(runtime, tokens, chunk=4)
            except RuntimeError as error:
                failures.append(str(error))
    finally:
        stop.set()
        thread.join()
    assert failures
    assert all("golden_moe_quantised.gguf: " in failure for failure in failures), failures
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert np.array_equal(all_logits(runtime, tokens), before)


def test_usage_can_be_kept_and_restored():
    tokens = golden("moe_quantised")["tokens"]
    runtime = open_streamed("moe_quantised", half)
    all_logits(runtime, tokens, chunk=1)
    usage = runtime.expert_usage()
    assert sum(usage) == 2 * len(tokens), "two experts for each token"
    other = open_streamed("moe_quantised", half)
    other.restore_expert_usage(usage)
    assert sum(other.expert_usage()) == 0, "counts are of this run"
    assert np.array_equal(all_logits(other, tokens, chunk=1), all_logits(runtime, tokens, chunk=1))


def test_what_was_used_before_is_in_memory_before_it_is_asked_for():
    tokens = golden("moe_quantised")["tokens"]
    runtime = open_streamed("moe_quantised", nearly_all, predict_experts=False)
    runtime.restore_expert_usage([1.0, 2.0, 3.0, 0.0])
    wait_until(lambda: runtime.expert_counters().reads >= 9)
    time.sleep(0.05)
    counts = runtime.expert_counters()
    assert counts.reads == 9, "three experts of three matrices, and not the one that nobody used"
    all_logits(runtime, tokens[:1])
    counts = runtime.expert_counters()
    assert counts.ready + counts.coming >= 3


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def test_a_prompt_leaves_in_memory_what_generation_uses():
    """Slots hold what generation uses: a long prompt of other tokens must not make it read that again."""
    runtime = open_streamed("qwen3moe", lambda needs: needs.fixed + needs.experts * 6 // 7)
    token, step = [7], 0
    for step in range(40):  # the same token again and again: the same few experts
        step_logits(runtime, [(token, step, [1, 2])])
    runtime.reset_profile()
    step_logits(runtime, [(token, 40, [1, 2])])
    before = runtime.expert_counters()
    others = golden("qwen3moe")["tokens"][:30]
    all_logits(runtime, others, pages=np.array([3, 4]))
    runtime.reset_profile()
    step_logits(runtime, [(token, 41, [1, 2])])
    after = runtime.expert_counters()
    assert before.ready == before.wanted
    assert after.ready >= 0.8 * after.wanted


@pytest.mark.parametrize("how", ["cut", "replaced", "written to"])
def test_a_request_fails_when_the_file_changes_underneath_and_the_model_lives(how, tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    shutil.copy(DATA / "golden_moe_quantised.gguf", path)
    monkeypatch.setenv("TENTH_HOME", str(tmp_path / "home"))

    def least_place(needs, *_):
        needs = replace(needs, stream_workspace=0)
        return place(needs, needs.least)

    least_slots = mock.patch("tenth.loader.place", least_place)
    with least_slots, tenth.load(path) as model:
        tokens = golden_tokens().tolist()
        whole, times = model.logits(tokens), os.stat(path)
        if how == "cut":
            os.truncate(path, times.st_size // 2)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        elif how == "replaced":
            (tmp_path / "new.gguf").write_bytes(bytes(times.st_size))
            os.utime(tmp_path / "new.gguf", ns=(times.st_atime_ns, times.st_mtime_ns))
            (tmp_path / "new.gguf").replace(path)
        else:
            os.utime(path, ns=(1, 1))
        if how == "replaced":  # the old file is still open: nothing that is read has changed
            assert np.array_equal(model.logits(tokens), whole)
            return
        with pytest.raises(ResourceError, match=r"model\.gguf: the file was changed while the model runs"):
            model.logits(tokens)
        with pytest.raises(ResourceError, match="the file was changed"):
            model.logits(tokens)


def test_nothing_is_guessed_while_everything_is_in_memory(monkeypatch):
    monkeypatch.setenv(ALWAYS_STREAM, "1")
    tokens = golden("qwen3moe")["tokens"]
    runtime = open_golden("qwen3moe")
    assert np.array_equal(all_logits(runtime, tokens, chunk=1), resident_logits(tokens, monkeypatch))
    runtime.reset_profile()
    all_logits(runtime, tokens, chunk=1)
    counts = runtime.expert_counters()
    assert counts.ready == counts.wanted > 0
    calls = {row.op: row.calls for row in runtime.profile()}
    assert calls["expert_predict"] == 0
    assert calls["expert_read"] == len(tokens)


def resident_logits(tokens, monkeypatch):
    monkeypatch.delenv(ALWAYS_STREAM)
    return all_logits(open_golden("qwen3moe"), tokens)


CHUNKS = [(1e9, {}, 300), (0.0, {}, 256), (1e9, {"chunk_tokens": 64}, 64)]


@pytest.mark.parametrize(("share", "settings", "rows"), CHUNKS)
def test_a_chunk_is_longer_where_experts_stream_and_its_workspace_costs_few_slots(share, settings, rows, monkeypatch):
    monkeypatch.setattr("tenth.loader.LONG_CHUNKS", (300,))
    monkeypatch.setattr("tenth.loader.SLOTS_FOR_CHUNK", share)
    assert open_streamed("qwen3moe", half, **settings).max_rows == rows
    assert open_golden("qwen3moe", **settings).max_rows == settings.get("chunk_tokens", 256)


@pytest.fixture(scope="module")
def moe_with_words(tmp_path_factory):
    return write_moe(tmp_path_factory.mktemp("moe") / "moe.gguf")


@pytest.mark.parametrize("disk", ["direct", "buffered"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_greedy_text_is_the_same_at_every_budget_alone_and_together(budget, disk, moe_with_words, monkeypatch):
    prompts = ["The sky is blue because", "Memory is", "One, two, three, four, five, six, seven, eight", "x"]
    settings = {"max_tokens": 24, "temperature": 0.0, "ignore_eos": True}

    def place_within(needs, *_):
        needs = replace(needs, stream_workspace=0)
        return place(needs, BUDGETS[budget](needs))

    with tenth.load(moe_with_words, context=256, threads=2) as model:
        expected = [model.generate(prompt, **settings).wait().text for prompt in prompts]
    monkeypatch.setattr("tenth.loader.place", place_within)
    with tenth.load(moe_with_words, context=256, threads=1, disk=disk) as model:
        assert [model.generate(prompt, **settings).wait().text for prompt in prompts] == expected
        assert [stream.wait().text for stream in model.generate(prompts, **settings)] == expected
        assert model.expert_read_bytes() > 0
    assert len(set(expected)) == len(prompts)
