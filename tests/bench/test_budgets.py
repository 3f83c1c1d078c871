"""Models within memory budgets: what counts as ideal, whom is measured how, the page; end to end on a small model."""

import itertools
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tenth.bench import budgets, ideal, read_ahead
from tenth.bench.budgets_table import markdown
from tenth.bench.control_group import control_group
from tenth.bench.llama_bench import LlamaBench
from tenth.errors import RequestError, ResourceError
from tenth.weights.gguf import read_header
from tests.moe_file import write_moe

DATA = Path(__file__).parents[1] / "data"
MOE = DATA / "golden_qwen3moe.gguf"
CHART = Path(__file__).parents[2] / "scripts" / "budget_chart.py"


def test_pieces_are_the_bytes_of_the_experts():
    experts = ideal.ExpertFile.of(MOE)
    header = read_header(MOE)
    stored = [t for name, t in header.tensors.items() if "_exps" in name]
    assert experts.n_bytes == sum(t.n_bytes for t in stored)
    assert len(experts.layers) == len({t.name.split(".")[1] for t in stored})
    for layer in range(len(experts.layers)):
        tensors = sorted((t for t in stored if t.name.startswith(f"blk.{layer}.")), key=lambda t: t.offset)
        for expert in range(experts.n_experts):
            pieces = sorted(experts.pieces([layer * experts.n_experts + expert]), key=lambda p: p.offset)
            each = [t.n_bytes // t.shape[0] for t in tensors]
            assert [(p.offset, p.n_bytes) for p in pieces] == [
                (t.offset + expert * n, n) for t, n in zip(tensors, each, strict=True)]


def test_halves_of_a_fused_tensor_are_pieces_of_their_own():
    experts = ideal.ExpertFile.of(DATA / "golden_gpt_oss.gguf")
    pieces = sorted((p for layer in experts.layers for e in layer for p in e), key=lambda p: p.offset)
    assert all(a.offset + a.n_bytes <= b.offset for a, b in itertools.pairwise(pieces))


def test_groups_name_what_each_layer_of_a_step_needs_once():
    prompt = np.array([[[0, 1], [2, -1]], [[1, 3], [-1, -1]]], np.int16)
    token = np.array([[[2, 0], [1, 3]]], np.int16)
    assert ideal.groups([prompt, token], 4) == [[0, 1, 3], [6], [0, 2], [5, 7]]


def test_missed_bytes_are_those_of_the_measured_steps_alone():
    experts = ideal.ExpertFile.of(MOE)
    n_layers, n = len(experts.layers), experts.n_experts
    step = np.zeros((1, n_layers, 2), np.int16)
    step[..., 1] = 1
    assert ideal.missed([step], [step, step], experts, slot_share=1.0) == []
    everything = [p for layer in range(n_layers) for p in experts.pieces([layer * n, layer * n + 1])]
    assert ideal.missed([], [step, step], experts, slot_share=1.0) == everything
    assert len(ideal.missed([step], [step, step], experts, slot_share=2 / (n_layers * n))) == 2 * len(everything)


def test_the_ideal_overlaps_reading_and_computing():
    assert ideal.tokens_per_second(0.1, 1e9, 2e9) == 2
    assert ideal.tokens_per_second(0.5, 0, 2e9) == 2


def test_direct_reading_reads_all_and_fails_at_an_early_end(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100_000))
    pieces = [ideal.Piece(path, 5_000 * i, 4_000) for i in range(20)]
    try:
        assert ideal.read_seconds(pieces) > 0
        assert ideal.read_seconds(pieces, kept_bytes=50_000) > 0
    except OSError as error:
        pytest.skip(f"no direct reads here: {error}")
    for kept_bytes in (0, 8192):
        with pytest.raises(OSError, match="ends within"):
            ideal.read_seconds([ideal.Piece(path, 99_000, 4_000)], kept_bytes=kept_bytes)


def test_memory_to_read_to_is_given_out_once():
    room = ideal.Room(10_000)
    first, second = room.take(4096), room.take(4096)
    first[:], second[:] = b"a" * 4096, b"b" * 4096
    assert bytes(first) == b"a" * 4096
    assert room.take(4096) is None


