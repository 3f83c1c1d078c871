"""What a person does with a chat, in a real browser, on the real server and the real small model."""

from __future__ import annotations

import re
import threading

import pytest

from ..server.running import TINY, Running


def text_of(answer):
    return answer.locator(".prose").inner_text()


def test_a_question_is_answered_while_one_watches_and_its_cost_is_told(visit):
    person = visit()
    page = person.go()
    person.picture("welcome")
    answer = person.ask("Name three colours.")
    person.wait_text(10)
    person.wait_done(answer)
    cost = answer.locator(".cost")
    assert re.search(r"\d+ tokens · [\d.,]+ tokens/s", cost.inner_text())
    cost.click()
    assert "Tokens read" in page.locator("dialog").inner_text()
    page.keyboard.press("Escape")
    person.until("() => document.querySelector('nav li').innerText.startsWith('Name three colours')")
    assert page.title() == "Name three colours. · tenth"


class Slow(Running):
    """A server whose models open when ``go`` is set."""

    go = threading.Event()

    def load(self, source):
        assert self.go.wait(120)
        return super().load(source)


@pytest.fixture
def slow(tmp_path):
    with Slow({"tiny": TINY}, tmp_path) as running:
        yield running
        running.go.set()


def test_what_an_answer_waits_for_is_said(slow, visit):
    person = visit(server=slow, max_tokens=3)
    page = person.go()
    answer = person.ask("Hi")
    page.get_by_text("Opening the model…").wait_for()
    slow.go.set()
    person.wait_done(answer)


def test_an_answer_is_stopped_and_goes_on_where_it_was(visit):
    person = visit(max_tokens=6000)
    page = person.go()
    answer = person.ask("Tell a very long story about a lighthouse.")
    person.wait_text(20)
    page.get_by_role("button", name="Stop").click()
    person.wait_done(answer, "stopped")
    before = text_of(answer)
    answer.get_by_role("button", name="Continue").click()
    person.wait_text(len(before) + 20)
    page.keyboard.press("Escape")
    person.wait_done(answer, "stopped")
    assert text_of(answer)[:len(before) - 1] == before[:-1]


def test_a_question_asked_in_other_words_makes_a_branch_and_both_can_be_walked(visit, server):
    person = visit()
    page = person.go()
    person.wait_done(person.ask("Say one word."))
    page.locator("[data-role=user]").hover()
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_label("Edit", exact=True).fill("Say another word.")
    page.locator("[data-role=user]").get_by_role("button", name="Send").click()
    page.wait_for_selector("[data-role=user] :text('2 of 2')")
    person.wait_done(page.locator("[data-role=assistant]"))
    page.get_by_role("button", name="Previous version").click()
    page.wait_for_selector(".bubble:text('Say one word.')")
    page.keyboard.press("Alt+.")
    page.wait_for_selector(".bubble:text('Say another word.')")
    page.get_by_role("button", name="Answer again", exact=True).click()
    page.wait_for_selector("[data-role=assistant] :text('2 of 2')")
    person.wait_done(page.locator("[data-role=assistant]"))
    page.reload()  # the branch that is shown is remembered
    page.wait_for_selector("[data-role=assistant] :text('2 of 2')")
    chats = server.get("/api/chats").json()["chats"]
    messages = server.get(f"/api/chats/{chats[0]['id']}").json()["messages"]
    assert [one["role"] for one in messages].count("user") == 2


def test_messages_are_copied_rated_and_deleted(visit):
    person = visit(permissions=["clipboard-read", "clipboard-write"])
    page = person.go()
    answer = person.ask("Say yes.")
    person.wait_done(answer)
    answer.get_by_role("button", name="Copy").first.click()
    person.until("text => navigator.clipboard.readText().then((copied) => copied.split(/\\s+/).join() === text)",
                 ",".join(text_of(answer).split()))
    with page.expect_response(lambda reply: reply.request.method == "PATCH"):
        answer.get_by_role("button", name="Good answer").click()
    page.reload()
    page.wait_for_selector("[aria-label='Good answer'][aria-pressed=true]")
    page.locator("[data-role=user]").hover()
    page.locator("[data-role=user]").get_by_role("button", name="Delete").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    person.until("!document.querySelector('[data-message]')")


