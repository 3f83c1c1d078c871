"""What is kept of a model's experts between runs: counted, faded, whole or ignored, and never needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

import tenth
from tenth.observed import observed
from tenth.usage import MOST_FILES, MOST_TOKENS, Usage, identity, read_usage, write_usage
from tenth.weights import placement
from tenth.weights.gguf import read_header

DATA = Path(__file__).parent / "data"
MODEL = DATA / "golden_qwen3moe.gguf"


def half(needs, *_):
    needs = replace(needs, stream_workspace=0)
    return placement.place(needs, needs.fixed + needs.experts // 2)


def run(home: Path, tokens: list[int], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Opens a model whose experts stream, computes, closes; gives its notes."""
    monkeypatch.setenv("TENTH_HOME", str(home))
    with mock.patch("tenth.loader.place", half), tenth.load(MODEL) as model:
        model.logits(tokens)
        return model.notes


def test_runs_add_up_in_one_small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        assert run(tmp_path, [1, 2, 3, 4, 5], monkeypatch) == []
    (path,) = (tmp_path / "usage").iterdir()
    assert path.name == f"{identity(read_header(MODEL))}.json"
    kept = read_usage(path, 14)  # 2 layers of 7 experts
    assert kept
    assert kept.n_tokens == 10
    assert sum(kept.uses) == 10 * 3 * 2, "three experts in each of two layers"
    assert path.stat().st_size < 1000


def test_a_run_begins_with_what_was_used_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, [1, 2, 3], monkeypatch)
    with mock.patch("tenth.runtime.Runtime.restore_expert_usage") as restored:
        run(tmp_path, [1], monkeypatch)
    (shares,) = restored.call_args.args
    assert sum(shares) == pytest.approx(3 * 2)


def one_by_one(home: Path, n: int, monkeypatch: pytest.MonkeyPatch) -> Sequence[tuple[float, float]] | None:
    """Computes tokens one by one with half of the experts in memory; what the next plan will know of that."""
    monkeypatch.setenv("TENTH_HOME", str(home))
    with mock.patch("tenth.loader.place", half), tenth.load(MODEL, prefix_reuse=False) as model:
        for i in range(n):
            model.logits([7 * i % 40])
    return observed(read_header(MODEL))


def test_what_tokens_did_not_read_is_known_to_the_next_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one_by_one(tmp_path, 5, monkeypatch) is None, "five tokens say nothing"
    found = one_by_one(tmp_path, 110, monkeypatch)
    assert found
    ((fraction, rate),) = found
    assert 0.3 < fraction < 0.7
    assert 0 < rate < 1


DAMAGED = {
    "not JSON": b"{",
    "deep": b"[" * 100_000,
    "another version": json.dumps({"version": 99, "n_tokens": 1, "uses": [1] * 14}).encode(),
    "of another model": json.dumps({"version": 1, "n_tokens": 1, "uses": [1] * 3}).encode(),
    "not numbers": json.dumps({"version": 1, "n_tokens": 1, "uses": ["x"] * 14}).encode(),
    "not finite": b'{"version": 1, "n_tokens": NaN, "uses": [1,1,1,1,1,1,1,1,1,1,1,1,1,1]}',
    "negative": json.dumps({"version": 1, "n_tokens": 1, "uses": [-1] * 14}).encode(),
    "too large": b" " * (9 << 20),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_ignored_with_one_line_and_written_anew(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "usage" / f"{identity(read_header(MODEL))}.json"
    path.parent.mkdir()
    path.write_bytes(content)
    (note,) = run(tmp_path, [1, 2], monkeypatch)
    assert note.startswith(f"{path} is ignored: ")
    assert "\n" not in note
    kept = read_usage(path, 14)
    assert kept
    assert kept.n_tokens == 2


def test_where_nothing_can_be_written_the_model_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usage").write_text("a file where the folder should be")
    notes = run(tmp_path, [1, 2], monkeypatch)
    assert len(notes) == 1
    assert "is ignored" in notes[0]


def test_nothing_is_kept_of_a_model_that_does_not_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENTH_HOME", str(tmp_path))
    with tenth.load(MODEL) as model:
        model.logits([1, 2])
    assert not (tmp_path / "usage").exists()


def test_old_counts_fade() -> None:
    usage = Usage(MOST_TOKENS, [MOST_TOKENS, 0.0]).then(MOST_TOKENS, [0.0, MOST_TOKENS])
    assert usage.n_tokens == pytest.approx(MOST_TOKENS)
    assert usage.uses == pytest.approx([MOST_TOKENS / 2, MOST_TOKENS / 2])


def test_the_folder_does_not_grow_without_end(tmp_path: Path) -> None:
    for number in range(MOST_FILES + 5):
        write_usage(tmp_path / f"{number}.json", Usage(1, [1.0]))
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == MOST_FILES
    assert f"{MOST_FILES + 4}.json" in names


def test_the_identity_is_of_the_content(tmp_path: Path) -> None:
    data = MODEL.read_bytes()
    (tmp_path / "same.gguf").write_bytes(data)
    assert identity(read_header(tmp_path / "same.gguf")) == identity(read_header(MODEL))
    assert identity(read_header(DATA / "golden_olmoe.gguf")) != identity(read_header(MODEL))
