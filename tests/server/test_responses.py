"""OpenAI's responses: stored, gone on from, cancelled, made in the background, and nobody else's."""

import asyncio
import hashlib
import json
import sqlite3
from contextlib import closing

import openai
import pytest

from tenth.server.failures import Refused
from tenth.server.keys import Keys, hash_of
from tenth.server.responses import Responses, Stored
from tenth.server.state import STEPS, State

from .running import TINY, Held, Running, events, wait_until

HOW = {"model": "tiny", "temperature": 0.0, "max_output_tokens": 10}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_response_is_stored_and_gone_on_from(client, tiny):
    first = client.responses.create(input="Hi", **HOW)
    said = tiny.chat([{"role": "user", "content": "Hi"}], temperature=0.0, max_tokens=10)
    assert (first.output_text, first.status) == (said.text, "incomplete")
    assert first.usage.output_tokens == 10
    assert client.responses.retrieve(first.id).output_text == first.output_text
    second = client.responses.create(input="And?", previous_response_id=first.id, instructions="Be brief.", **HOW)
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": said.text}, {"role": "user", "content": "And?"}]
    assert second.output_text == tiny.chat(conversation, temperature=0.0, max_tokens=10).text
    assert [item.role for item in client.responses.input_items.list(second.id)] == ["user"]
    items = client.responses.create(input=[{"role": "user", "content": text} for text in "abc"], **HOW)
    for order, texts in (("asc", "abc"), ("desc", "cba")):
        listed = client.responses.input_items.list(items.id, order=order, limit=2)  # the client turns the page
        assert "".join(item.content[0].text for item in listed) == texts
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(input="?", previous_response_id=second.id, **HOW)


def test_a_streamed_response_has_the_official_events(client):
    whole = client.responses.create(input="Hi", store=False, **HOW)
    with client.responses.stream(input="Hi", **HOW) as stream:
        found = list(stream)
    names, final = [event.type for event in found], found[-1].response
    assert final.output_text == whole.output_text
    assert names[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]
    assert names[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                          "response.incomplete"]
    assert client.responses.retrieve(final.id).output_text == whole.output_text
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(whole.id)


def test_reasoning_has_its_item_and_goes_back_in(tmp_path):
    from .test_anthropic_ollama import THINKS

    with Running({"tiny": TINY}, tmp_path, {"template": THINKS}) as running:
        body = HOW | {"input": "Hi", "thinking_budget": 4, "max_output_tokens": 40}
        whole = running.post("/v1/responses", body).json()
        assert [item["type"] for item in whole["output"]] == ["reasoning", "message"]
        assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] == 4
        names = [name for name, _ in events(running.post("/v1/responses", body | {"stream": True}).text)]
        assert names.count("response.output_item.added") == 2
        assert "response.reasoning_text.delta" in names
        again = running.post("/v1/responses", HOW | {"input": [*whole["output"], {"role": "user", "content": "?"}]})
        assert again.status_code == 200


def test_a_background_response_is_made_and_can_be_cancelled(client):
    made = client.responses.create(input="Hi", background=True, **HOW)
    assert made.status == "queued"
    wait_until(lambda: client.responses.retrieve(made.id).status == "incomplete")
    assert client.responses.retrieve(made.id).output_text
    assert client.responses.cancel(made.id).status == "incomplete"
    long = client.responses.create(**(HOW | {"input": "Hi", "background": True, "max_output_tokens": 200,
                                             "extra_body": {"ignore_eos": True}}))
    assert client.responses.cancel(long.id).status in ("cancelled", "incomplete")


def test_a_background_response_is_in_progress_when_its_turn_has_come(tmp_path):
    with Running({"tiny": TINY}, tmp_path, {"max_sequences": 1}) as running, Held(running.opened()) as held:
        first, second = (running.post("/v1/responses", HOW | {"input": "Hi", "background": True}).json()["id"]
                         for _ in range(2))

        def statuses():
            return [running.get(f"/v1/responses/{id}").json()["status"] for id in (first, second)]

        held.wait()
        assert statuses() == ["in_progress", "queued"]
        held.go.set()
        wait_until(lambda: statuses() == ["incomplete"] * 2)


def test_a_background_response_is_made_after_a_stop(tmp_path):
    state = State(tmp_path / "state.db")
    request = HOW | {"input": "Hi", "background": True}
    turn = [{"role": "user", "content": "Hi"}]
    old = {"id": "resp_1", "created_at": 5, "background": True, "status": "in_progress"}
    Responses(state).add(Stored("resp_1", "local", None, "in_progress", request, turn, old))
    Responses(state).add(Stored("resp_2", "local", None, "in_progress", request | {"background": False}, turn,
                                old | {"id": "resp_2", "background": False}))
    state.close()
    with Running({"tiny": TINY}, tmp_path) as running:
        wait_until(lambda: running.get("/v1/responses/resp_1").json()["status"] == "incomplete")
        assert running.get("/v1/responses/resp_2").json()["status"] == "failed"


