"""What somebody else made is a 404, on every route whose address names a thing: none can be forgotten here."""

import json

import pytest

from tenth.server.keys import Keys
from tenth.server.state import State

from .running import TINY, Running

HI = [{"role": "user", "content": "Hi"}]
LINE = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/completions",
                   "body": {"model": "tiny", "prompt": "a", "max_tokens": 1}}).encode()
# Bodies of the routes that need one, by the end of their path.
BODIES = {"/messages": {"content": "x"}, "/regenerate": {}, "/api/folders/{id}": {"name": "x"},
          "/api/presets/{id}": {"name": "x"}, "/api/chats/{chat_id}": {"title": "x"}, "{message_id}": {"rating": 1}}
NOT_OWNED = {"/v1/models/{name}", "/api/library/{name}",  # everybody's
             "/api/users/{id}"}  # of those who may keep accounts: a 403


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(server, my headers, another's headers)."""
    folder = tmp_path_factory.mktemp("state")
    state = State(folder / "state.db")
    mine, other = Keys(state).new("mine", ("infer",)), Keys(state).new("other", ("infer",))
    state.close()
    with Running({"tiny": TINY}, folder) as running:
        yield running, {"x-api-key": mine}, {"x-api-key": other}


def made(running, headers):
    """New things of an owner, by the address's parameter and what stands before it."""
    def post(path, body=None, **how):
        answer = running.http.post(path, headers=headers, **({"json": body} if body is not None else how))
        assert answer.status_code in (200, 201), answer.text
        return answer

    file = post("/v1/files", files={"file": ("x", LINE)}, data={"purpose": "batch"}).json()["id"]
    stream = running.http.post("/v1/chat/completions", headers=headers | {"x-tenth-resumable": "1"}, json={
        "model": "tiny", "messages": HI, "max_tokens": 1, "stream": True}).headers["x-tenth-stream"]
    chat = post("/api/chats", {"model": "tiny", "settings": {"max_tokens": 1}}).json()["id"]
    said = post(f"/api/chats/{chat}/messages", {"content": "Hi", "settings": {"max_tokens": 1}}).json()
    return {
        "response_id": post("/v1/responses", {"model": "tiny", "input": "Hi", "max_output_tokens": 1}).json()["id"],
        "file_id": file, "stream_id": stream, "chat_id": chat, "message_id": said["answer"]["id"],
        "batch_id": post("/v1/batches", {"input_file_id": file, "endpoint": "/v1/completions",
                                         "completion_window": "24h"}).json()["id"],
        "/api/attachments/id": post("/api/attachments", {"name": "x", "text": "x"}).json()["id"],
        "/api/folders/id": post("/api/folders", {"name": "x"}).json()["id"],
        "/api/presets/id": post("/api/presets", {"name": "x"}).json()["id"],
    }


def addressed(running, headers):
    """(method, path of the document) of every route whose address names a thing."""
    paths = running.get("/openapi.json", headers=headers).json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() if "{" in path for method in methods]


def filled(path, ids):
    """The path with ids. A parameter that is not in the table fails the test."""
    parts = path.split("/")
    for i, part in enumerate(parts):
        if part.startswith("{"):
            name = part.strip("{}")
            parts[i] = ids[name] if name in ids else ids["/".join([*parts[:i], name])]
    return "/".join(parts)


def ask(running, method, path, ids, headers):
    body = next((body for end, body in BODIES.items() if path.endswith(end)), {})
    return running.http.request(method, filled(path, ids), headers=headers, **(
        {"json": body} if method in ("POST", "PATCH", "PUT") else {}))


def test_another_s_things_are_a_404_on_every_route_that_names_one(place):
    running, mine, other = place
    ids = made(running, mine)
    routes = [(method, path) for method, path in addressed(running, mine) if path not in NOT_OWNED]
    assert len(routes) > 15
    for method, path in routes:
        assert ask(running, method, path, ids, other).status_code == 404, (method, path)
    for method, path in sorted(routes, key=lambda route: route[0] == "DELETE"):  # it is there, for its owner
        fresh = made(running, mine) if method == "DELETE" else ids
        assert ask(running, method, path, fresh, mine).status_code != 404, (method, path)


def test_accounts_are_for_keys_that_may_keep_them(place):
    running, mine, _ = place
    for method in ("PATCH", "DELETE"):
        assert running.http.request(method, "/api/users/user_1", headers=mine, json={}).status_code == 403


def test_lists_have_one_s_own_things_only(place):
    running, mine, other = place
    ids = made(running, mine)
    for path, id in (("/v1/files", "file_id"), ("/v1/batches", "batch_id"), ("/api/chats", "chat_id"),
                     ("/api/folders", "/api/folders/id"), ("/api/presets", "/api/presets/id")):
        assert ids[id] in running.get(path, headers=mine).text, path
        assert ids[id] not in running.get(path, headers=other).text, path


def test_names_in_bodies_are_looked_up_for_their_owner_too(place):
    running, mine, other = place
    ids = made(running, mine)
    for path, body in (
            ("/v1/responses", {"model": "tiny", "input": "Hi", "previous_response_id": ids["response_id"]}),
            ("/v1/batches", {"input_file_id": ids["file_id"], "endpoint": "/v1/completions",
                             "completion_window": "24h"}),
            ("/v1/chat/completions/control", {"id": ids["response_id"], "action": "reasoning_end"}),
            ("/api/chats", {"model": "tiny", "folder_id": ids["/api/folders/id"]})):
        answer = running.http.post(path, headers=other, json=body)
        assert answer.status_code == 404, (path, answer.text)
