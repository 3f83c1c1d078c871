"""Thinking above an answer, with the real small model: under a template that has it begin with a thought."""

from __future__ import annotations

import re

import pytest

from ..server.running import Running
from .conftest import SMALL

OPENING = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
           "{{ '<|im_start|>assistant\n<think>\n' }}")


@pytest.fixture(scope="module")
def thinker(small_file, tmp_path_factory):
    with Running({SMALL: small_file}, tmp_path_factory.mktemp("thinking"),
                 {"kv_tokens": 8192, "template": OPENING, "threads": 1}) as running:
        yield running


def test_thinking_is_folded_runs_with_its_time_and_can_be_ended_now(visit, thinker):
    person = visit(server=thinker, max_tokens=6000)
    page = person.go()
    answer = person.ask("Why is the sky blue?")
    fold = answer.locator(".thinking .fold")
    fold.wait_for()
    assert re.match(r"Thinking for [\d.]+s", fold.inner_text())
    assert answer.locator(".thought .prose").count() == 0, "it is folded"
    before = fold.inner_text()
    person.until("text => document.querySelector('.thinking .fold').innerText !== text", before)
    fold.click()
    page.wait_for_selector(".thought .prose")
    person.picture("thinking")
    answer.get_by_role("button", name="Answer now").evaluate("(one) => one.click()")  # text moves on below it
    page.wait_for_selector("[data-role=assistant] > .prose")
    person.until("() => /^Thought for [\\d.]+s/.test(document.querySelector('.thinking .fold').innerText)")
    page.get_by_role("button", name="Answer now").wait_for(state="detached")
    page.keyboard.press("Escape")
    person.until("() => /stopped|done/.test(document.querySelector('[data-role=assistant]').dataset.status)")
    thought = answer.locator(".thought .prose").inner_text()
    page.reload()
    page.locator(".thinking .fold").click()
    assert page.locator(".thought .prose").inner_text() == thought
    assert re.match(r"Thought for [\d.]+s", page.locator(".thinking .fold").inner_text())
