"""bench, inspect and doctor: their flags, and what they print, with a stand-in for the model."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tenth.bench import limits
from tenth.cli import bench, doctor
from tenth.program.values import KvLayer

from .fake import FakeStream


class Program:
    instructions = ()
    state = (KvLayer(0, 1, 64),)
    recurrences = ()


@pytest.fixture
def measured(model, monkeypatch):
    """The model of bench, and limits that take no time."""
    header = SimpleNamespace(tensors={}, paths=(Path("/m.gguf"),))
    model.loaded = SimpleNamespace(program=Program(), header=header, stored={},
                                   placement=SimpleNamespace(streams=False))
    model.tokenize = lambda text, special=True: [1, 2, 3]

    def generate(ids, **settings):
        model.asked.append((ids, settings))
        stream = FakeStream([])
        stream.usage = {"prompt_tokens": len(ids), "completion_tokens": settings["max_tokens"], "cached_tokens": 0}
        return stream

    model.generate = generate
    rate = limits.Rate(2e10, 2e10, 3)
    monkeypatch.setattr(limits, "read_bandwidth", lambda *_: rate)
    monkeypatch.setattr(limits, "int8_rate", lambda *_: rate)
    monkeypatch.setattr(bench, "busy_share", lambda: 0.0)
    predicted = {"prompt": 110.0, "generation": 36.0, "prompt_bound": "compute", "generation_bound": "memory",
                 "hit_rate": 1.0, "measured_hit_rate": None}
    monkeypatch.setattr(bench, "probe_before", lambda *_: None)
    monkeypatch.setattr(bench, "predicted", lambda *_: predicted)
    return model


def test_bench_prints_a_table(tenth, measured):
    result = tenth("bench", "m", "--repetitions", "2")
    assert (result.code, result.err) == (0, "")
    assert "prompt, 512 tokens" in result.out
    assert "generation, 128 tokens" in result.out
    assert "read 20 GB/s" in result.out
    assert "prompt 110 tokens/s (+10 %, bound by compute)" in result.out
    assert "generation 36 tokens/s (-10 %, bound by memory)" in result.out
    assert measured.closed == 1


def test_bench_measures_the_disk_before_and_after_where_experts_stream(tenth, measured, monkeypatch):
    assert "disk" not in tenth("bench", "m", "--repetitions", "1").out
    rates = iter([1e9, 2e9])
    measured.loaded.placement.streams = True
    monkeypatch.setattr(limits, "random_read_rate", lambda *_: limits.Rate(3e9, next(rates), 3))
    monkeypatch.setattr("tenth.forecast.speed.slice_bytes", lambda *_: 900_000.0)
    assert "before and after: disk 1.5 GB/s" in tenth("bench", "m", "--repetitions", "1").out


def test_bench_says_that_the_machine_is_busy(tenth, measured, monkeypatch):
    monkeypatch.setattr(bench, "busy_share", lambda: 0.5)
    result = tenth("bench", "m", "--repetitions", "1", "--json")
    assert "other programs use 50 % of the CPUs" in result.err
    assert json.loads(result.out)["busy_share"] == 0.5


def test_bench_gives_json_with_runs_limits_and_settings(tenth, measured):
    result = json.loads(tenth("bench", "m", "--json", "--repetitions", "2", "--prompt-tokens", "16").out)
    assert result["prompt"]["tokens_per_second"]["runs"] == [100.0, 100.0]
    assert result["generation"]["tokens_per_second"]["median"] == 40.0
    assert result["generation"]["kv_bytes_per_token"] == round(2 * 64 * 2 * 64.5)
    assert result["limits"]["read_bytes_per_second"]["median"] == 2e10
    assert result["settings"]["prefix_reuse"] is False
    assert result["settings"]["speculate"] is False
    assert result["file"] == "/m.gguf"
    assert "peer" not in result


def test_bench_runs_a_warm_up_and_both_parts_of_every_turn(tenth, measured):
    tenth("bench", "m", "--repetitions", "3")
    assert [(len(ids), s["max_tokens"]) for ids, s in measured.asked] == [(512, 1), (1, 128)] * 4
    name, settings = measured.loads[0]
    assert name == "m"
    assert settings["context"] >= 512
    assert settings["threads"] >= 1


def test_bench_speculation_prints_a_table_or_json(tenth, measured, monkeypatch):
    texts = [{"name": "a text", "n_prompt": 9, "n_generated": 40, "plain": {"median": 10.0},
              "speculating": {"median": 15.0}, "drafted": 0, "accepted": 0, "acceptance": None,
              "tokens_per_step": 1.0, "gain": 0.5}]
    monkeypatch.setattr(bench.speculation, "measure", lambda *_: texts)
    result = tenth("bench", "m", "--speculation")
    assert (result.code, result.err) == (0, "")
    assert "a text" in result.out
    assert "+50 %" in result.out
    assert json.loads(tenth("bench", "m", "--speculation", "--json").out)["texts"] == texts
    assert measured.closed == 2


@pytest.mark.parametrize("flags", [
    ("--against", "vllm"), ("--install-peer",), ("--against-args", "-fa 1"), ("--repetitions", "0"),
    ("--against", "llama.cpp", "--against-bin", "x"), ("--prompt-tokens", "1"),
])
def test_flags_that_make_no_sense_are_refused_before_anything_is_loaded(tenth, measured, flags):
    assert tenth("bench", "m", *flags).code == 2
    assert measured.loads == []


def test_inspect_says_what_it_needs(tenth):
    assert tenth("inspect").code == 2
    assert tenth("inspect", "m", "--program", "--profile").code == 2
    assert tenth("inspect", "m", "--all").code == 2
    assert tenth("inspect", "m", "--profile", "--phase", "all").code == 2
    assert tenth("inspect", "m", "--profile", "--svg", "/no/such/folder/x.svg").code == 2


def test_doctor_describes_the_machine_without_measuring(tenth):
    result = tenth("doctor", "--no-measure")
    assert result.code == 0
    assert "CPU" in result.out
    assert "nothing is missing" in result.out or "note:" in result.out


def test_doctor_gives_json(tenth, monkeypatch):
    rate = limits.Rate(2e10, 1e10, 3)
    monkeypatch.setattr(limits, "read_bandwidth", lambda *_: rate)
    monkeypatch.setattr(limits, "int8_rate", lambda *_: rate)
    monkeypatch.setattr(doctor, "disk", lambda folder: rate)
    result = json.loads(tenth("doctor", "--json").out)
    assert result["measured"]["read_bytes_per_second"]["best"] == 2e10
    assert set(result["measured"]) == {"read_bytes_per_second", "int8_multiply_adds_per_second",
                                       "disk_bytes_per_second"}
    assert result["machine"]["cores"] >= 1


def test_doctor_tells_a_missing_package_and_gives_4(tenth, monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["numpy>=1.26", "surely-not-here>=2", "x; extra == 'y'"])
    result = tenth("doctor", "--no-measure")
    assert result.code == 4
    assert "missing: the package surely-not-here is not installed" in result.out
