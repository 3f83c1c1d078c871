"""Long answers: what is finished is never made again, so the work for new text does not grow."""

from __future__ import annotations

import itertools

PARTS = [
    "A paragraph with **bold** text, `code` and a formula $x^{n}$ in it, number {n}.\n\n",
    "- item {n}\n- with *more*\n\n",
    "```python\ndef f{n}(x):\n    return x + {n}\n```\n\n",
    "| a | b |\n|---|---|\n| {n} | 2 |\n\n",
]


def long_text(characters):
    text = ""
    for n, part in zip(itertools.count(), itertools.cycle(PARTS)):
        text += part.replace("{n}", str(n))
        if len(text) > characters:
            return text
    return text


def tell_all(tell, chat, answer, text, step):
    tell("message", {"message": {**answer, "status": "running", "content": ""}})
    for at in range(0, len(text), step):
        tell("delta", {"chat_id": chat["id"], "message_id": answer["id"], "kind": "content", "from": at,
                       "text": text[at:at + step]})
        yield at
    tell("message", {"message": {**answer, "status": "done", "content": text}})


def test_finished_blocks_of_a_long_answer_stay_the_elements_they_were(visit, chat_of, tell):
    chat, _, answer = chat_of("x")
    person = visit()
    page = person.go(f"#/c/{chat['id']}")
    page.wait_for_selector(".prose")
    text = long_text(40_000)  # 10,000 tokens
    for at in tell_all(tell, chat, answer, text, 400):
        if at == 20_000:
            person.until("() => document.querySelectorAll('.prose > .block').length > 100")
            n = page.evaluate("""() => {
              window.__blocks = [...document.querySelector('.prose').children].slice(0, -3);
              window.__made = 0;
              new MutationObserver((all) => { for (const one of all) if (one.addedNodes.length) window.__made += 1; })
                .observe(document.querySelector('.prose'), {childList: true});
              return window.__blocks.length;
            }""")
    person.until("() => document.querySelector('[data-role=assistant]').dataset.status === 'done'")
    assert n > 100
    assert page.evaluate("() => window.__blocks.every((b, i) => document.querySelector('.prose').children[i] === b)")
    blocks = page.locator(".prose > .block").count()
    assert page.evaluate("() => window.__made") <= 2 * (blocks - n) + 10, "blocks were made more than once"


def test_streamed_text_ends_as_the_same_page_that_a_reload_shows(visit, chat_of, tell, server):
    text = long_text(3000) + "A [link][late] by reference.\n\n1. one\n2. two\n\n[late]: https://example.org/late\n"
    chat, _, answer = chat_of(text)
    person = visit()
    page = person.go(f"#/c/{chat['id']}")
    page.wait_for_selector(".prose a")
    drawn = "() => !document.querySelector('.tex:not(.drawn)') && document.querySelector('.prose li')"
    person.until(drawn)
    whole = page.locator(".prose").inner_text()
    for _ in tell_all(tell, chat, answer, text, 7):
        pass
    person.until("() => document.querySelector('[data-role=assistant]').dataset.status === 'done'")
    page.wait_for_selector(".prose a")
    person.until(drawn)
    assert page.locator(".prose").inner_text() == whole


def test_code_has_its_colours_while_it_grows_and_loses_none_of_its_text(visit, chat_of, tell):
    chat, _, answer = chat_of("x")
    person = visit()
    page = person.go(f"#/c/{chat['id']}")
    page.wait_for_selector(".prose")
    code = "".join(f"def f{n}(x):\n    return x + {n}  # a comment\n\n" for n in range(60))
    told = tell_all(tell, chat, answer, f"Here:\n\n```python\n{code}```\n\nThat is all.\n", 60)
    n_shown = "n => document.querySelectorAll('.code .hl-keyword').length > n"
    for n_deltas, n_words in ((3, 1), (20, 30)):  # of more than one piece
        for _ in range(n_deltas):
            next(told)
        person.until("() => document.querySelector('.code').innerText.includes('return')")
        person.until(n_shown, n_words)
        assert page.locator("[data-role=assistant]").get_attribute("data-status") == "running"
        shown = page.locator(".code code").text_content()
        assert shown
        assert code.startswith(shown)
    for _ in told:
        page.wait_for_timeout(10)
    person.until(n_shown, 119)
    assert page.locator(".code code").text_content() == code


def test_endless_paragraphs_lists_and_code_are_cut_and_stay_whole_to_the_eye(visit, chat_of, tell):
    kinds = {"p": "words that go on, and on. ", "li": "- an item with words\n", "code": "x = 1\n"}
    for tag, unit in kinds.items():
        chat, _, answer = chat_of("x", title=tag)
        text = ("```python\n" if tag == "code" else "") + unit * 600
        person = visit()
        page = person.go(f"#/c/{chat['id']}")
        page.wait_for_selector(".prose")
        for _ in tell_all(tell, chat, answer, text, 500):
            page.wait_for_timeout(5)
        person.until("() => document.querySelector('[data-role=assistant]').dataset.status === 'done'")
        n_words = len(text.replace("- ", "").split()) - (tag == "code")  # the fence is not shown
        person.until("([tag, n]) => [...document.querySelectorAll('.prose ' + tag)]"
                     ".flatMap((one) => one.innerText.match(/[^\\s]+/g) ?? []).length === n", [tag, n_words])
