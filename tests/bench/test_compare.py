"""The comparison: who is measured when, what counts as best, the peers' commands and output, the page."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

import tenth
from tenth.bench import compare, tenth_driver
from tenth.bench.compare_table import markdown
from tenth.bench.llama_bench import LlamaBench, Trial, known_flag_sets, parse_batched, parse_row
from tenth.bench.process import LineProcess
from tenth.bench.work import Work
from tenth.errors import RequestError, ResourceError

PROMPT, GENERATION = Trial("prompt", 512), Trial("generation", 128)
LONG, TOGETHER = Trial("generation", 64, depth=8000), Trial("together", 128, sequences=8)
CHAT = Path(__file__).parents[1] / "data" / "golden_chat.gguf"
# As printed by llama.cpp build 11434 (shortened), 21 November 2026.
ROW = {"build_commit": "unknown", "n_threads": 2, "flash_attn": 1, "repack": True, "n_prompt": 512, "n_gen": 0,
       "n_depth": 0, "avg_ts": 22.588614, "stddev_ts": 0.0, "samples_ts": [22.5886]}
# The columns of llama-batched-bench; both llama.cpp and ik_llama.cpp print this table.
BATCHED = """
|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|     1 |    128 |    8 |   1032 |    0.012 |   666.67 |    8.000 |   128.00 |    8.012 |   128.81 |
"""


def printed(*rows):
    """As llama-bench -o json prints: a bracket, then each row over several lines."""
    return json.dumps(list(rows), indent=2) + "\n"


def test_the_row_of_the_test_is_found():
    assert parse_row(printed(ROW), PROMPT) == 22.588614
    generated = ROW | {"n_prompt": 0, "n_gen": 128}
    assert parse_row(printed(generated), GENERATION) == 22.588614
    behind = ROW | {"n_prompt": 8000, "n_gen": 64}  # ik_llama.cpp's -gp
    assert parse_row(printed(behind), LONG) == 22.588614
    repacked = printed(ROW).replace("[\n", "[\n============ Repacked 211 tensors\n", 1)
    assert parse_row(repacked, PROMPT) == 22.588614
    for wrong in ([], [ROW, ROW], [generated], [ROW | {"n_prompt": 1}], [{"a": 1}]):
        with pytest.raises(ResourceError):
            parse_row(printed(*wrong), PROMPT)
    for wrong in ("hello", "{\n}", "  {\n nonsense\n  }"):
        with pytest.raises(ResourceError):
            parse_row(wrong, PROMPT)


def test_several_sequences_are_read_from_the_table_of_batched_bench():
    assert parse_batched(BATCHED, TOGETHER) == 128.0
    with pytest.raises(ResourceError):
        parse_batched(BATCHED, Trial("together", 64, sequences=8))


def test_the_flags_to_try_follow_from_what_the_program_knows():
    assert known_flag_sets("--repack <0|1>") == [("-fa", "1"), ("-fa", "1", "--repack", "0")]
    assert known_flag_sets("-rtr, --run-time-repack <0|1>") == [("-fa", "1"), ("-fa", "1", "-rtr", "1")]
    assert known_flag_sets("-m <filename>") == [("-fa", "1")]


def program(folder, script, name="llama-bench"):
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\n{script}")
    os.chmod(path, 0o755)
    return path


def test_a_peer_is_a_label_and_a_path_with_or_without_flags(tmp_path):
    path = program(tmp_path, "print('--repack <0|1>')")
    assert LlamaBench.parse(f"llama={path}").flag_sets == [("-fa", "1"), ("-fa", "1", "--repack", "0")]
    assert LlamaBench.parse(f"llama={path},-fa 0,-fa 1 -b 64").flag_sets == [("-fa", "0"), ("-fa", "1", "-b", "64")]
    for wrong in ("llama", "=x", "llama="):
        with pytest.raises(RequestError, match="LABEL=PATH"):
            LlamaBench.parse(wrong)
    with pytest.raises(ResourceError, match="cannot run"):
        LlamaBench.parse(f"llama={tmp_path}/none")


def test_commands_ask_for_one_turn_of_the_test(tmp_path):
    path, file = tmp_path / "llama-bench", Path("m.gguf")
    plain = LlamaBench("x", path, [], "--n-depth <n>")
    start = [str(path), "-m", "m.gguf", "-t", "2"]
    end = ["-r", "1", "-o", "json", "-fa", "1"]
    assert plain.command(PROMPT, file, 2, ("-fa", "1")) == [*start, "-p", "512", "-n", "0", *end]
    assert plain.command(GENERATION, file, 2, ("-fa", "1")) == [*start, "-p", "0", "-n", "128", *end]
    assert plain.command(LONG, file, 2, ("-fa", "1")) == [*start, "-p", "0", "-n", "64", "-d", "8000", *end]
    ik = LlamaBench("x", path, [], "-gp <pp,tg>")
    assert ik.command(LONG, file, 2, ("-fa", "1")) == [*start, "-p", "0", "-n", "0", "-gp", "8000,64", *end]
    assert LlamaBench("x", path, [], "").command(LONG, file, 2, ()) is None
    assert plain.command(TOGETHER, file, 2, ()) is None  # no llama-batched-bench beside it
    batched = program(tmp_path, "", "llama-batched-bench")
    assert plain.command(TOGETHER, file, 2, ("-fa", "1", "--repack", "0")) == [
        str(batched), "-m", "m.gguf", "-t", "2", "-c", "1280", "-npp", "1", "-ntg", "128", "-npl", "8", "--no-repack"]


def test_a_failure_is_remembered_for_its_test_and_flags_alone(tmp_path):
    path = program(tmp_path, f"print({printed(ROW)!r}) if '0' not in sys.argv[-1] else sys.exit(3)")
    peer = LlamaBench("x", path, [], "")
    assert peer.measure(PROMPT, Path("m"), 2, ("--repack", "0")) is None
    assert peer.measure(PROMPT, Path("m"), 2, ("--repack", "1")) == 22.588614
    assert list(peer.failed) == [("prompt of 512", ("--repack", "0"))]
    assert "exit code 3" in peer.failed["prompt of 512", ("--repack", "0")]


class Driver:
    """Plays tenth_driver: answers with rising speeds, and notes everything in the log."""

    def __init__(self, log):
        self.log, self.speed = log, 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, question):
        self.log.append(question["do"])
        if question["do"] == "limits":
            return {"read": 1e10, "int8": 1e12}
        self.speed += 10
        return {"tokens_per_second": self.speed}


def test_everyone_takes_turns_in_alternating_order():
    log = []
    peer = LlamaBench("p", Path("x"), [("a",), ("b",)], "")
    rates = {("a",): 18.0, ("b",): 20.0}

    def measure(peer, test, flags):
        log.append(flags[0])
        return rates[flags]

    measured = compare.take_turns(GENERATION, Driver(log), [peer], measure, 2)
    assert log == ["generation", "limits", "generation", "a", "b", "limits", "b", "a", "generation"]
    assert measured.tenth == [20.0, 30.0]
    work = Work(weight_bytes=100_000_000, kv_bytes_per_context_token=0, every=10_000_000, output=0)
    result = compare.figures(measured, work)
    assert result["peers"]["p"]["best_flags"] == "b"
    assert result["peers"]["p"]["ratio"] == pytest.approx(1.25)
    assert set(result["peers"]["p"]["all_flags"]) == {"a", "b"}
    assert (result["share_of_limit"], result["limit"]) == (pytest.approx(0.3), "read")


def test_flags_that_came_nowhere_near_a_peers_best_are_not_run_again():
    rates = {("p", ("a",)): 16.9, ("p", ("b",)): 20.0, ("q", ("a",)): 1.0, ("q", ("b",)): None}
    peers = [LlamaBench(label, Path("x"), [("a",), ("b",)], "") for label in "pq"]
    measured = compare.take_turns(GENERATION, Driver([]), peers, lambda p, _, flags: rates[p.label, flags], 3)
    n_runs = {key: len(runs) for key, runs in measured.peers.items()}
    assert n_runs == {("p", ("a",)): 1, ("p", ("b",)): 3, ("q", ("a",)): 3}


def test_a_peer_without_a_figure_is_left_out():
    measured = compare.take_turns(LONG, Driver([]), [LlamaBench("p", Path("x"), [()], "")], lambda *_: None, 1)
    assert measured.peers == {}


def test_what_a_token_of_each_test_needs():
    work = Work(weight_bytes=1000, kv_bytes_per_context_token=2.0, every=50, output=512)
    assert compare.per_token(PROMPT, work) == (1000 / 512, 51.0)
    assert compare.per_token(GENERATION, work) == (1000 + 2 * 64.5, 562)
    assert compare.per_token(LONG, work) == (1000 + 2 * 8032.5, 562)
    assert compare.per_token(TOGETHER, work) == (125 + 2 * 64.5, 562)


def test_the_command_line_names_tests_and_refuses_others(tmp_path, capsys):
    settings = compare.settings_from(["m", "--long", "--tests", "pp512"])
    assert settings.tests == ["pp512", "pp8000", "long"]
    assert settings.tests_avx2 == ["pp512"]
    assert compare.settings_from(["m", "--tests-avx2", "tg128"]).tests_avx2 == ["tg128"]
    for wrong in (["m", "--tests", "x"], ["m", "--tests-avx2", "x"], ["m", "--repetitions", "0"],
                  ["m", "--out", f"{tmp_path}/none"], []):
        with pytest.raises(SystemExit):
            compare.settings_from(wrong)
    assert "usage" in capsys.readouterr().err


def test_models_are_files_or_folders_smallest_first(tmp_path):
    for name, size in (("b.gguf", 10), ("a.gguf", 20), ("c.txt", 1)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert [f.name for f in compare.model_files([str(tmp_path)])] == ["b.gguf", "a.gguf"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="no GGUF"):
        compare.model_files([str(tmp_path / "empty")])


def test_every_sequence_of_a_test_has_room():
    assert compare.kv_tokens([PROMPT, TOGETHER]) >= 2 * 8 * (128 + 1)
    assert compare.kv_tokens([GENERATION, LONG]) >= 2 * (8000 + 64)


def test_the_driver_loads_a_model_and_answers_every_question(monkeypatch):
    command = [sys.executable, "-c", "from tenth.bench import limits, tenth_driver as d\n"
               "limits.buffer_bytes = lambda *_: 16 << 20\nd.main()", str(CHAT), "1", "64", "256"]
    environment = {"TENTH_ISA": "scalar", "PYTHONPATH": str(Path(compare.__file__).parents[2])}
    with LineProcess("tenth", command, environment=environment) as driver:
        assert driver.ready["isa"] == "scalar"
        assert driver.ready["file_bytes"] == CHAT.stat().st_size
        assert len(driver.ready["load_s"]) == 3
        assert 0 < driver.ready["warm_read_s"] < 10
        costs = driver.ready["load_costs"]
        assert costs.keys() == COSTS.keys()
        assert all(value > 0 for value in costs.values())
        assert max(costs["weights_seconds"], costs["text_seconds"]) < costs["seconds"]
        assert driver.ask({"do": "limits"})["read"] > 0
        for question in ({"do": "prompt", "tokens": 40}, {"do": "prompt", "tokens": 40},
                         {"do": "generation", "tokens": 8, "depth": 32},
                         {"do": "together", "tokens": 4, "sequences": 3}):
            assert driver.ask(question)["tokens_per_second"] > 0
        with pytest.raises(ResourceError, match="nothing is known of 'dance'"):
            driver.ask({"do": "dance"})


def test_sequences_that_were_not_together_give_no_figure():
    with (tenth.load(CHAT, threads=1, context=64, kv_tokens=256) as model,  # 8 sequences of 60 need 512
          pytest.raises(ResourceError, match="computed twice")):
        tenth_driver.Driver(model, 1).together(60, 8)


COSTS = {"seconds": 0.03, "weights_bytes": 5e6, "weights_seconds": 0.02, "read_processor_seconds": 0.011,
         "pack_processor_seconds": 0.012, "text_seconds": 0.013}


def test_the_page_has_every_test_its_limits_and_what_failed(tmp_path, monkeypatch, capsys):
    path = program(tmp_path, f"print({printed(ROW)!r})")
    driver = Driver([])
    driver.ready = {"name": "Model", "isa": "avx512", "version": "1", "file_bytes": 5_000_000, "warm_read_s": 0.01,
                    "load_s": [0.1, 0.02, 0.03], "load_costs": COSTS,
                    "work": {"weight_bytes": 10, "kv_bytes_per_context_token": 1.0, "every": 5, "output": 2}}
    monkeypatch.setattr(compare, "LineProcess", lambda *_, **__: driver)
    monkeypatch.setattr(compare, "busy_share", lambda: 0.5)
    code = compare.main([str(CHAT), "--tests", "pp512,pp2048", "--repetitions", "2", "--out", str(tmp_path)])
    assert code == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert result["results"] == []  # the model's context is too short for any of these tests
    monkeypatch.setattr(compare, "fitting", lambda tests, file: tests)
    assert compare.main([str(CHAT), "--peer", f"llama={path}", "--peer-avx2", f"old={path}", "--tests", "pp512,tg128",
                         "--repetitions", "2"]) == 0
    page = capsys.readouterr().out.split("# tenth and its peers")[-1]
    assert page.count("## Model, avx512") == 2
    assert "Loading takes 0.03 s, 3.0 times one warm read" in page
    assert "in 0.020 s (processor seconds: reading 0.011, packing 0.012)" in page
    assert "| prompt of 512 |" in page
    assert "22.6 ± 0.0 `-fa 1`" in page
    assert "10.0 ± 0.0 | 1000 ± 0" in page
    assert "Loading takes 0.03 s, 3.0 times one warm read" in page
    assert "llama -fa 1, generation of 128: failed: the peer did not print" in page
    assert "mean little" in page
    assert "python -m tenth.bench.compare" in page


def test_a_page_without_peers_has_no_empty_columns():
    page = markdown({"machine": {"cpu": "C"}, "threads": 2, "repetitions": 1, "busy_share": 0, "command": "c",
                     "results": []})
    assert "mean little" not in page


def test_the_documented_comparison_is_one_that_the_command_line_takes(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    words = shlex.split(page.split("```sh\n")[1].split("```")[0].replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "tenth.bench.compare"]
    settings = compare.settings_from([str(tmp_path) if word == "results" else word for word in words[3:]])
    assert len(settings.peer) == 2
    assert settings.tests[-1] == "long"
    assert settings.peer_avx2
