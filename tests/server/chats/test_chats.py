"""Chats over HTTP against the real server and a real, tiny model."""

import asyncio
import threading
import time

import pytest

from tenth.server.chats.parts import ELSEWHERE_S
from tenth.server.chats.search import open_index
from tenth.server.chats.shelves import Shelves
from tenth.server.chats.store import Chats
from tenth.server.databases import EVERYBODY, open_engine
from tenth.server.state import State

from ..running import Held
from .conftest import ask, ended, listening, messages, new_chat, wait_for

LONG = {"max_tokens": 1500, "temperature": 0, "system": "Write a very long story."}


def stored(running, sql, *values):
    """Rows that another process would read in the server's database now."""
    engine = open_engine(running.place)
    try:
        return [tuple(row) for row in engine.query(sql, values)]
    finally:
        engine.close()


def test_a_question_is_answered_as_the_api_would_answer_it(desk):
    chat = new_chat(desk, settings={"system": "Be brief."})
    _, answer = ask(desk, chat, "Tell me more")
    done = ended(desk, answer)
    same = desk.post("/v1/chat/completions", {
        "model": "tiny", "temperature": 0, "max_tokens": 12, "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me more"}]}).json()
    assert done["content"] == same["choices"][0]["message"]["content"] != ""
    assert (done["status"], done["finish_reason"], done["model"]) == ("done", "length", "tiny")
    assert done["usage"]["completion_tokens"] == 12
    assert done["timings"]["generated_tokens_per_second"] > 0
    assert desk.get(f"/api/chats/{chat['id']}").json()["chat"]["title"] == "Tell me more"


def test_question_and_answer_are_on_the_disk_before_they_are_acknowledged(desk):
    chat = new_chat(desk)
    question, answer = ask(desk, chat, "durable?")
    rows = stored(desk, "SELECT id, content FROM messages WHERE chat_id = ? ORDER BY n", chat["id"])
    assert [row[0] for row in rows] == [question["id"], answer["id"]]
    assert rows[0][1] == "durable?"
    text = ended(desk, answer)["content"]
    assert stored(desk, "SELECT content, status FROM messages WHERE id = ?", answer["id"]) == [(text, "done")]


def test_what_is_being_made_is_saved_while_it_is_made(real):
    chat = new_chat(real)
    _, answer = ask(real, chat, settings=LONG)
    partial = wait_for(lambda: [row for row in stored(
        real, "SELECT content FROM messages WHERE id = ? AND status = 'running'", answer["id"]) if row[0]])[0][0]
    stopped = real.post(f"/api/chats/{chat['id']}/messages/{answer['id']}/stop", {}).json()["answer"]
    assert stopped["status"] == "stopped"
    assert stopped["content"].startswith(partial)
    assert len(stopped["content"]) > len(partial)


def test_a_stopped_answer_is_gone_on_with_as_if_it_had_not_been_stopped(desk):
    chat = new_chat(desk)
    _, whole = ask(desk, chat, "Once more", settings={"max_tokens": 24, "temperature": 0})
    whole = ended(desk, whole)
    _, half = ask(desk, chat, "Once more", settings={"max_tokens": 12, "temperature": 0})
    half = ended(desk, half)
    # The tiny model writes bytes that are no characters, which no text brings back: compare up to the first of them.
    going = desk.post(f"/api/chats/{chat['id']}/messages/{half['id']}/continue", {}).json()["answer"]
    assert (going["id"], going["status"], going["content"]) == (half["id"], "queued", half["content"])
    done = ended(desk, half)
    assert done["content"].startswith(half["content"])
    assert done["usage"]["completion_tokens"] == 24
    assert desk.post(f"/api/chats/{chat['id']}/messages/{whole['parent_id']}/continue", {}).status_code == 409


