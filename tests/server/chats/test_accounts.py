"""Accounts: who comes in, what each may do, and the limits of each."""

import json
import threading
import time
from contextlib import contextmanager

import httpx2
import pytest

from tenth.server.accounts import Accounts
from tenth.server.chats import events
from tenth.server.keys import Keys
from tenth.server.state import State

from ..running import TINY, Held, Running
from .conftest import ended, new_chat, wait_for

ADA, BO = {"name": "ada", "password": "correct horse"}, {"name": "bo", "password": "battery staple"}


@pytest.fixture
def home(tmp_path):
    """A server with an admin, ada, and a member, bo."""
    state = State(tmp_path / "state.db")
    accounts = Accounts(state)
    accounts.new(**ADA, role="admin")
    accounts.new(**BO, requests_per_minute=4, concurrent=2)
    state.close()
    with Running({"tiny": TINY}, tmp_path) as running:
        yield running


@contextmanager
def browser(running, who=None):
    """Somebody's browser, logged in."""
    with httpx2.Client(base_url=running.url, timeout=60, trust_env=False, headers={"origin": running.url}) as client:
        if who is not None:
            assert client.post("/api/session", json=who).status_code == 200
        yield client


def test_who_knows_the_password_comes_in_and_goes(home):
    with browser(home) as bo:
        assert bo.get("/api/session").json()["needs_login"] is True
        assert bo.get("/api/chats").status_code == 401
        came = bo.post("/api/session", json=BO)
        assert came.json()["user"] == {"id": Accounts(home.app.state).get("bo").id, "name": "bo", "role": "member"}
        assert "battery" not in came.text
        cookie = came.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert bo.get("/api/chats").status_code == 200
        assert bo.delete("/api/session").status_code == 204
        assert bo.get("/api/chats").status_code == 401
    raw = home.place.read_bytes() + home.place.with_name(home.place.name + "-wal").read_bytes()
    assert b"battery staple" not in raw
    assert b"$argon2id$" in raw


def test_a_session_ends_by_itself(home):
    bo = Accounts(home.app.state).get("bo").id
    with browser(home, BO) as somebody:
        assert somebody.get("/api/chats").status_code == 200
        with home.app.state.transaction() as db:
            assert db.execute("UPDATE sessions SET expires_at = ? WHERE user_id = ?", (time.time() - 1, bo)).rowcount
        assert somebody.get("/api/chats").status_code == 401


def test_a_session_of_a_key_ends_when_the_key_is_revoked(home):
    keys = Keys(home.app.state)
    with browser(home, {"key": keys.new("mine", ("infer",))}) as somebody:
        assert somebody.get("/api/chats").status_code == 200
        keys.revoke("mine")
        assert somebody.get("/api/chats").status_code == 401


def test_wrong_passwords_get_no_cookie_and_have_to_wait(home):
    with browser(home) as somebody:
        answers = [somebody.post("/api/session", json=who) for who in (
            BO | {"password": "wrong"}, {"name": "nobody", "password": "wrong"}, {"key": "wrong"},
            {"pairing": "wrong"})]
        assert {(one.status_code, "set-cookie" in one.headers) for one in answers} == {(401, False)}
        assert answers[0].json()["error"]["message"] == answers[1].json()["error"]["message"]  # tells no names
        codes = [somebody.post("/api/session", json=BO | {"password": "wrong"}).status_code for _ in range(8)]
        assert codes[-1] == 429
        assert somebody.post("/api/session", json=BO).status_code == 429  # nor the right one, for a while


def test_a_cookie_counts_for_this_server_s_own_pages_only(home):
    with browser(home, BO) as bo:
        assert bo.post("/api/chats", json={}).status_code == 201
        for origin in ("http://evil.example", home.url.replace("http:", "https:"), "null"):
            assert bo.post("/api/chats", json={}, headers={"origin": origin}).status_code == 403
        del bo.headers["origin"]
        assert bo.post("/api/chats", json={}).status_code == 403


