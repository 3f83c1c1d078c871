"""Looking inside an answer: its tokens, what else they could have been, which experts ran; numbers while it runs."""

from __future__ import annotations

import re

import pytest

from ..server import moe
from ..server.running import Running


def test_a_token_shows_what_else_it_could_have_been(visit, server, axe):
    person = visit()
    page = person.go()
    answer = person.ask("Name a colour.")
    person.wait_done(answer)
    text = server.get(f"/api/chats/{page.url.partition('#/c/')[2]}").json()["messages"][-1]["content"]
    page.keyboard.press("Alt+i")
    tokens = answer.locator(".tokens button")
    tokens.first.wait_for()
    assert "".join(tokens.all_inner_texts()).replace("↵", "\n").split() == text.split()
    levels = {re.search(r"l\d", one.get_attribute("class")).group() for one in tokens.all()}
    assert len(levels) > 1, "they are coloured by how sure the model was"
    tokens.nth(1).click()
    rows = answer.locator(".alternatives tbody tr")
    shares = [float(row.locator(".number").inner_text().strip("%")) for row in rows.all()]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) < 100.5
    page.set_viewport_size({"width": 1280, "height": 520})  # less than the tokens and this take
    page.locator(".scroller").evaluate("(one) => one.scrollTo(0, 0)")
    person.until("""() => document.querySelector('.alternatives').getBoundingClientRect().bottom
      <= document.querySelector('.scroller').getBoundingClientRect().bottom + 1""")
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name=re.compile("Token 3")).wait_for()
    person.picture("inside")
    person.check_axe(axe)


@pytest.fixture
def experts(tmp_path):
    with Running({"moe": moe.write(tmp_path / "moe.gguf")}, tmp_path) as running:
        yield running


def test_the_experts_of_each_layer_are_a_map(experts, visit, axe):
    person = visit(server=experts, max_tokens=7)
    page = person.go()
    person.wait_done(person.ask("Hi"))
    page.keyboard.press("Alt+i")
    page.get_by_role("img", name=re.compile("were used")).wait_for()
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.get_by_text(re.compile(r"Layer 0, expert 0: used \d+ times")).wait_for()
    person.picture("experts")
    person.check_axe(axe)


def test_numbers_run_while_an_answer_does(visit):
    person = visit(max_tokens=6000)
    page = person.go()
    answer = person.ask("Tell a long story about a river.")
    page.locator(".gauge .speed").wait_for()
    assert re.search(r"[\d.]+ tokens/s", page.locator(".gauge .speed").inner_text())
    page.locator(".gauge").click()
    panel = page.locator(".panel")
    panel.wait_for()
    assert re.search(r"Context\s+\d[\d,]* / \d[\d,]*", panel.inner_text())
    assert re.search(r"Memory of the budget\s+[\d.]+", panel.inner_text())
    person.picture("gauges")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Stop").click()
    person.wait_done(answer, "stopped")


def test_a_price_that_is_set_gives_every_answer_its_worth(visit):
    person = visit()
    page = person.go("#/settings")
    with page.expect_response("**/api/price"):
        page.get_by_label("A million tokens written").fill("1000")
        page.get_by_label("A million tokens written").press("Enter")
    page.get_by_role("link", name="New chat").click()
    answer = person.ask("Name a colour.")
    person.wait_done(answer)
    answer.locator(".cost").click()
    dialog = page.get_by_role("dialog").inner_text()
    assert re.search(r"Would cost elsewhere\s+\$[\d.]+", dialog)
    assert re.search(r"Energy \((measured|estimated)\)\s+[\d.,]+ (J|Wh)", dialog)
    person.picture("cost")
