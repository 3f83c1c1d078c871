"""tenth plan: what it says of files here, of headers elsewhere, and of what does not fit."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tenth.cli import plan
from tests.forecast.machines import machine
from tests.library.library_kit import FileServer
from tests.runtime.native import DATA

MOE = DATA / "golden_moe_quantised.gguf"


@pytest.fixture(autouse=True)
def probe(monkeypatch):
    monkeypatch.setattr(plan, "probed", lambda *_: machine())
    monkeypatch.delenv("TENTH_MEMORY", raising=False)


def test_a_file_is_planned_in_words(tenth):
    result = tenth("plan", MOE, "--context", "128", "--memory", "8GB")
    assert (result.code, result.err) == (0, "")
    for words in ("budget 8 GB (--memory)", "weights always in memory", "for 128 tokens", "all in memory",
                  "first token", "bound by", "generation", "quantisations", "best here"):
        assert words in result.out


def test_a_file_is_planned_as_json(tenth):
    data = json.loads(tenth("plan", MOE, "--prompt-tokens", "16", "--json").out)
    assert data["fits"] is True
    assert data["prompt"]["n_tokens"] == 16
    assert data["generation"]["low"] < data["generation"]["tokens_per_second"] < data["generation"]["high"]
    assert data["placement"]["trunk_bytes"] > 0
    assert data["quantisations"][0]["name"] == "this file"
    assert sum(choice["best"] for choice in data["quantisations"]) == 1


def test_what_does_not_fit_says_so_and_gives_4(tenth):
    result = tenth("plan", MOE, "--memory", "1MB", "--json")
    assert result.code == 4
    data = json.loads(result.out)
    assert data["fits"] is False
    assert "at least" in data["error"]
    assert "--memory" in data["hint"]
    assert "at least" in result.err
    assert "does not fit" in tenth("plan", MOE, "--memory", "1MB").out


def test_a_picture_is_written(tenth, tmp_path):
    assert tenth("plan", MOE, "--plot", tmp_path / "p.svg").code == 0
    assert (tmp_path / "p.svg").read_text().startswith("<svg")
    assert tenth("plan", MOE, "--plot", tmp_path / "p.gif").code == 2
    assert tenth("plan", MOE, "--plot", tmp_path / "no" / "p.svg").code == 2


@pytest.mark.parametrize("ranges", [True, False])
def test_a_header_elsewhere_is_planned_without_its_weights(tenth, monkeypatch, ranges):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FileServer(DATA) as server:
        server.ranges = ranges
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            there = json.loads(tenth("plan", server.url(MOE.name), "--json").out)
        finally:
            server.shutdown()
            thread.join()
    here = json.loads(tenth("plan", MOE, "--json").out)
    assert there["per_token"] == here["per_token"]
    assert there["resident_bytes"] == here["resident_bytes"]


def test_a_catalogue_model_that_is_not_here_says_how_to_get_it(tenth):
    result = tenth("plan", "smollm2:135m")
    assert result.code == 2
    assert "tenth pull smollm2:135m" in result.err


def test_what_is_no_model_is_told(tenth, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"nothing")
    assert tenth("plan", tmp_path / "m.gguf").code == 3
    assert tenth("plan", Path("/no/such.gguf")).code == 2


def test_inspect_prints_the_placement(tenth):
    placed = json.loads(tenth("inspect", MOE, "--memory", "8GB", "--json").out)["placement"]
    assert placed["budget_bytes"] == 8 * 10**9
    assert placed["streams"] is False
    shown = next(line for line in tenth("inspect", MOE, "--memory", "8GB").out.splitlines() if "placement" in line)
    assert "budget 8 GB" in shown
    assert "all in memory" in shown
    assert "False" not in shown
    assert "{}" not in shown
    refused = json.loads(tenth("inspect", MOE, "--memory", "1MB", "--json").out)["placement"]
    assert "at least" in refused["does_not_fit"]
