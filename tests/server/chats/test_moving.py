"""Chats go out and come back the same; other programs' exports come in, damaged and hostile ones do no harm."""

import asyncio
import io
import json
import zipfile

import pytest

from tenth.server.chats import shelves
from tenth.server.chats.exporting import export
from tenth.server.chats.imports.conversation import Said, joined

from .conftest import ask, ended, new_chat


def send(desk, data, name="x.json"):
    return desk.http.post("/api/import", files={"file": (name, data if isinstance(data, bytes) else json.dumps(data))})


def imported(desk, data, name="x.json"):
    """The chats that came of a file, newest first, with their messages; and what was said."""
    before = {chat["id"] for chat in desk.get("/api/chats", params={"limit": 500}).json()["chats"]}
    said = send(desk, data, name)
    assert said.status_code == 200, said.text
    chats = [chat for chat in desk.get("/api/chats", params={"limit": 500}).json()["chats"] if chat["id"] not in before]
    assert len(chats) == said.json()["n_chats"]
    return [desk.get(f"/api/chats/{chat['id']}").json() for chat in chats], said.json()


def shape(found):
    """What has to be the same after moving: everything but ids."""
    names = {message["id"]: n for n, message in enumerate(found["messages"])}
    chat = {**found["chat"], "current_id": names.get(found["chat"]["current_id"])}
    messages = [{**one, "parent_id": names.get(one["parent_id"]), "attachments": [
        {**file, "id": "", "n_tokens": 0, "is_counted": False} for file in one["attachments"]]}
        for one in found["messages"]]
    gone = ("id", "chat_id", "rev", "folder_id")
    return [{name: value for name, value in one.items() if name not in gone} for one in (chat, *messages)]


def test_an_export_can_be_imported_and_is_the_same(desk):
    folder = desk.post("/api/folders", {"name": "travel"}).json()
    chat = new_chat(desk, title="Round trip", settings={"system": "Be brief.", "temperature": 0.5}, model="tiny",
                    folder_id=folder["id"])
    file = desk.post("/api/attachments", {"name": "list.txt", "text": "bread\nÄpfel"}).json()
    question, answer = ask(desk, chat, "Look 😀", attachment_ids=[file["id"]])
    ended(desk, answer)
    other = desk.post(f"/api/chats/{chat['id']}/messages/{answer['id']}/regenerate", {"settings": {"max_tokens": 3}})
    ended(desk, other.json()["answer"])
    desk.http.patch(f"/api/chats/{chat['id']}/messages/{answer['id']}", json={"rating": 1})
    desk.http.patch(f"/api/chats/{chat['id']}", json={"is_pinned": True, "current_id": answer["id"]})
    before = desk.get(f"/api/chats/{chat['id']}").json()

    exported = desk.get("/api/export", params={"chat_id": chat["id"]})
    assert "attachment" in exported.headers["content-disposition"]
    (after,), said = imported(desk, exported.content)
    assert said == {"n_chats": 1, "n_messages": 3, "warnings": [], "causes": []}
    assert shape(after) == shape(before)
    assert after["chat"]["folder_id"] == folder["id"]
    assert after["chat"]["id"] != chat["id"]
    text = desk.get(f"/api/attachments/{after['messages'][0]['attachments'][0]['id']}/text").text
    assert text == "bread\nÄpfel"
    hits = desk.get("/api/search", params={"q": "Look"}).json()["hits"]
    assert {hit["message_id"] for hit in hits} >= {question["id"], after["messages"][0]["id"]}


def test_everything_can_be_exported(desk):
    chats = [new_chat(desk, title=f"all {n}") for n in range(3)]
    whole = desk.get("/api/export").json()
    assert (whole["format"], whole["version"]) == ("tenth-chats", 1)
    assert {chat["id"] for chat in chats} <= {chat["id"] for chat in whole["chats"]}
    assert desk.get("/api/export", params={"chat_id": "chat_no"}).status_code == 404
    assert desk.get("/api/export", params={"format": "pdf"}).status_code == 400


def test_markdown_has_the_branch_that_is_shown(desk):
    chat = new_chat(desk, title="For reading", settings={"system": "one\ntwo"})
    _, answer = ask(desk, chat, "The question")
    text = ended(desk, answer)["content"]
    ask(desk, chat, "Not shown")
    desk.http.patch(f"/api/chats/{chat['id']}", json={"current_id": answer["id"]})
    exported = desk.get("/api/export", params={"chat_id": chat["id"], "format": "markdown"})
    assert exported.headers["content-type"] == "text/markdown; charset=utf-8"
    assert exported.text == f"# For reading\n\n> one\n> two\n\n## User\n\nThe question\n\n## tiny\n\n{text.strip()}\n"


