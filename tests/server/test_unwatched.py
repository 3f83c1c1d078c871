"""Work that nobody waits for: batches and background responses go on after trouble, and hold up no one else."""

import asyncio

import httpx2
import pytest

import tenth
from tenth.errors import ResourceError
from tenth.server.dialects import openai_batches
from tenth.server.keys import Keys
from tenth.server.responses import Responses, Stored
from tenth.server.shelf import Shelf
from tenth.server.state import State

from .running import DEADLINE_S, TINY, Held, Running, wait_until
from .test_batches import jsonl, lines

HOW = {"model": "tiny", "input": "Hi", "max_output_tokens": 3}


def batch(http, n=1, **fields):
    """The id of a batch of n lines."""
    file = http.post("/v1/files", files={"file": ("in.jsonl", jsonl(lines(n, **fields)))}, data={"purpose": "batch"})
    asked = {"input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return http.post("/v1/batches", json=asked).json()["id"]


def status(http, id):
    return http.get(f"/v1/batches/{id}").json()["status"]


def test_a_batch_whose_model_cannot_be_opened_has_failed_lines(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(TINY.read_bytes()[:1000])
    with Running({"tiny": TINY, "broken": broken}, tmp_path) as running:
        bad, good = batch(running.http, 2, model="broken"), batch(running.http)
        wait_until(lambda: status(running.http, good) == "completed")
        told = running.get(f"/v1/batches/{bad}").json()
        assert (told["status"], told["request_counts"]["failed"]) == ("completed", 2)
        assert "cannot be loaded" in running.get(f"/v1/files/{told['error_file_id']}/content").text


def test_a_batch_that_waits_for_memory_holds_up_no_other_owner_and_can_be_cancelled(tmp_path):
    state = State(tmp_path / "state.db")
    keys = [Keys(state).new(name, ("infer",)) for name in ("one", "two")]
    state.close()
    with Running({"tiny": TINY, "large": TINY}, tmp_path) as running:
        load = running.app.shelf._load
        running.app.shelf.models["large"].source = "large"

        def short_of_memory(source):
            if source == "large":
                raise ResourceError("this model needs more memory than there is")
            return load(source)

        running.app.shelf._load = short_of_memory
        one, two = (httpx2.Client(base_url=running.url, trust_env=False, timeout=DEADLINE_S, headers={"x-api-key": key})
                    for key in keys)
        with one, two:
            waiting, behind = batch(one, model="large"), batch(one)
            other = batch(two)
            wait_until(lambda: status(two, other) == "completed")
            assert (status(one, waiting), status(one, behind)) == ("in_progress", "in_progress")
            one.post(f"/v1/batches/{waiting}/cancel", json={})
            wait_until(lambda: status(one, behind) == "completed")
            assert status(one, waiting) == "cancelled"


def test_background_responses_wait_for_room_after_a_start(tmp_path):
    """What was accepted is not refused later because more of it comes at once than may wait."""
    with Running({"tiny": TINY}, tmp_path, {"max_sequences": 1}, waiting=4, grace=0.0) as running, Held(
            running.opened()) as held:
        told = [running.post("/v1/responses", HOW | {"background": True}) for _ in range(5)]
        assert {answer.status_code for answer in told} == {200}
        held.wait()
        running.server.should_exit = True
        wait_until(lambda: running.app.service.is_closing)
        held.go.set()
        running.thread.join(DEADLINE_S)
    ids = [answer.json()["id"] for answer in told]
    with Running({"tiny": TINY}, tmp_path, {"max_sequences": 1}, waiting=1) as running:
        def statuses():
            return {running.get(f"/v1/responses/{id}").json()["status"] for id in ids}

        wait_until(lambda: not statuses() & {"queued", "in_progress"})
        assert statuses() <= {"completed", "incomplete"}


@pytest.mark.parametrize("background", [True, False])
def test_a_request_stored_by_another_version_does_not_keep_the_server_from_starting(tmp_path, background):
    state = State(tmp_path / "state.db")
    Responses(state).add(Stored("resp_1", "local", None, "queued", HOW | {"background": background, "of_old": 1}, [],
                                {"id": "resp_1", "status": "queued", "created_at": 5}))
    state.close()
    with Running({"tiny": TINY}, tmp_path) as running:
        told = running.get("/v1/responses/resp_1").json()
        assert told["status"] == "failed"
        assert "of_old" in told["error"]["message"]
        assert running.get("/v1/responses/resp_1/input_items").status_code == 409


def test_what_runs_beside_the_requests_begins_again_where_it_fails(tmp_path, monkeypatch, caplog):
    def look():
        monkeypatch.undo()
        raise OSError("once")

    with Running({"tiny": TINY}, tmp_path) as running:
        monkeypatch.setattr(running.app.chats.watching, "look", look)
        wait_until(lambda: "begins again" in caplog.text)
        seen = []
        monkeypatch.setattr(running.app.chats.watching, "look", lambda: seen.append(1))
        wait_until(lambda: seen)


def test_models_come_and_go_while_others_go_through_them():
    names = ["a", "b"]
    shelf = Shelf([], tenth.load, waiting=1, stock=lambda: names)
    shelf.refresh()
    for served in shelf.models.values():
        names.append(served.name * 2)
        shelf.refresh()
    assert sorted(shelf.models) == ["a", "aa", "b", "bb"]
    names.clear()
    shelf.refresh()
    assert not shelf.models


def test_a_model_that_leaves_the_library_while_it_is_borrowed_is_used_and_closed():
    names = ["tiny"]
    shelf = Shelf([], lambda source: tenth.load(TINY, threads=1), waiting=1, stock=lambda: names)
    find = shelf.find

    def found_and_left_out(name):
        served = find(name)
        names.clear()
        shelf.refresh()  # as a thread may at that moment
        return served

    async def use():
        shelf.find = found_and_left_out
        async with shelf.borrow("tiny") as borrowed:
            assert borrowed.model.tokenize("Hi")
        served = shelf.models["tiny"]
        await shelf.close()
        assert served.model is None

    asyncio.run(use())


def test_no_line_of_a_batch_that_cannot_go_on_stays_at_work(tmp_path, monkeypatch, caplog):
    def fails(*line):
        raise ValueError("unforeseen")

    with Running({"tiny": TINY}, tmp_path) as running, Held(running.opened()) as held:
        monkeypatch.setattr(running.app.batches, "answer", fails)
        asked = [*lines(1), {**lines(2)[1], "body": {"nonsense": 1}}]
        answered = openai_batches.Worker._line

        async def one_behind_the_other(self, id, owner, endpoint, n, value):
            if n:
                await asyncio.to_thread(held.wait)  # the first line is at work
            await answered(self, id, owner, endpoint, n, value)

        monkeypatch.setattr(openai_batches.Worker, "_line", one_behind_the_other)
        file = running.http.post("/v1/files", files={"file": ("in.jsonl", jsonl(asked))}, data={"purpose": "batch"})
        running.post("/v1/batches", {"input_file_id": file.json()["id"], "completion_window": "24h",
                                     "endpoint": "/v1/chat/completions"})
        wait_until(lambda: "a batch cannot go on" in caplog.text)
        assert running.gate().n_at_work == 0


def test_a_state_that_was_closed_forgets_nothing(tmp_path):
    state = State(tmp_path / "state.db")
    state.close()
    assert not state.engine.forget()