def test_every_page_sees_the_same_while_it_happens(desk):
    with listening(desk) as desk_events, listening(desk) as phone_events:
        chat = new_chat(desk)
        _, answer = ask(desk, chat, settings={"max_tokens": 400, "temperature": 0})
        done = ended(desk, answer)
        wait_for(lambda: all(any(data.get("message", {}).get("status") == "done" for _, _, data in told)
                             for told in (desk_events, phone_events)))
        seen, too = ([one for one in told[1:] if one[1] != "stats"] for told in (desk_events, phone_events))
        assert seen == too  # what the test before left may still be told as the first of them comes
    text, statuses = "", []
    for _, name, data in phone_events:
        if name == "delta" and data["message_id"] == answer["id"]:
            assert data["from"] == len(text.encode("utf-16-le")) // 2
            text += data["text"]
        elif name == "message" and data["message"]["id"] == answer["id"]:
            statuses.append(data["message"]["status"])
            assert data["message"]["content"] == text
    assert text == done["content"]
    assert statuses == ["queued", "prompt", "running", "done"]


def test_a_rating_that_meets_the_end_of_its_answer_is_told_with_it(desk, monkeypatch):
    chats, live = desk.app.chats.chats, desk.app.chats.answering.live
    change = chats.change_message

    def slowly(owner, chat_id, id, changes):
        rev = change(owner, chat_id, id, changes)
        if "rating" in changes:
            wait_for(lambda: id not in live)
        return rev

    monkeypatch.setattr(chats, "change_message", slowly)
    with listening(desk) as events:
        chat = new_chat(desk)
        _, answer = ask(desk, chat, settings={"max_tokens": 200, "temperature": 0})
        path = f"/api/chats/{chat['id']}/messages/{answer['id']}"
        rated = desk.http.patch(path, json={"rating": 1}).json()
        wait_for(lambda: events[-1][1] == "message" and events[-1][2]["message"]["rating"])
    told = [data["message"] for _, name, data in events if name == "message" and data["message"]["id"] == answer["id"]]
    assert [one["rev"] for one in told] == sorted(one["rev"] for one in told)
    assert told[-1] == rated
    assert (rated["status"], rated["rating"], rated["content"]) == ("done", 1, ended(desk, answer)["content"])


def test_of_two_states_of_a_message_the_rev_says_which_is_newer(desk):
    with listening(desk) as events:
        chat = new_chat(desk)
        question, answer = ask(desk, chat, settings={"max_tokens": 200, "temperature": 0})
        path = f"/api/chats/{chat['id']}/messages/{answer['id']}"
        rated = desk.http.patch(path, json={"rating": 1}).json()  # at work or ended
        done = ended(desk, answer)
        rewritten = desk.http.patch(path, json={"content": "Shorter"}).json()
        going = desk.post(f"{path}/continue", {}).json()["answer"]
        last = ended(desk, answer)
        wait_for(lambda: events[-1][1] == "message" and events[-1][2]["message"]["rev"] >= last["rev"])
    assert answer["rev"] < rated["rev"] < rewritten["rev"] < going["rev"] < last["rev"]
    assert (rated["rating"], done["rating"], last["rating"]) == (1, 1, 1)
    rev, seen = 0, set()
    for _, name, data in events:
        if name == "message" and data["message"]["id"] == answer["id"]:
            assert data["message"]["rev"] > rev
            rev = data["message"]["rev"]
            seen.add(rev)
        elif name == "delta":
            assert data["rev"] == rev, "text belongs to the state before it"
    assert {answer["rev"], rewritten["rev"], going["rev"]} <= seen
    assert messages(desk, chat)[question["id"]]["rev"] == question["rev"]


def test_a_lost_connection_goes_on_where_it_was(desk):
    with listening(desk) as before:
        chat = new_chat(desk)
        wait_for(lambda: len(before) > 1)
        last = before[-1][0]
    ask(desk, chat, "missed")
    with listening(desk, last) as after:
        found = wait_for(lambda: len(told := [one for one in after if one[1] != "stats"]) > 3 and told)
        assert [name for _, name, _ in found[:4]] == ["hello", "chat", "message", "message"]
        assert found[2][2]["message"]["content"] == "missed"
    for lost in ("0000:5", f"{last.partition(':')[0]}:999999", "nonsense"):
        with listening(desk, lost) as events:
            assert events[0][1] == "reset"