CHATGPT = [{
    "title": "Trip", "create_time": 1700000000.5, "update_time": 1700000100.0, "current_node": "d",
    "default_model_slug": "gpt-4o", "mapping": {
        "d": {"id": "d", "parent": "t", "children": [], "message": {"author": {"role": "assistant"}, "content": {
            "content_type": "text", "parts": ["To Rome."]}, "metadata": {"model_slug": "gpt-4o"}, "recipient": "all",
            "create_time": 1700000003}},
        "root": {"id": "root", "parent": None, "children": ["s"], "message": None},
        "s": {"id": "s", "parent": "root", "children": ["q"], "message": {
            "author": {"role": "system"}, "content": {"content_type": "text", "parts": [""]}}},
        "q": {"id": "q", "parent": "s", "children": ["c", "e"], "message": {"author": {"role": "user"}, "content": {
            "content_type": "multimodal_text", "parts": [{"asset_pointer": "file://x"}, "Where to?"]},
            "create_time": 1700000001}},
        "c": {"id": "c", "parent": "q", "children": ["t"], "message": {"author": {"role": "assistant"}, "content": {
            "content_type": "code", "text": "search('x')"}, "recipient": "browser"}},
        "t": {"id": "t", "parent": "c", "children": ["d"], "message": {"author": {"role": "tool"}, "content": {
            "content_type": "tether_quote"}}},
        "e": {"id": "e", "parent": "q", "children": [], "message": {"author": {"role": "assistant"}, "content": {
            "content_type": "text", "parts": ["To Oslo."]}, "recipient": "all"}},
    }}]  # fmt: skip

OPEN_WEBUI = [{
    "id": "1", "user_id": "u", "title": "Old", "pinned": True, "created_at": 1700000000, "updated_at": 1700000100,
    "chat": {"title": "Cooking", "models": ["qwen3:4b"], "params": {"system": "Cook."}, "history": {
        "currentId": "b", "messages": {
            "a": {"id": "a", "parentId": None, "childrenIds": ["b"], "role": "user", "content": "Soup?",
                  "timestamp": 1700000001, "files": [{"type": "file"}]},
            "b": {"id": "b", "parentId": "a", "childrenIds": [], "role": "assistant", "model": "qwen3:4b",
                  "content": '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds'
                             '</summary>\n> Hm.\n> Yes.\n</details>\nYes, soup.', "timestamp": 1700000002}}}},
}]  # fmt: skip

LLAMA = {"conv": {"id": "c", "name": "Rust", "lastModified": 1700000100000, "currNode": "3"}, "messages": [
    {"id": "1", "convId": "c", "type": "root", "role": "system", "content": "", "parent": None, "children": ["2"],
     "timestamp": 1700000000000},
    {"id": "2", "convId": "c", "type": "text", "role": "user", "content": "Why?", "parent": "1", "children": ["3"],
     "timestamp": 1700000001000, "extra": [{"type": "TEXT", "name": "a.rs", "content": "fn main() {}"},
                                           {"type": "IMAGE", "name": "p.png", "base64Url": "data:"}]},
    {"id": "3", "convId": "c", "type": "text", "role": "assistant", "content": "Because.", "parent": "2",
     "children": [], "reasoningContent": "Let me see.", "model": "q.gguf", "timestamp": 1700000002000},
]}  # fmt: skip


