"""What somebody else made is a 404, on every route whose address names a thing, and no route tells a word of it.

Routes come from the server's own document, so that none can be forgotten. Who asks: another key, and another account.
"""

import json
import time

import pytest

from tenth.server.accounts import Accounts
from tenth.server.keys import Keys
from tenth.server.state import State

from .running import TINY, Running

MARK = "xylophon"  # in everything that is mine
HI = [{"role": "user", "content": MARK}]
LINE = json.dumps({"custom_id": MARK, "method": "POST", "url": "/v1/completions",
                   "body": {"model": "tiny", "prompt": MARK, "max_tokens": 1}}).encode()
SMALL = {"model": "tiny", "max_tokens": 1}
# Bodies of the routes that need one, by the end of their path; the first that fits. Others get {}.
BODIES = {
    "/{chat_id}/messages": {"content": "x"}, "/regenerate": {}, "/api/folders/{id}": {"name": "x"},
    "/api/presets/{id}": {"name": "x"}, "/api/chats/{chat_id}": {"title": "x"}, "{message_id}": {"rating": 1},
    "/v1/chat/completions": SMALL | {"messages": [{"role": "user", "content": "a"}]},
    "/v1/messages": SMALL | {"messages": [{"role": "user", "content": "a"}]},
    "/v1/completions": SMALL | {"prompt": "a"},
    "/v1/responses": {"model": "tiny", "input": "a", "max_output_tokens": 1},
    "/api/chat": {"model": "tiny", "messages": [], "stream": False},
    "/api/generate": {"model": "tiny", "prompt": "a", "stream": False, "options": {"num_predict": 1}},
    "/api/folders": {"name": "y"}, "/api/presets": {"name": "y"}, "/api/attachments": {"name": "y", "text": "y"},
    "/api/price": {"in_per_million": 1, "out_per_million": 2, "currency": "X"}, "/tokenize": {"content": "a"},
    "/detokenize": {"tokens": [1]}, "/api/show": {"model": "tiny"},
}
QUERIES = {"/api/search": {"q": MARK, "limit": 200}}
EVERYBODY_S = {"/v1/models/{name}"}
NOT_MINE = {"/api/users/{id}", "/api/library/{name}"}  # for those who may keep accounts and models: a 403


@pytest.fixture(scope="module", params=["keys", "accounts"])
def place(request, tmp_path_factory):
    """(server, my headers, another's headers)."""
    folder = tmp_path_factory.mktemp("state")
    state = State(folder / "state.db")
    if request.param == "keys":
        who = [{"x-api-key": Keys(state).new(name, ("infer",))} for name in ("mine", "other")]
        state.close()
        with Running({"tiny": TINY}, folder) as running:
            yield running, *who
        return
    accounts = Accounts(state)
    for name, role in (("root", "admin"), ("mine", "member"), ("other", "member")):
        accounts.new(name, "a password of " + name, role)
    state.close()
    with Running({"tiny": TINY}, folder) as running:
        who = []
        for name in ("mine", "other"):
            came = running.post("/api/session", {"name": name, "password": "a password of " + name})
            running.http.cookies.clear()
            who.append({"cookie": came.headers["set-cookie"].partition(";")[0], "origin": running.url})
        yield running, *who


def made(running, headers):
    """New things of an owner, by the address's parameter and what stands before it."""
    def post(path, body=None, **how):
        answer = running.http.post(path, headers=headers, **({"json": body} if body is not None else how))
        assert answer.status_code in (200, 201), answer.text
        return answer

    file = post("/v1/files", files={"file": (MARK, LINE)}, data={"purpose": "batch"}).json()["id"]
    stream = running.http.post("/v1/chat/completions", headers=headers | {"x-tenth-resumable": "1"}, json={
        "model": "tiny", "messages": HI, "max_tokens": 1, "stream": True}).headers["x-tenth-stream"]
    chat = post("/api/chats", {"title": MARK, "model": "tiny", "settings": {"max_tokens": 1, "system": MARK}}).json()[
        "id"]
    said = post(f"/api/chats/{chat}/messages", {"content": MARK}).json()
    running.http.put("/api/price", headers=headers, json={"in_per_million": 1, "out_per_million": 2,
                                                          "currency": MARK[:8]})
    return {
        "response_id": post("/v1/responses", {"model": "tiny", "input": MARK, "max_output_tokens": 1}).json()["id"],
        "file_id": file, "stream_id": stream, "chat_id": chat, "message_id": said["answer"]["id"],
        "batch_id": post("/v1/batches", {"input_file_id": file, "endpoint": "/v1/completions",
                                         "completion_window": "24h"}).json()["id"],
        "/api/attachments/id": post("/api/attachments", {"name": MARK, "text": MARK}).json()["id"],
        "/api/folders/id": post("/api/folders", {"name": MARK}).json()["id"],
        "/api/presets/id": post("/api/presets", {"name": MARK}).json()["id"],
    }


def routes_of(running, headers):
    """(method, path of the document) of every route."""
    paths = running.get("/openapi.json", headers=headers).json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def filled(path, ids):
    """The path with ids. A parameter that is not in the table fails the test."""
    parts = path.split("/")
    for i, part in enumerate(parts):
        if part.startswith("{"):
            name = part.strip("{}")
            parts[i] = ids[name] if name in ids else ids["/".join([*parts[:i], name])]
    return "/".join(parts)