def test_a_question_that_follows_a_running_answer_waits_for_its_end(real):
    chat = new_chat(real)
    _, first = ask(real, chat, settings={"max_tokens": 60, "temperature": 0, "system": "Write a very long story."})
    question, second = ask(real, chat, "And then?", parent=first["id"])
    _, third = ask(real, chat, "And after that?", parent=second["id"])
    assert second["status"] == third["status"] == "queued"
    wait_for(lambda: messages(real, chat)[first["id"]]["status"] == "running")
    assert messages(real, chat)[second["id"]]["status"] == "queued"
    assert messages(real, chat)[question["id"]]["content"] == "And then?"  # kept, whatever becomes of the page
    stopped = real.post(f"/api/chats/{chat['id']}/messages/{third['id']}/stop", {}).json()["answer"]
    assert (stopped["status"], stopped["content"]) == ("stopped", "")
    done = ended(real, second)
    first = messages(real, chat)[first["id"]]
    assert first["status"] == done["status"] == "done"
    assert done["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]


def test_branches_grow_beside_each_other(desk):
    chat = new_chat(desk)
    question, first = ask(desk, chat, "one")
    ended(desk, first)
    second = desk.post(f"/api/chats/{chat['id']}/messages/{first['id']}/regenerate", {"settings": {"max_tokens": 3}})
    second = ended(desk, second.json()["answer"])
    edited, third = ask(desk, chat, "two", parent=None)
    ended(desk, third)
    follow, fourth = ask(desk, chat, "three", parent=first["id"])
    ended(desk, fourth)
    tree = {id: one["parent_id"] for id, one in messages(desk, chat).items()}
    assert tree == {question["id"]: None, first["id"]: question["id"], second["id"]: question["id"],
                    edited["id"]: None, third["id"]: edited["id"], follow["id"]: first["id"],
                    fourth["id"]: follow["id"]}  # fmt: skip
    assert desk.get(f"/api/chats/{chat['id']}").json()["chat"]["current_id"] == fourth["id"]

    assert desk.http.delete(f"/api/chats/{chat['id']}/messages/{first['id']}").status_code == 204
    assert set(messages(desk, chat)) == {question["id"], second["id"], edited["id"], third["id"]}
    assert desk.get(f"/api/chats/{chat['id']}").json()["chat"]["current_id"] == second["id"]
    changed = desk.http.patch(f"/api/chats/{chat['id']}", json={"current_id": third["id"]})
    assert changed.json()["current_id"] == third["id"]
    assert desk.http.patch(f"/api/chats/{chat['id']}", json={"current_id": first["id"]}).status_code == 404


def test_a_message_that_is_sent_twice_is_there_once(desk):
    chat = new_chat(desk)
    first, second = ask(desk, chat, "again", client_id="c1"), ask(desk, chat, "again", client_id="c1")
    assert [one["id"] for one in first] == [one["id"] for one in second]
    assert len(messages(desk, chat)) == 2


def test_several_chats_are_answered_at_once(real):
    chats = [new_chat(real) for _ in range(3)]
    answers = [ask(real, chat, settings=LONG)[1] for chat in chats]
    wait_for(lambda: all(messages(real, chat)[answer["id"]]["status"] == "running"
                         for chat, answer in zip(chats, answers, strict=True)))
    for chat, answer in zip(chats, answers, strict=True):
        assert real.http.delete(f"/api/chats/{chat['id']}").status_code == 204
        assert real.get(f"/api/chats/{chat['id']}").status_code == 404
        assert answer["id"] not in real.app.chats.answering.live
    wait_for(lambda: real.gate().n_at_work == 0)


def test_chats_are_listed_newest_first_and_page_by_page(desk):
    made = [new_chat(desk, title=f"t{i}")["id"] for i in range(5)]
    first = desk.get("/api/chats", params={"limit": 2}).json()
    assert [chat["id"] for chat in first["chats"]] == made[:2:-1]
    assert first["has_more"]
    rest = desk.get("/api/chats", params={"limit": 3, "before": first["chats"][-1]["updated_at"]}).json()
    assert [chat["id"] for chat in rest["chats"]] == made[2::-1]


def test_folders_pins_and_presets(desk):
    folder = desk.post("/api/folders", {"name": "work"}).json()
    chat = new_chat(desk, folder_id=folder["id"])
    pinned = desk.http.patch(f"/api/chats/{chat['id']}", json={"is_pinned": True}).json()
    assert (pinned["is_pinned"], pinned["rev"]) == (True, 2)
    assert [c["id"] for c in desk.get("/api/chats", params={"folder_id": folder["id"]}).json()["chats"]] == [chat["id"]]
    assert chat["id"] in [c["id"] for c in desk.get("/api/chats", params={"pinned": True}).json()["chats"]]
    assert desk.http.patch(f"/api/folders/{folder['id']}", json={"name": "home"}).json()["name"] == "home"
    assert desk.http.delete(f"/api/folders/{folder['id']}").status_code == 204
    assert desk.get(f"/api/chats/{chat['id']}").json()["chat"]["folder_id"] is None
    assert chat["id"] in [c["id"] for c in desk.get("/api/chats", params={"folder_id": ""}).json()["chats"]]

    preset = desk.post("/api/presets", {"name": "calm", "settings": {"temperature": 0.2}}).json()
    changed = desk.http.patch(f"/api/presets/{preset['id']}", json={"model": "tiny", "settings": {"top_k": 3}}).json()
    assert (changed["name"], changed["model"], changed["settings"]) == ("calm", "tiny", {"top_k": 3})
    assert changed in desk.get("/api/presets").json()["presets"]
    assert desk.http.delete(f"/api/presets/{preset['id']}").status_code == 204


@pytest.mark.parametrize(("path", "body", "status"), [
    ("", {"content": ""}, 400), ("", {"content": "x", "parent_id": "msg_no"}, 404),
    ("", {"content": "x", "model": "no"}, 404), ("", {"content": "x", "colour": 1}, 400),
    ("", {"content": "x", "settings": {"temperature": "hot"}}, 400),
    ("", {"content": "x", "attachment_ids": ["a"]}, 404),
    ("/msg_no/regenerate", {}, 404), ("/msg_no/continue", {}, 404), ("/msg_no/stop", {}, 404),
    ("/msg_no/end-thinking", {}, 404),
])  # fmt: skip
def test_what_cannot_be_is_refused_and_leaves_nothing(desk, path, body, status):
    chat = new_chat(desk)
    answer = desk.post(f"/api/chats/{chat['id']}/messages{path}", body)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert answer.json()["error"]["message"]
    assert not messages(desk, chat)


def test_a_prompt_that_cannot_be_answered_leaves_the_question_and_says_why(desk):
    chat = new_chat(desk)
    question, answer = ask(desk, chat, "x " * 5000)
    done = ended(desk, answer)
    assert (done["status"], done["content"]) == ("error", "")
    assert "tokens" in done["error"]
    assert messages(desk, chat)[question["id"]]["content"] == "x " * 5000


def test_what_another_process_writes_is_read_again_and_one_s_own_is_not(desk, place):
    with listening(desk) as events:
        chat = new_chat(desk, title="ours")
        wait_for(lambda: any(name == "chat" for _, name, _ in events))
        other = State(place)  # as tenth chat has it, or another server
        other.query("SELECT id FROM chats")
        time.sleep(2.5 * ELSEWHERE_S)
        assert "reset" not in [name for _, name, _ in events], "nobody else has written"
        with other.transaction("local") as db:
            db.execute("UPDATE chats SET title = ? WHERE id = ?", ("theirs", chat["id"]))
        other.close()
        wait_for(lambda: "reset" in [name for _, name, _ in events])
    assert desk.get(f"/api/chats/{chat['id']}").json()["chat"]["title"] == "theirs"


def test_a_lost_connection_may_have_missed_something(postgres):
    place = postgres.new_database()
    state, other = State(place), State(place)
    assert not state.engine.changed_elsewhere()
    other.query("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()")
    wait_for(lambda: state.engine.changed_elsewhere() == {EVERYBODY})
    assert not state.engine.changed_elsewhere()
    state.close()
    other.close()


def test_only_the_pages_of_who_it_is_for_read_again_what_another_server_wrote(postgres):
    place = postgres.new_database()
    state, other = State(place), State(place)
    assert not state.engine.changed_elsewhere()
    with other.transaction() as db:  # nothing that pages show
        db.execute("INSERT INTO preferences VALUES ('bob', 'price', '1')")
    chats, long = Chats(other, open_index(other)), "eve " * 100
    chat = chats.add("ada", "A chat", None, {})
    chats.change("ada", chat["id"], {"title": "Another"})
    Shelves(other).add("folder", long, {"name": "A folder"})
    heard = set()
    wait_for(lambda: heard.update(state.engine.changed_elsewhere()) or len(heard) >= 2)
    assert heard == {"ada", long}
    state.close()
    other.close()


def test_an_answer_that_is_stopped_twice_at_once_is_saved(desk):
    chats = [new_chat(desk) for _ in range(5)]
    with Held(desk.opened()):
        answers = [ask(desk, chat, **{"settings": LONG})[1] for chat in chats]
        last = answers[-1]
        wait_for(lambda: (live := desk.app.chats.answering.live.get(last["id"])) and live.answer is not None
                 and live.answer.is_queued)
        stop = f"/api/chats/{last['chat_id']}/messages/{last['id']}/stop"
        said = []
        threads = [threading.Thread(target=lambda: said.append(desk.post(stop, {}).json()["answer"]["status"]))
                   for _ in range(2)]
        live = desk.app.chats.answering.live[last["id"]]
        loop, saving = live.task.get_loop(), desk.app.chats.answering._saving
        asyncio.run_coroutine_threadsafe(saving.acquire(), loop).result(60)
        threads[0].start()
        wait_for(lambda: live.is_stopped)
        threads[1].start()
        desk.get("/health")
        time.sleep(0.2)  # it comes, or it does not: then the test shows less
        loop.call_soon_threadsafe(saving.release)
        for thread in threads:
            thread.join()
        assert said == ["stopped", "stopped"]
        assert stored(desk, "SELECT status FROM messages WHERE id = ?", last["id"]) == [("stopped",)]
    for answer in answers[:-1]:
        desk.post(f"/api/chats/{answer['chat_id']}/messages/{answer['id']}/stop", {})


def test_deleting_a_branch_leaves_the_answer_of_another_one(desk):
    chat = new_chat(desk)
    with Held(desk.opened()) as held:
        _, first = ask(desk, chat, "one", settings=LONG)
        held.wait()
        question, second = ask(desk, chat, "two", settings=LONG)
        path = f"/api/chats/{chat['id']}/messages"
        wait_for(lambda: desk.app.chats.answering.live[second["id"]].answer is not None)
        threading.Timer(0.2, held.go.set).start()  # an answer that is computed ends with its step
        assert desk.http.delete(f"{path}/{question['id']}").status_code == 204
        assert messages(desk, chat)[first["id"]]["status"] in ("prompt", "running", "done")
        assert second["id"] not in messages(desk, chat)
    desk.post(f"{path}/{first['id']}/stop", {})