def test_admins_keep_accounts_and_members_do_not(home):
    with browser(home, ADA) as ada, browser(home, BO) as bo:
        assert bo.get("/api/users").status_code == bo.post("/api/users", json=ADA).status_code == 403
        cy = ada.post("/api/users", json={"name": "cy", "password": "tell no one", "role": "member"}).json()
        assert "password" not in {name for name in cy if name != "has_password"}
        with browser(home, {"name": "cy", "password": "tell no one"}) as member:
            chat = member.post("/api/chats", json={"title": "cy's"}).json()
            member.post("/api/attachments", json={"name": "x", "text": "x"})
            assert ada.get(f"/api/chats/{chat['id']}").status_code == 404  # nor do admins read others' chats
            ada.patch(f"/api/users/{cy['id']}", json={"role": "admin"})
            assert member.get("/api/users").status_code == 200  # at once
            assert ada.delete(f"/api/users/{cy['id']}").status_code == 204
            assert member.get("/api/chats").status_code == 401
        for table in ("chats", "attachments"):
            assert not home.app.state.query(f"SELECT id FROM {table} WHERE owner = ?", cy["id"])
        me = ada.get("/api/session").json()["user"]["id"]
        assert ada.patch(f"/api/users/{me}", json={"role": "member"}).status_code == 400  # the last admin
        assert ada.post("/api/users", json={"name": "ada", "password": "x" * 8}).status_code == 400
        assert ada.post("/api/users", json={"name": "dy", "password": "short"}).status_code == 400


def test_one_s_own_password_can_be_changed(home):
    with browser(home, BO) as bo, browser(home, BO) as phone:
        change = {"old_password": "wrong", "password": "something new"}
        assert bo.post("/api/session/password", json=change).status_code == 401
        change["old_password"] = BO["password"]
        assert bo.post("/api/session/password", json=change).status_code == 204
        assert phone.get("/api/chats").status_code == 401  # other devices too
    with browser(home, BO | {"password": "something new"}) as bo:
        assert bo.get("/api/chats").status_code == 200
    with browser(home) as nobody:
        assert nobody.post("/api/session/password", json=change).status_code in (401, 403)


def test_events_end_with_the_account_that_hears_them(home, monkeypatch):
    monkeypatch.setattr(events, "ASKED_S", 0.1)
    with browser(home, BO) as bo, bo.stream("GET", "/api/events") as told:
        lines = told.iter_lines()
        assert "hello" in "".join(next(lines) for _ in range(3))
        Accounts(home.app.state).remove("bo", home.app.chats.chats.deletion.delete_all)
        assert "chat" not in "".join(lines)


def test_limits_hold_for_chats(home):
    with browser(home, BO) as bo:
        chats = [bo.post("/api/chats", json={}).json()["id"] for _ in range(3)]
        long = {"content": "x", "settings": {"max_tokens": 3000, "temperature": 1}}
        asked = [bo.post(f"/api/chats/{chat}/messages", json=long) for chat in chats]
        assert [one.status_code for one in asked] == [201, 201, 429]  # two at work
        assert bo.get(f"/api/chats/{chats[2]}").json()["messages"] == []
        for one in asked[:2]:
            answer = one.json()["answer"]
            bo.post(f"/api/chats/{answer['chat_id']}/messages/{answer['id']}/stop", json={})
        short = {"content": "x", "settings": {"max_tokens": 1}}
        codes = []
        for _ in range(3):
            said = bo.post(f"/api/chats/{chats[2]}/messages", json=short)
            codes.append(said.status_code)
            if said.status_code == 201:
                wait_for(lambda: not home.app.chats.answering.live)
        assert codes == [201, 201, 429]  # four in a minute
        assert int(said.headers["retry-after"]) > 0