@pytest.mark.parametrize(("arguments", "what"), [
    (["/nonexistent.gguf"], "there is no /nonexistent.gguf"), ([str(MOE), "--caps", "8 apples"], "--caps"),
    ([str(MOE), "--only", "ik"], "--only names ik"), ([str(MOE), "--out", "/nonexistent"], "there is no /nonexistent"),
    ([str(MOE), "--peer", "x"], "LABEL=PATH"), ([str(MOE), "--read-ahead", "set,x"], "--read-ahead has 'x'"),
])  # fmt: skip
def test_a_wrong_command_line_is_refused(arguments, what):
    with pytest.raises(RequestError, match=what):
        budgets.settings_from(arguments)


def test_under_a_limit_peers_leave_weights_in_the_file():
    sets = [("-fa", "1"), ("-fa", "1", "--repack", "0"), ("-fa", "1", "-rtr", "1")]
    assert budgets.mapped(LlamaBench("a", Path("x"), sets, "--repack <0|1>")) == [sets[1]]
    assert budgets.mapped(LlamaBench("b", Path("x"), sets[::2], "-rtr <0|1>")) == [sets[0]]


def test_read_ahead_is_set_and_put_back(tmp_path, monkeypatch):
    setting = tmp_path / "read_ahead_kb"
    setting.write_text("8192\n")
    monkeypatch.setattr(read_ahead, "read_ahead_setting", lambda file: setting)

    def fail_within():
        with read_ahead.read_ahead(MOE, 128):
            assert setting.read_text() == "128"
            raise ValueError("within")

    with pytest.raises(ValueError, match="within"):
        fail_within()
    assert setting.read_text() == "8192\n"
    with read_ahead.read_ahead(MOE, None):
        assert setting.read_text() == "8192\n"


PEER = """#!{python}
import json, sys
words = sys.argv[1:]
if "--help" in words:
    print("--repack <0|1>")
else:
    p, n = (int(words[words.index(flag) + 1]) for flag in ("-p", "-n"))
    print(json.dumps([{{"n_prompt": p, "n_gen": n, "avg_ts": 0.25 if n else 4.0}}], indent=2))
"""


@pytest.fixture
def can_limit():
    try:
        with control_group(1 << 30):
            pass
    except ResourceError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("can_limit")
def test_everything_is_measured_and_runs_add_up(tmp_path, monkeypatch, capsys):
    @contextmanager
    def limited(cap):  # without emptying this machine's page cache
        if cap.n_bytes is None:
            yield None
        else:
            with control_group(cap.n_bytes) as group:
                yield group

    peer = tmp_path / "llama-bench"
    peer.write_text(PEER.format(python=sys.executable))
    peer.chmod(0o755)
    setting = tmp_path / "read_ahead_kb"
    setting.write_text("8192")
    monkeypatch.setattr(budgets, "limited", limited)
    monkeypatch.setattr(read_ahead, "read_ahead_setting", lambda file: setting)
    monkeypatch.setattr(budgets, "CONTEXT_TOKENS", 96)
    monkeypatch.setattr(budgets, "GENERATE", 8)
    monkeypatch.setattr(budgets, "PROMPT", 32)
    monkeypatch.setattr(budgets, "DISK_SECONDS", 0.01)
    monkeypatch.setattr(budgets, "random_read_rate", lambda *_: type("Rate", (), {"median": 1e9}))
    monkeypatch.setenv("TENTH_STREAM", "1")
    words = [str(write_moe(tmp_path / "moe.gguf")), "--caps", "600MB", "--turns", "1", "--threads", "1",
             "--peer", f"llama.cpp={peer}", "--out", str(tmp_path)]
    assert budgets.main(words) == 0, capsys.readouterr().err
    assert budgets.main([*words, "--only", "tenth"]) == 0
    kept = json.loads((tmp_path / "budgets.json").read_text())
    assert [run["who"] for run in kept["runs"]] == ["tenth", "llama.cpp", "llama.cpp", "tenth"]
    own, theirs = kept["runs"][0], kept["runs"][2]
    assert own["memory"]["kills"] == 0
    assert len(own["generation"]["step_s"]) == 8
    assert own["touched_bytes"] > 0
    assert own["touched_kept_s"] > 0
    assert (theirs["read_ahead_kb"], theirs["prompt"], theirs["generation"]) == (128, 4.0, 0.25)
    page = (tmp_path / "budgets.md").read_text()
    assert page == markdown(kept)
    assert "| 600MB | llama.cpp | 128 KB | 0.25 |" in page
    picture = tmp_path / "budgets.svg"
    subprocess.run([sys.executable, CHART, tmp_path / "budgets.json", picture], check=True)
    words = "".join(ElementTree.parse(picture).getroot().itertext())
    assert "llama.cpp, read-ahead 128 KB" in words
    assert "most that the disk allows" in words
