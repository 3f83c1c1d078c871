"""Search, and chats that leave as a file, are deleted for good, and come back."""

from __future__ import annotations

import json

import pytest

from .corpus import FORMULAS, MARKDOWN, NAMES
from .test_safety import look_through

ATTACK = "<img src=x onerror=alert('import')>"


def bring(page, name, value):
    """Import a file through the page."""
    page.locator("input[accept*=zip]").set_input_files(
        {"name": name, "mimeType": "application/json", "buffer": json.dumps(value).encode()})


def test_a_word_is_found_on_any_branch_and_its_message_shown(visit, server, chat_of):
    chat, _, answer = chat_of("The first try speaks of a Schuhschnäbel bird.", title="Birds")
    headers = {"origin": server.url}
    path = f"/api/chats/{chat['id']}/messages/{answer['id']}/regenerate"
    server.post(path, {"settings": {"max_tokens": 3}}, headers=headers)  # the branch that is shown now
    person = visit()
    page = person.go()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("schuhschnabel bi")
    page.get_by_role("option").first.wait_for()
    assert page.locator("[role=option] mark").all_inner_texts() == ["Schuhschnäbel", "bird"]
    person.picture("search-hits")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"[data-message='{answer['id']}']")
    person.until("() => document.querySelector('.prose').innerText.includes('Schuhschnäbel')")


def test_chats_leave_as_a_file_are_deleted_and_come_back_whole(visit, server, chat_of, tmp_path):
    chat, _, _ = chat_of("A **kept** answer.", question="A kept question", title="To be kept")
    person = visit()
    page = person.go("#/settings")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as JSON").click()
    file = tmp_path / "chats.json"
    download.value.save_as(file)
    before = json.loads(file.read_text())
    kept = next(one for one in before["chats"] if one["id"] == chat["id"])
    page.get_by_role("button", name="Delete all chats").click()
    page.locator("dialog").get_by_role("button", name="Delete all chats").click()
    page.get_by_text("All chats are deleted.").wait_for()
    assert server.get("/api/chats").json()["chats"] == []
    page.locator("input[accept*=zip]").set_input_files(file)
    page.locator("nav li a", has_text="To be kept").first.click()
    page.wait_for_selector(".prose strong:text('kept')")
    assert server.get("/api/chats", params={"limit": 500}).json()["chats"].__len__() == len(before["chats"])
    new = page.url.partition("#/c/")[2]
    with page.expect_download() as download:
        page.get_by_role("button", name="More about To be kept").first.click()
        page.get_by_role("menuitem", name="Export as JSON").click()
    again = json.loads(download.value.path().read_text())["chats"][0]
    assert again["id"] == new
    assert [(one["role"], one["content"]) for one in again["messages"]] == [
        (one["role"], one["content"]) for one in kept["messages"]]


@pytest.mark.parametrize("kind", ["chatgpt", "open-webui", "llama-server"])
def test_imported_chats_of_others_are_only_text(visit, kind):
    text = "\n\n".join([ATTACK, *MARKDOWN, *FORMULAS, *NAMES])
    title = f"{kind} {ATTACK}"
    tree = {"a": {"id": "a", "parent": None, "children": ["b"], "message": {
                "author": {"role": "user"}, "content": {"content_type": "text", "parts": [ATTACK]}}},
            "b": {"id": "b", "parent": "a", "children": [], "message": {
                "author": {"role": "assistant"}, "content": {"content_type": "text", "parts": [text]}}}}
    flat = {"a": {"id": "a", "parentId": None, "childrenIds": ["b"], "role": "user", "content": ATTACK},
            "b": {"id": "b", "parentId": "a", "childrenIds": [], "role": "assistant", "content": text}}
    files = {
        "chatgpt": [{"title": title, "mapping": tree, "current_node": "b", "create_time": 1.7e9}],
        "open-webui": [{"title": title, "chat": {"title": title, "history": {"messages": flat, "currentId": "b"}}}],
        "llama-server": {"conv": {"id": "c", "name": title, "currNode": "b"}, "messages": [
            {"id": "a", "convId": "c", "type": "text", "parent": None, "children": ["b"], "role": "user",
             "content": ATTACK},
            {"id": "b", "convId": "c", "type": "text", "parent": "a", "children": [], "role": "assistant",
             "content": text}]},
    }
    person = visit()
    page = person.go("#/settings")
    bring(page, "chats.json", files[kind])
    page.locator("nav li a", has_text=kind).first.click()
    page.wait_for_selector("[data-role=assistant] .prose")
    person.settle()
    assert look_through(page) == []
    assert ATTACK in page.locator(".bubble").first.inner_text()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("onerror")
    page.get_by_role("option").first.wait_for()
    person.settle()
    assert look_through(page) == []


def test_a_file_that_is_none_of_these_is_refused_in_words(visit):
    person = visit()
    person.expected.append("400|422")
    page = person.go("#/settings")
    bring(page, "x.json", {"nothing": "of these"})
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().strip()