def test_the_next_question_waits_while_an_answer_runs(visit):
    person = visit(max_tokens=6000)
    page = person.go()
    first = person.ask("Tell a long story about a river.")
    person.wait_text(5)
    person.write("And of the sea?")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-role=waiting] :text('And of the sea?')")
    person.write("And what is")
    page.reload()  # forgets neither what waits nor what was being written
    page.wait_for_selector("[data-role=waiting] :text('And of the sea?')")
    assert page.input_value("[data-action=write]") == "And what is"
    page.get_by_role("button", name="Stop").click()
    person.wait_done(first, "stopped")
    person.until("document.querySelectorAll('[data-role=assistant]').length === 2")
    page.wait_for_selector("[data-role=waiting]", state="detached")
    page.keyboard.press("Escape")


def test_a_reload_in_mid_stream_loses_nothing(visit):
    person = visit(max_tokens=2000)
    page = person.go()
    answer = person.ask("Write a long list of animals.")
    person.wait_text(60)
    seen = text_of(answer)[:40]
    page.reload()
    page.wait_for_selector("[data-role=assistant] .prose")
    assert text_of(page.locator("[data-role=assistant]")).startswith(seen)
    n = len(text_of(page.locator("[data-role=assistant]")))
    person.until("n => document.querySelector('[data-role=assistant]').dataset.status !== 'running' || "
                 "document.querySelector('[data-role=assistant] .prose').innerText.length > n", n)
    page.keyboard.press("Escape")


def test_two_tabs_see_the_same_live(visit):
    person = visit()
    one = person.go()
    two = person.go(page=person.new_page())
    answer = person.ask("Count to twenty.", one)
    two.locator("nav li a").first.click()
    two.wait_for_selector("[data-role=assistant] .prose")
    person.wait_done(answer)
    assert text_of(answer)
    person.wait_shown(text_of(answer), two)
    two.locator("nav li").first.hover()
    two.get_by_role("button", name="More about").first.click()
    two.get_by_role("menuitem", name="Rename").click()
    two.locator("dialog input").fill("A new name")
    two.keyboard.press("Enter")
    one.wait_for_selector("nav li a:text('A new name')")


def test_several_chats_answer_at_once(visit):
    person = visit(max_tokens=6000)
    page = person.go()
    person.ask("Tell a story about a mountain.")
    page.get_by_role("link", name="New chat").first.click()
    person.until("!document.querySelector('[data-message]')")
    person.ask("Tell a story about a forest.")
    person.until("document.querySelectorAll('nav li .running').length === 2")
    page.keyboard.press("Escape")
    person.until("document.querySelectorAll('nav li .running').length === 1")
    page.locator("nav li", has_text="mountain").locator("a").click()
    page.wait_for_selector("[data-role=assistant]")
    page.keyboard.press("Escape")
    person.until("document.querySelectorAll('nav li .running').length === 0")


def test_chats_are_pinned_filed_and_deleted_for_real(visit, server, chat_of):
    chat, _, _ = chat_of("An answer.", title="Keep me in order")
    person = visit()
    page = person.go()
    row = page.locator("nav li", has_text="Keep me in order")
    more = page.get_by_role("button", name="More about Keep me in order")
    row.hover()
    more.click()
    page.get_by_role("menuitem", name="Pin").click()
    page.wait_for_selector("nav h2:text('Pinned')")
    page.get_by_role("button", name="New folder").click()
    page.locator("dialog input").fill("Travel")
    page.keyboard.press("Enter")
    page.wait_for_selector("nav .name:has-text('Travel')")
    row.hover()
    more.click()
    with page.expect_response(f"**/api/chats/{chat['id']}"):
        page.get_by_role("menuitem", name="Move to Travel").click()
    row.hover()
    more.click()
    page.get_by_role("menuitem", name="Unpin").click()
    page.locator("nav .name", has_text="Travel").click()
    row.wait_for()
    row.hover()
    more.click()
    page.get_by_role("menuitem", name="Delete").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    row.wait_for(state="detached")
    assert server.get(f"/api/chats/{chat['id']}").status_code == 404