def packed(value, name="conversations.json"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("user.json", "{}")
        package.writestr(f"export/{name}", json.dumps(value))
    return out.getvalue()


@pytest.mark.parametrize("pack", [json.dumps, packed], ids=["json", "zip"])
def test_chatgpt(desk, pack):
    data = pack(CHATGPT)
    ((found),), said = imported(desk, data if isinstance(data, bytes) else data.encode())
    assert [(one["role"], one["content"], one["model"]) for one in found["messages"]] == [
        ("user", "Where to?", None), ("assistant", "To Rome.", "gpt-4o"), ("assistant", "To Oslo.", None)]
    question, rome, oslo = found["messages"]
    assert rome["parent_id"] == oslo["parent_id"] == question["id"]
    assert found["chat"]["current_id"] == rome["id"]
    assert (found["chat"]["title"], found["chat"]["created_at"]) == ("Trip", 1700000000.5)
    assert (question["created_at"], rome["created_at"]) == (1700000001, 1700000003)
    assert said["warnings"] == ["calls of tools: 1", "messages of tools: 1"]


def test_open_webui(desk):
    ((found),), said = imported(desk, OPEN_WEBUI)
    assert [(one["content"], one["thinking"]) for one in found["messages"]] == [
        ("Soup?", ""), ("Yes, soup.", "Hm.\nYes.")]
    chat = found["chat"]
    assert (chat["title"], chat["is_pinned"], chat["model"]) == ("Cooking", True, "qwen3:4b")
    assert chat["settings"] == {"system": "Cook."}
    assert said["warnings"] == ["files: 1"]


@pytest.mark.parametrize("data", [json.dumps(LLAMA), json.dumps([LLAMA]), json.dumps(LLAMA) + "\n"], ids=["one", "list",
                                                                                                         "lines"])
def test_llama_server(desk, data):
    ((found),), said = imported(desk, data.encode())
    question, answer = found["messages"]
    assert (answer["content"], answer["thinking"], answer["model"]) == ("Because.", "Let me see.", "q.gguf")
    assert [file["name"] for file in question["attachments"]] == ["a.rs"]
    assert (found["chat"]["title"], found["chat"]["updated_at"]) == ("Rust", 1700000100)
    assert said["warnings"] == ["attachments of kind IMAGE: 1"]


def circle(n=50):
    said = [{"id": str(i), "parent": str((i + 1) % n), "role": "user", "content": f"c{i}", "type": "text"}
            for i in range(n)]
    return {"conv": {"id": "c", "name": "circle", "currNode": "nowhere"}, "messages": said}


def test_trees_that_are_none_become_trees(desk):
    deep = {"conv": {"id": "c", "name": "deep"}, "messages": [
        {"id": str(i), "parent": str(i - 1), "role": "user", "content": f"d{i}", "type": "text"}
        for i in range(3000)][::-1]}
    for value, n in ((circle(), 50), (deep, 3000)):
        ((found),), _ = imported(desk, value)
        assert len(found["messages"]) == n
        assert sum(one["parent_id"] is None for one in found["messages"]) == 1
        seen = set()
        for one in found["messages"]:
            assert one["parent_id"] is None or one["parent_id"] in seen
            seen.add(one["id"])


@pytest.mark.parametrize("data", [
    b"", b"{", b"[]", b"{}", b"null", b"[1, 2]", b"not json\nat all", b"PK\x03\x04broken", packed([]), packed({"a": 1}),
    b"[" * 100_000, b'[{"mapping": 5}]', b'{"conv": {}, "messages": 7}', b'{"format": "tenth-chats", "chats": 3}',
    "[{\"chat\": {\"history\": []}}]".encode("utf-16"), b"\xff\xfe\x00",
], ids=range(16))  # fmt: skip
def test_what_holds_no_chats_is_refused_in_one_sentence(desk, data):
    answer = send(desk, data)
    assert answer.status_code == 400, answer.text
    assert "\n" not in answer.json()["error"]["message"]


@pytest.mark.parametrize("value", [
    [{"mapping": {"a": None, "b": {"message": 5}, "c": {"message": {"author": 1, "content": [1]}, "parent": ["x"]}}}],
    [{"chat": {"history": {"messages": {"a": {"role": ["x"], "content": {"y": 1}, "parentId": 7}}},
               "title": {"t": 1}}}],
    {"conv": {"name": 5, "lastModified": "x"},
     "messages": [{"id": None, "role": None}, 5, {"extra": "x", "content": 1}]},
    {"format": "tenth-chats", "chats": [{
        "messages": [{"role": "user", "id": [], "parent_id": {}, "content": None, "usage": 3, "rating": 9,
                      "attachments": [1, {"text": 5}]}],
        "settings": {"temperature": "x", "__class__": 1, "top_k": 3}}]},
])  # fmt: skip
def test_fields_of_wrong_kinds_do_no_harm(desk, value):
    answer = send(desk, value)
    assert answer.status_code == 200, answer.text
    for chat in desk.get("/api/chats", params={"limit": 500}).json()["chats"]:
        assert desk.get(f"/api/chats/{chat['id']}").status_code == 200
        assert set(chat["settings"]) <= {"system", "temperature", "top_k", "max_tokens"}


def test_names_and_texts_are_kept_as_they_are_and_never_become_more(desk):
    evil = '<img src=x onerror=alert(1)> ../../etc/passwd \u202e $(x) {{7*7}} \x00 \ud800'
    value = {"conv": {"id": "c", "name": evil}, "messages": [{
        "id": "1", "parent": None, "role": "user", "content": evil, "type": "text",
        "extra": [{"type": "TEXT", "name": "../" + evil, "content": evil}]}]}
    ((found),), _ = imported(desk, value)
    kept = evil.replace("\ud800", "?")
    assert found["messages"][0]["content"].replace("\ufffd", "\x00") == kept
    assert "/" not in found["messages"][0]["attachments"][0]["name"]


def test_numbers_that_are_none_are_left_out(desk):
    deep = json.dumps("").replace('""', '{"a":' * 500 + "1" + "}" * 500)
    told = {"usage": {"prompt_tokens": 3, "cached_tokens": float("nan"), "completion_tokens": "DEEP", "x\ud800": 1},
            "timings": {"first_token_s": None, "prompt_tokens_per_second": float("inf")},
            "cost": {"seconds": 10**400, "joules": 2.5, "joules_are": "estimated"}, "thinking_s": float("inf")}
    data = json.dumps({"format": "tenth-chats", "chats": [
        {"title": "t", "messages": [{"id": "a", "role": "assistant", "content": "x", **told}]}]})
    ((found,), said) = imported(desk, data.replace('"DEEP"', deep).encode())
    assert said["n_messages"] == 1
    (one,) = found["messages"]
    assert (one["usage"], one["timings"], one["thinking_s"]) == ({"prompt_tokens": 3}, {"first_token_s": None}, None)
    assert one["cost"] == {"joules": 2.5, "joules_are": "estimated"}
    exported = desk.get("/api/export", params={"chat_id": found["chat"]["id"]})
    assert json.loads(exported.content)["chats"][0]["messages"][0]["cost"] == one["cost"]


def test_halves_of_characters_lose_no_conversation(desk):
    def conversation(title, model):
        message = {"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["hi"]},
                   "metadata": {"model_slug": model}}
        return {"title": title, "mapping": {"a": {"message": message}}, "default_model_slug": model}

    found, said = imported(desk, [conversation("odd", "\ud800"), conversation("good", "gpt")])
    assert said == {"n_chats": 2, "n_messages": 2, "warnings": [], "causes": []}
    assert sorted(one["chat"]["model"] for one in found) == ["?", "gpt"]


def test_what_is_deleted_while_it_is_exported_is_left_out(desk):
    kept, gone = (new_chat(desk, title=title) for title in ("kept", "gone"))

    async def exported(kind):
        found = []
        async for part in export(desk.app.chats, "local", [gone["id"], kept["id"], gone["id"], kept["id"]], kind):
            found.append(part)
        return "".join(found)

    desk.http.delete(f"/api/chats/{gone['id']}")
    assert [chat["title"] for chat in json.loads(asyncio.run(exported("json")))["chats"]] == ["kept", "kept"]
    assert asyncio.run(exported("markdown")) == "# kept\n\n---\n\n# kept\n"


def test_a_disk_that_is_full_keeps_what_was_added_and_says_so(desk, monkeypatch):
    monkeypatch.setattr(shelves, "MOST_OF_EACH", len(desk.get("/api/folders").json()["folders"]) + 1)
    chats = [{"title": str(n), "folder": f"new {n}", "messages": []} for n in range(3)]
    found, said = imported(desk, {"format": "tenth-chats", "chats": chats})
    assert len(found) == 1
    assert "folders already" in said["warnings"][0]


def test_a_long_branch_that_comes_last_message_first_is_put_in_order():
    said = [Said(str(n), str(n - 1) if n else None, "user", "x") for n in range(20_000)][::-1]
    assert [one.key for one in joined(said)] == [str(n) for n in range(20_000)]


def test_an_imported_answer_without_a_question_cannot_be_made_again(desk):
    said = [{"type": "text", "id": "1", "convId": "c", "role": "assistant", "content": "Welcome.", "parent": None,
             "children": [], "timestamp": 1700000001000}]
    (found,), _ = imported(desk, {"conv": {**LLAMA["conv"], "currNode": "1"}, "messages": said})
    (answer,) = found["messages"]
    again = desk.post(f"/api/chats/{found['chat']['id']}/messages/{answer['id']}/regenerate", {})
    assert again.status_code == 409
    assert "no question" in again.text