def test_a_response_whose_reader_goes_is_stored_as_cancelled(server):
    body = HOW | {"input": "Hi", "stream": True, "max_output_tokens": 200, "ignore_eos": True}
    with Held(server.opened(), after=8) as held:  # so that it has not come to its end before
        with server.http.stream("POST", "/v1/responses", json=body) as answer:
            lines = answer.iter_lines()  # kept: a generator that is dropped closes the stream
            found = next(line for line in lines if line.startswith("data: "))
            held.wait()
        wait_until(lambda: not server.gate().n_at_work)
        held.go.set()
    id = json.loads(found.removeprefix("data: "))["response"]["id"]
    wait_until(lambda: server.get(f"/v1/responses/{id}").json()["status"] != "in_progress")
    assert server.get(f"/v1/responses/{id}").json()["status"] == "cancelled"


def test_another_owner_s_response_is_a_404_on_every_route(tmp_path):
    state = State(tmp_path / "state.db")
    mine, other = Keys(state).new("mine", ("infer",)), Keys(state).new("other", ("infer",))
    state.close()
    with Running({"tiny": TINY}, tmp_path) as running:
        def ask(key, method, path, body=None):
            return running.http.request(method, path, json=body, headers={"x-api-key": key,
                                                                          "content-type": "application/json"})

        id = ask(mine, "POST", "/v1/responses", HOW | {"input": "Hi"}).json()["id"]
        stream = running.http.post("/v1/chat/completions", json={
            "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "max_tokens": 2},
            headers={"x-api-key": mine, "x-tenth-resumable": "1"}).headers["x-tenth-stream"]
        for key, status in ((other, 404), (mine, 200)):
            assert ask(key, "GET", f"/v1/responses/{id}").status_code == status
            assert ask(key, "GET", f"/v1/responses/{id}/input_items").status_code == status
            assert ask(key, "GET", f"/v1/streams/{stream}").status_code == status
            assert ask(key, "POST", f"/v1/responses/{id}/cancel").status_code == (404 if status == 404 else 400)
            next_turn = HOW | {"input": "?", "previous_response_id": id}
            assert ask(key, "POST", "/v1/responses", next_turn).status_code == status
            assert ask(key, "DELETE", f"/v1/responses/{id}").status_code == status


def test_a_full_disk_is_a_507_and_leaves_the_state_whole(tmp_path):
    state = State(tmp_path / "state.db")
    responses = Responses(state)
    responses.add(Stored("resp_1", "local", None, "completed", {}, [], {"id": "resp_1"}))
    (pages,) = state.query("PRAGMA page_count")[0]
    with state.transaction() as db:
        db.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(Refused) as caught:
        responses.add(Stored("resp_2", "local", None, "completed", {}, [], {"text": "x" * 100_000}))
    assert caught.value.status == 507
    assert responses.get("resp_1", "local").body == {"id": "resp_1"}
    with pytest.raises(Refused):
        responses.get("resp_2", "local")
    assert state.query("PRAGMA integrity_check")[0][0] == "ok"
    state.close()


def test_a_file_of_a_newer_tenth_is_refused(tmp_path):
    from tenth.errors import ResourceError

    state = State(tmp_path / "state.db")
    with state.transaction() as db:
        db.execute("PRAGMA user_version = 1000")
    state.close()
    with pytest.raises(ResourceError, match="newer"):
        State(tmp_path / "state.db")


def test_the_async_client_too(server):
    async def ask():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            return await client.responses.create(input=[{"role": "user", "content": [
                {"type": "input_text", "text": "Hi"}]}], **HOW)

    assert asyncio.run(ask()).output_text


# Digests of the steps that made somebody's tables. A file that has done them never does them again, so what is to be
# different goes into a new step at the end; its digest is added here.
DONE_STEPS = (
    "24d643bb339b", "10d020e04212", "eb671bab3dd4", "351be6320919", "dd744fd45115",
    "92dd6497d039", "e8551f338b93", "a6834f46bef2", "6fea464b67dc", "9affed8895e4",
)  # fmt: skip


def test_a_step_that_made_tables_somewhere_is_never_changed():
    assert tuple(hashlib.sha256(repr(step).encode()).hexdigest()[:12] for step in STEPS) == DONE_STEPS


@pytest.mark.parametrize("n_steps", range(len(STEPS)))
def test_a_file_of_an_older_tenth_is_brought_up_to_date(tmp_path, n_steps):
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as db:
        for step in STEPS[:n_steps]:
            db.executescript(step if isinstance(step, str) else step[0])
        if n_steps >= 1:
            db.execute("INSERT INTO keys (id, name, hash, scopes, created_at) VALUES ('key_1', 'me', ?, 'infer', 1)",
                       (hash_of("secret"),))
        if n_steps >= 2:
            db.execute("INSERT INTO responses VALUES ('resp_1', 'key_1', 1, NULL, 'completed', '{}', '[]', '{}')")
        db.execute(f"PRAGMA user_version = {n_steps}")
        db.commit()
    state = State(path)
    assert state.query("PRAGMA user_version")[0][0] == len(STEPS)
    assert state.query("PRAGMA integrity_check")[0][0] == "ok"
    if n_steps >= 1:
        assert Keys(state).find("secret").caller.owner == "key_1"
    if n_steps >= 2:
        assert Responses(state).get("resp_1", "key_1").body == {}
    state.close()
