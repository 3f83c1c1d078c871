"""How much is kept of one key or account: one more is refused with a 507 that says so, until something is deleted."""

import httpx2
import pytest

from tenth.server import files
from tenth.server.keys import Keys
from tenth.server.state import State

from .running import TINY, Held, Running, wait_until
from .test_batches import jsonl, lines


@pytest.fixture
def place(tmp_path):
    """A server that keeps two of everything, and two keys' clients."""
    state = State(tmp_path / "state.db")
    secrets = [Keys(state).new(name, ("infer",)) for name in ("one", "two")]
    state.close()
    with Running({"tiny": TINY}, tmp_path, most_kept=2) as running:
        clients = [httpx2.Client(base_url=running.url, headers={"x-api-key": secret}, timeout=60, trust_env=False)
                   for secret in secrets]
        yield running, *clients
        for client in clients:
            client.close()


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/responses", {"model": "tiny", "input": "Hi", "max_output_tokens": 1}), ("/api/chats", {})])
def test_of_one_owner_s_things_so_many_are_kept(place, path, body):
    _, one, two = place
    first = one.post(path, json=body).json()["id"]
    one.post(path, json=body).raise_for_status()
    refused = one.post(path, json=body)
    assert refused.status_code == 507
    assert "no more are kept for one key or account" in refused.text
    assert "--most-kept" in refused.text
    two.post(path, json=body).raise_for_status()
    one.delete(f"{path}/{first}").raise_for_status()
    one.post(path, json=body).raise_for_status()


def test_a_response_that_is_not_stored_needs_no_room(place):
    _, one, _ = place
    body = {"model": "tiny", "input": "Hi", "max_output_tokens": 1}
    for store in (True, True, False):
        one.post("/v1/responses", json=body | {"store": store}).raise_for_status()


def test_batches_are_kept_until_they_are_deleted_and_only_so_many_are_at_work(place, monkeypatch):
    running, one, _ = place

    def batch():
        file = one.post("/v1/files", files={"file": ("x", jsonl(lines(2)))}, data={"purpose": "batch"}).json()["id"]
        return one.post("/v1/batches", json={"input_file_id": file, "endpoint": "/v1/chat/completions",
                                             "completion_window": "24h"})

    one.post("/v1/completions", json={"model": "tiny", "prompt": "a", "max_tokens": 1}).raise_for_status()
    with Held(running.served.model):
        first = batch().json()["id"]
        assert one.delete(f"/v1/batches/{first}").status_code == 409
    wait_until(lambda: one.get(f"/v1/batches/{first}").json()["status"] == "completed")
    told = one.get(f"/v1/batches/{first}").json()
    assert told["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    kept = running.app.state.query("SELECT body, answer FROM batch_lines WHERE batch = ?", first)
    assert [tuple(row) for row in kept] == [("", "")] * 2  # both are in the files
    assert batch().status_code == 507
    assert one.delete(f"/v1/batches/{first}").json() == {"id": first, "object": "batch", "deleted": True}
    assert one.get(f"/v1/batches/{first}").status_code == 404
    assert len(one.get(f"/v1/files/{told['output_file_id']}/content").text.splitlines()) == 2
    monkeypatch.setattr(files, "MOST_AT_WORK", 0)
    refused = batch()
    assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
