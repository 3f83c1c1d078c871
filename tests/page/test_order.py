"""Replies, snapshots and events overtake each other on their ways: what is shown is what is newest."""

from __future__ import annotations

import pytest

from .visiting import Late


def shown(page):
    return page.locator("[data-role=assistant] .prose").last.inner_text()


def chat_id(page):
    return page.url.partition("#/c/")[2]


def rename(server, chat, name):
    server.http.patch(f"/api/chats/{chat}", json={"title": name}, headers={"origin": server.url})


@pytest.fixture
def talk(visit):
    """A page with a chat in which one question was answered."""
    person = visit()
    person.go()
    person.wait_done(person.ask("Name a colour."))
    return person


def test_a_reply_that_comes_after_the_answers_end_undoes_nothing(talk):
    page = talk.page
    late = Late(page, "POST", "/messages$")
    answer = talk.ask("Count to ten.")  # known from events alone
    talk.wait_done(answer)
    text = shown(page)
    assert text
    late.arrive()
    talk.until("() => document.querySelector('[data-action=write]').value === ''")  # it was taken
    assert (answer.get_attribute("data-status"), shown(page)) == ("done", text)
    assert page.locator("nav li .running").count() == 0


def test_the_reply_to_another_try_that_comes_late_undoes_nothing(talk):
    page = talk.page
    late = Late(page, "POST", "/regenerate$")
    page.keyboard.press("Alt+r")
    page.wait_for_selector("[data-role=assistant] :text('2 of 2')")
    talk.wait_done(page.locator("[data-role=assistant]"))
    text = shown(page)
    late.arrive()
    talk.wait_shown(text)
    assert page.locator("[data-role=assistant] :text('2 of 2')").count() == 1


def test_a_snapshot_that_is_older_than_what_events_told_undoes_nothing(talk, server):
    one, two = talk.page, talk.go(page=talk.new_page())
    late = Late(two, "GET", f"/api/chats/{chat_id(one)}$")
    two.locator("nav li a").first.click()
    late.wait()  # it has neither the question nor its answer
    talk.wait_done(talk.ask("Count to ten.", one))
    rename(server, chat_id(one), "After the answer")
    two.wait_for_selector("nav li a:text('After the answer')")  # it has heard of everything before that
    late.arrive()
    talk.wait_shown(shown(one), two)
    assert two.locator("[data-role=assistant]").count() == 2
    assert two.title() == "After the answer · tenth"


def test_a_snapshot_of_an_answer_at_work_that_comes_after_its_end_undoes_nothing(visit, server):
    person = visit(max_tokens=120)
    one, two = person.go(), person.go(page=person.new_page())
    answer = person.ask("Tell a long story about a river.", one)
    late = Late(two, "GET", f"/api/chats/{chat_id(one)}$")
    two.locator("nav li a").first.click()
    late.wait()
    person.wait_done(answer)
    rename(server, chat_id(one), "After its end")
    two.wait_for_selector("nav li a:text('After its end')")
    late.arrive()
    person.wait_shown(shown(one), two)


def test_a_snapshot_brings_back_nothing_that_was_deleted_meanwhile(talk, server):
    talk.wait_done(talk.ask("Count to ten."))
    one, two = talk.page, talk.go(page=talk.new_page())
    late = Late(two, "GET", f"/api/chats/{chat_id(one)}$")
    two.locator("nav li a").first.click()
    late.wait()
    one.locator("[data-role=user]").last.hover()
    one.locator("[data-role=user]").last.get_by_role("button", name="Delete").click()
    one.locator("dialog").get_by_role("button", name="Delete").click()
    talk.until("() => document.querySelectorAll('[data-message]').length === 2", page=one)
    rename(server, chat_id(one), "After deleting")
    two.wait_for_selector("nav li a:text('After deleting')")
    late.arrive()
    two.wait_for_selector("[data-message]")
    assert two.locator("[data-message]").count() == 2


def test_text_that_was_missed_is_read_again(talk, server, tell):
    page, chat = talk.page, chat_id(talk.page)
    answer = server.get(f"/api/chats/{chat}").json()["messages"][-1]
    with page.expect_response(f"**/api/chats/{chat}"):
        tell("message", {"message": {**answer, "status": "running", "content": "One"}})
        tell("delta", {"chat_id": chat, "message_id": answer["id"], "kind": "content", "from": 7, "text": "three"})