def ask(running, method, path, ids, headers):
    """The status and text of an answer; of one without an end what comes first."""
    body = next((body for end, body in BODIES.items() if path.endswith(end)), {})
    how = {"json": body} if method in ("POST", "PATCH", "PUT") else {"params": QUERIES.get(path)}
    with running.http.stream(method, filled(path, ids), headers=headers, **how) as answer:
        text = next(answer.iter_text()) if path == "/api/events" else answer.read().decode(errors="replace")
    return answer.status_code, text


def test_another_s_things_are_a_404_on_every_route_that_names_one(place):
    running, mine, other = place
    ids = made(running, mine)
    routes = [route for route in routes_of(running, mine) if "{" in route[1] and route[1] not in NOT_MINE | EVERYBODY_S]
    assert len(routes) > 15
    for method, path in routes:
        assert ask(running, method, path, ids, other)[0] == 404, (method, path)
    for method, path in sorted(routes, key=lambda route: route[0] == "DELETE"):  # it is there, for its owner
        fresh = made(running, mine) if method == "DELETE" else ids
        assert ask(running, method, path, fresh, mine)[0] != 404, (method, path)


def test_no_route_tells_another_or_takes_from_another_a_word_of_it(place):
    running, mine, other = place
    ids = made(running, mine) | dict.fromkeys(("name", "/api/users/id"), "tiny")

    def what_i_have():
        return [running.get(path, headers=mine).text for path in (
            "/api/chats", "/api/folders", "/api/presets", f"/v1/files/{ids['file_id']}/content",
            f"/api/attachments/{ids['/api/attachments/id']}/text", f"/api/chats/{ids['chat_id']}",
            f"/v1/responses/{ids['response_id']}")]

    while running.app.chats.answering.live:  # until all of it is as it stays
        time.sleep(0.01)
    before = what_i_have()
    assert json.dumps(before).count(MARK) > 8
    for method, path in routes_of(running, mine):
        if (method, path) == ("DELETE", "/api/session"):
            continue  # the other would be nobody from here on
        status, text = ask(running, method, path, ids, other)
        assert MARK not in text, (method, path)
        assert status < 500, (method, path, text)
    assert what_i_have() == before
    for path in ("/api/search", "/api/export", "/api/chats"):  # and I am told it
        assert MARK in running.get(path, headers=mine, params={"q": MARK} if "search" in path else None).text, path


def test_accounts_and_models_are_for_those_who_may_keep_them(place):
    running, mine, _ = place
    for method, path in (("GET", "/api/users"), ("POST", "/api/users"), ("PATCH", "/api/users/local"),
                         ("DELETE", "/api/users/local"), ("DELETE", "/api/library/tiny"), ("POST", "/api/library/pull"),
                         ("POST", "/api/library/cancel"), ("POST", "/api/pull"), ("GET", "/metrics")):
        answer = running.http.request(method, path, headers=mine, **({"json": {}} if method != "GET" else {}))
        assert answer.status_code == 403, (method, path)


def test_lists_have_one_s_own_things_only(place):
    running, mine, other = place
    ids = made(running, mine)
    for path, id in (("/v1/files", "file_id"), ("/v1/batches", "batch_id"), ("/api/chats", "chat_id"),
                     ("/api/folders", "/api/folders/id"), ("/api/presets", "/api/presets/id")):
        assert ids[id] in running.get(path, headers=mine).text, path
        assert ids[id] not in running.get(path, headers=other).text, path


def test_names_in_bodies_and_queries_are_looked_up_for_their_owner_too(place):
    running, mine, other = place
    ids, own = made(running, mine), made(running, other)
    chat, message = f"/api/chats/{own['chat_id']}", f"/messages/{ids['message_id']}"
    for method, path, body in (
            ("POST", "/v1/responses", {"model": "tiny", "input": "Hi", "previous_response_id": ids["response_id"]}),
            ("POST", "/v1/batches", {"input_file_id": ids["file_id"], "endpoint": "/v1/completions",
                                     "completion_window": "24h"}),
            ("POST", "/v1/chat/completions/control", {"id": ids["response_id"], "action": "reasoning_end"}),
            ("POST", "/api/chats", {"model": "tiny", "folder_id": ids["/api/folders/id"]}),
            ("PATCH", chat, {"folder_id": ids["/api/folders/id"]}), ("PATCH", chat, {"current_id": ids["message_id"]}),
            ("POST", f"{chat}/messages", {"content": "x", "parent_id": ids["message_id"]}),
            ("POST", f"{chat}/messages", {"content": "x", "attachment_ids": [ids["/api/attachments/id"]]}),
            ("GET", f"/api/export?chat_id={ids['chat_id']}", None),
            # another's message in one's own chat
            ("GET", f"{chat}{message}/tokens", None), ("PATCH", chat + message, {"rating": 1}),
            ("DELETE", chat + message, None), *(("POST", f"{chat}{message}/{what}", {}) for what in (
                "regenerate", "continue", "stop", "end-thinking"))):
        answer = running.http.request(method, path, headers=other, **({"json": body} if body is not None else {}))
        assert answer.status_code == 404, (method, path, answer.text)
    listed = running.get("/api/chats", headers=other, params={"folder_id": ids["/api/folders/id"]})
    assert listed.json()["chats"] == []