def test_the_first_account_takes_over_what_was_there(tmp_path):
    with Running({"tiny": TINY}, tmp_path) as running:
        chat = new_chat(running, title="from before")
        _, answer = running.post(f"/api/chats/{chat['id']}/messages", {
            "content": "x", "settings": {"max_tokens": 1}}).json().values()
        ended(running, answer)
        assert running.post("/api/users", {"name": "bo", "password": "x" * 8}).status_code == 400  # an admin first
        assert running.post("/api/users", ADA | {"role": "admin"}).status_code == 201
        assert running.get("/api/chats").status_code == 401
        with browser(running, ADA) as ada:
            assert [one["title"] for one in ada.get("/api/chats").json()["chats"]] == ["from before"]


def test_what_runs_for_an_account_ends_with_it_and_others_batches_go_on(home):
    line = {"method": "POST", "url": "/v1/completions", "body": {"model": "tiny", "prompt": "a", "max_tokens": 3000,
                                                                  "ignore_eos": True}}

    def batch(client, n, **fields):
        lines = [json.dumps({**line, "custom_id": str(i), "body": line["body"] | fields}) for i in range(n)]
        file = client.post("/v1/files", files={"file": ("x", "\n".join(lines).encode())}, data={"purpose": "batch"})
        return client.post("/v1/batches", json={"input_file_id": file.json()["id"], "endpoint": line["url"],
                                                "completion_window": "24h"}).json()["id"]

    with browser(home, ADA) as ada, browser(home, {"name": "bo", "password": BO["password"]}) as bo:
        id = bo.get("/api/session").json()["user"]["id"]
        body = {"model": "tiny", "prompt": "a", "max_tokens": 1}
        assert ada.post("/v1/completions", json=body).status_code == 200
        with Held(home.served.model):
            batch(bo, 2)
            wait_for(lambda: [one for one in home.app.service.answers if one.owner.startswith(id)])
            assert ada.delete(f"/api/users/{id}").status_code == 204
        wait_for(lambda: not home.app.service.answers)
        theirs = batch(ada, 2, max_tokens=1)
        wait_for(lambda: ada.get(f"/v1/batches/{theirs}").json()["status"] == "completed")


def test_limits_hold_for_questions_that_come_at_once(home):
    with browser(home, BO) as bo:
        chats = [bo.post("/api/chats", json={}).json()["id"] for _ in range(4)]
        codes = []

        def ask(chat):
            body = {"content": "x", "settings": {"max_tokens": 1}}
            codes.append(bo.post(f"/api/chats/{chat}/messages", json=body).status_code)

        threads = [threading.Thread(target=ask, args=(chat,)) for chat in chats]
        with home.app.state.engine._writing:  # none can be stored until all have come
            for thread in threads:
                thread.start()
            wait_for(lambda: len(codes) == 2)  # who is refused
        for thread in threads:
            thread.join()
        assert sorted(codes) == [201, 201, 429, 429]


def test_no_account_is_called_like_another_one_s_id(home):
    with browser(home, ADA) as ada, browser(home, BO) as bo:
        ids = [one.get("/api/session").json()["user"]["id"] for one in (ada, bo)]
        for id in ids:
            assert ada.post("/api/users", json={"name": id, "password": "x" * 8}).status_code == 400
        assert Accounts(home.app.state).get(ids[1]).name == "bo"


def test_limits_of_an_account_hold_for_its_keys(home):
    keys, bo = Keys(home.app.state), Accounts(home.app.state).get("bo")
    own = {"x-api-key": keys.new("of bo", ("infer",), user_id=bo.id)}
    strict = {"x-api-key": keys.new("strict", ("infer",), requests_per_minute=1, user_id=bo.id)}
    codes = [home.get("/v1/models", headers=own).status_code for _ in range(5)]
    assert codes == [200] * 4 + [429]  # bo may ask four times a minute
    assert home.get("/v1/models", headers=strict).status_code == 429
    assert home.get("/v1/models", headers={"x-api-key": keys.new("another", ("infer",))}).status_code == 200
