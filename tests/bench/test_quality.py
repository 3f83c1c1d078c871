"""What settings that change the text cost: the figures, and the command end to end on a small mixture of experts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tenth
from tenth.bench import quality
from tenth.bench.divergence import compare
from tenth.config import EngineConfig
from tenth.errors import RequestError, ResourceError
from tenth.weights.placement import place

DATA = Path(__file__).parents[1] / "data"
MODEL = DATA / "golden_moe_quantised.gguf"


def test_equal_logits_cost_nothing_and_others_what_was_worked_out_by_hand():
    exact = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32))
    same = compare("same", exact + 3, exact, [0, 0, 1])
    assert same.mean_kl == pytest.approx(0, abs=1e-6)
    assert (same.perplexity_ratio, same.top1_agreement) == (pytest.approx(1), 1)
    other = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]], np.float32))
    found = compare("other", other, exact, [0, 0, 1])
    assert found.max_kl == pytest.approx(0.5 * np.log(2) - 0.25 * np.log(2), rel=1e-5)
    assert found.mean_kl == pytest.approx(found.max_kl / 2, rel=1e-5)
    assert found.perplexity == pytest.approx((0.25 * 0.8) ** -0.5, rel=1e-5)
    assert found.perplexity_ratio == pytest.approx(2**0.5, rel=1e-5)
    assert found.top1_agreement == 0.5


def test_logits_that_do_not_fit_or_are_no_numbers_are_no_result():
    exact = np.zeros((2, 3), np.float32)
    for found, expected in ((exact[:1], exact), (exact + np.inf, exact), (exact, exact + np.nan)):
        with pytest.raises(ResourceError, match="wrong: "):
            compare("wrong", found, expected, [0, 0, 0])


def test_settings_that_change_nothing_are_not_measured():
    with pytest.raises(RequestError, match="change nothing"):
        quality.exact_settings(EngineConfig(threads=1))
    lossy = EngineConfig(threads=1, lossy_drop=0.5, kv_format="q8_0", prefill="expanded")
    assert quality.exact_settings(lossy) == EngineConfig(threads=1)


def test_a_model_that_streams_is_compared_with_itself(monkeypatch):
    def least_place(needs, *_):
        needs = replace(needs, stream_workspace=0)
        return place(needs, needs.least)

    monkeypatch.setattr("tenth.loader.place", least_place)
    ids = np.load(MODEL.with_suffix(".npz"))["tokens"].tolist()
    passes = []
    for lossy in ({}, {"lossy_drop": 1.0}):
        with tenth.load(MODEL, **lossy) as model:
            assert model.lossy == lossy
            assert model.description.get("lossy", {}) == lossy
            assert any("lossy_drop 1" in note for note in model.notes) is bool(lossy)
            passes.append(quality.run_pass(model, ids[:-1]))
    result = quality.figures("small", *passes, ids)
    assert result["quality"]["mean_kl"] > 1e-6
    assert result["changed"]["experts"]["dropped"] > 0
    assert "dropped" not in result["exact"]["experts"]
    assert result["changed"]["experts"]["read_bytes_per_token"] < result["exact"]["experts"]["read_bytes_per_token"]
    assert json.loads(json.dumps(result))["changed"]["settings"]["lossy_drop"] == 1.0
    assert any("experts left out per token" in line for line in quality.lines(result))


def test_the_command_compares_formats_of_keys_and_values(tmp_path, capsys):
    from tenth.cli.main import main

    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 40)
    model = str(DATA / "golden_chat.gguf")
    assert main(["bench", model, "--kv", "f32", "--quality", str(text), "--quality-tokens", "20", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["quality"]["n_predictions"] == 20
    assert 0 <= result["quality"]["mean_kl"] < 1e-2
    assert result["changed"]["settings"]["kv_format"] == "f32"
    assert main(["bench", model, "--quality", str(text), "--quality-tokens", "20"]) != 0
    assert "change nothing" in capsys.readouterr().err
    assert main(["bench", model, "--kv", "f32", "--quality", str(text), "--quality-tokens", "100000"]) != 0
    assert "tokens" in capsys.readouterr().err
