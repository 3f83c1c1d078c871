"""Nothing that a model, a file or an import says runs, is refused by the policy, or reaches another host.

What every visit checks at its end (see visiting.py) is the point of these tests.
"""

from __future__ import annotations

import re

import pytest

from .corpus import DIAGRAMS, FORMULAS, MARKDOWN, NAMES, everything

HARMLESS = "https://example.org/a"


def look_through(page):
    """What no rendered text may hold."""
    return page.evaluate("""() => {
      const bad = [];
      for (const element of document.querySelectorAll('.prose *, nav *, dialog *')) {
        const tag = element.tagName;
        if (/^(script|iframe|object|embed|form|base|link|meta|style)$/i.test(tag)) bad.push(element.outerHTML);
        for (const {name, value} of element.attributes) {
          if (/^on/i.test(name) || /^\\s*(javascript|vbscript|data|file):/i.test(value)) bad.push(`${name}=${value}`);
          if (element.closest('.prose') && name === 'id') bad.push(`id=${value}`);
        }
        const isPicture = element.closest('.prose') && tag === 'IMG';
        if (isPicture && !element.src.startsWith('blob:')) bad.push(element.outerHTML);
      }
      return bad;
    }""")


def test_a_finished_answer_of_the_whole_corpus_is_only_text(visit, chat_of):
    chat, _, _ = chat_of(everything(), question="<img src=x onerror=alert('question')>",
                         title="<img src=x onerror=alert('title')>")
    person = visit()
    page = person.go(f"#/c/{chat['id']}")
    person.until("() => document.querySelectorAll('.prose .drawn').length > 3")
    person.until("() => document.querySelectorAll('.prose img.diagram').length >= 5")
    person.settle()
    assert look_through(page) == []
    assert page.evaluate("() => ({}).polluted") is None
    for link in page.locator(".prose a").all():  # whatever is left leads elsewhere, in a new tab, without a referrer
        assert re.match("https?:|mailto:", link.get_attribute("href"))
        assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener noreferrer nofollow")
    person.picture("corpus")


def test_the_corpus_is_harmless_while_it_streams(visit, server, chat_of, tell):
    chat, _, answer = chat_of("x")
    person = visit()
    page = person.go(f"#/c/{chat['id']}")
    page.wait_for_selector(".prose")
    text = "\n\n".join([*MARKDOWN, *FORMULAS, "The end."])
    tell("message", {"message": {**answer, "status": "running", "content": ""}})
    for at in range(0, len(text), 37):  # cut anywhere, also in the middle of tags
        tell("delta", {"chat_id": chat["id"], "message_id": answer["id"], "kind": "content", "from": at,
                       "text": text[at:at + 37]})
    page.wait_for_selector(".prose p:text-is('The end.')")
    person.settle()
    assert look_through(page) == []
    tell("message", {"message": {**answer, "status": "done", "content": text}})
    page.wait_for_selector("[data-role=assistant][data-status=done]")
    person.settle()
    assert look_through(page) == []


def test_thinking_and_errors_of_the_server_are_only_text(visit, chat_of, tell):
    chat, _, answer = chat_of("x")
    person = visit()
    page = person.go(f"#/c/{chat['id']}")
    page.wait_for_selector(".prose")
    tell("message", {"message": {**answer, "status": "error", "thinking": "\n\n".join(MARKDOWN), "thinking_s": 1.0,
                                 "error": "<img src=x onerror=alert('error')>",
                                 "model": "<svg onload=alert('model')>"}})
    page.locator(".thinking button").first.click()
    page.wait_for_selector(".thought .prose")
    person.settle()
    assert look_through(page) == []
    assert "<img src=x" in page.locator(".failed").inner_text()


@pytest.mark.parametrize("text", DIAGRAMS[:3])
def test_a_diagram_is_a_picture_in_which_nothing_can_run(visit, chat_of, text):
    chat, _, _ = chat_of(f"```mermaid\n{text}\n```")
    person = visit()
    page = person.go(f"#/c/{chat['id']}")
    page.wait_for_selector(".prose img.diagram")
    assert page.locator(".prose svg").count() == 0
    page.locator(".prose img.diagram").click()
    person.settle()


def test_the_frame_for_diagrams_runs_no_inline_script_and_asks_nobody(visit):
    person = visit()
    page = person.page
    page.goto(f"{person.server.url}/diagram.html")
    ran = page.evaluate("""async () => {
      const before = window.__violations.length;
      document.body.innerHTML = '<img src=x onerror="window.__ran.push(1)">';
      const script = document.createElement('script');
      script.textContent = 'window.__ran.push(2)';
      document.body.append(script);
      const asked = await fetch('/api/session').then(() => 'answered', () => 'refused');
      await new Promise((resolve) => setTimeout(resolve, 300));
      const found = [window.__ran.slice(), asked, window.__violations.length > before];
      window.__violations.length = 0;
      return found;
    }""")
    assert ran == [[], "refused", True]
    person.expected.append("Content Security Policy|Refused to")


def test_prices_pictures_and_links_look_as_promised(visit, chat_of):
    chat, _, _ = chat_of("It costs $5 or $10. [a](https://example.org/x) ![p](https://example.net/p.png) https://example.com/y")
    person = visit()
    page = person.go(f"#/c/{chat['id']}")
    page.wait_for_selector(".prose a")
    text = page.locator(".prose").inner_text()
    assert "It costs $5 or $10." in text
    assert "a (example.org)" in text, "a link shows where it leads"
    assert "p (example.net)" in text, "a picture elsewhere is a link"
    assert "https://example.com/y" in text
    assert page.locator(".prose img").count() == 0


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_only_text(visit, name):
    person = visit()
    page = person.go()
    file = {"name": name, "mimeType": "text/plain", "buffer": b"some text"}
    page.locator("input[type=file]").first.set_input_files(file)
    page.wait_for_selector(".chip")
    person.until("() => !document.querySelector('.chip .open')?.disabled || document.querySelector('.chip.wrong')")
    assert look_through(page) == []


def test_presets_from_a_file_are_checked(visit):
    person = visit()
    page = person.go("#/settings")
    file = page.locator("input[accept*=json]").first
    file.set_input_files({"name": "p.json", "mimeType": "application/json", "buffer": b"[1, 2]"})
    page.wait_for_selector("[role=alert]")
    file.set_input_files({"name": "p.json", "mimeType": "application/json", "buffer":
                          b'{"tenth": "presets", "presets": [{"name": "<img src=x onerror=alert(1)>", "model": null,'
                          b' "settings": {"temperature": 0.1, "unknown": 1, "system": "x", "top_k": "no"}}, 5, {}]}'})
    page.wait_for_selector("li .name")
    assert page.locator("li .name").all_inner_texts() == ["<img src=x onerror=alert(1)>"]
    assert look_through(page) == []
    page.get_by_role("button", name="Remove <img").click()
    page.wait_for_selector("li .name", state="detached")
