"""Every view, as people with other languages, eyes, hands and devices meet it."""

from __future__ import annotations

import pytest

from .fitting import check_it_fits

VIEWS = {"welcome": "#/", "models": "#/models", "settings": "#/settings", "phone": "#/phone"}
RICH = """# A heading

Some **text** with `code`, a [link](https://example.org/x) and $x^2$.

| a | b |
|---|--:|
| 1 | 2 |

```python
def f(x: int) -> int:
    return x  # same
```

- one
- two
"""


LOOKS = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "contrast": {"contrast": "more"},
    "dark-contrast": {"color_scheme": "dark", "contrast": "more"},
    "phone": {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True},
    "right-to-left": {"locale": "ar"},
}


@pytest.mark.parametrize("looks", LOOKS)
def test_no_view_has_anything_that_axe_minds(visit, chat_of, axe, looks):
    chat, _, _ = chat_of(RICH, title="A chat to look at")
    person = visit(**LOOKS[looks])
    for name, hash in {**VIEWS, "chat": f"#/c/{chat['id']}"}.items():
        page = person.go(hash)
        person.settle()
        if name == "chat":
            page.wait_for_selector(".prose .drawn")
            page.wait_for_selector(".hl-keyword")
        person.picture(f"{looks}-{name}")
        person.check_axe(axe)
    if looks == "phone":
        page.get_by_role("button", name="Show or hide the sidebar").first.tap()
        person.settle()
        person.picture("phone-drawer")
        person.check_axe(axe)
        page.keyboard.press("Escape")
        person.until("() => getComputedStyle(document.querySelector('nav')).visibility === 'hidden'")


@pytest.mark.parametrize(("keys", "title"), [("Control+k", "Search"), ("Control+/", "Keyboard shortcuts"),
                                             ("Alt+s", "Chat settings")])
def test_windows_over_the_page_have_nothing_that_axe_minds(visit, axe, keys, title):
    person = visit()
    page = person.go()
    page.keyboard.press(keys)
    page.get_by_role("dialog", name=title).wait_for()
    if title == "Chat settings":
        page.locator("summary").click()
    person.picture(title.lower().replace(" ", "-"))
    person.check_axe(axe)
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")


def test_menus_have_nothing_that_axe_minds(visit, chat_of, axe):
    chat, _, _ = chat_of("An answer.")
    person = visit()
    page = person.go(f"#/c/{chat['id']}")
    for name in ("Choose the model: smollm2", "Attach", "More about A chat"):
        page.get_by_role("button", name=name).first.click()
        page.get_by_role("menuitem").or_(page.get_by_role("menuitemradio")).first.wait_for()
        person.check_axe(axe)
        page.keyboard.press("Escape")


def test_everything_can_be_done_with_the_keyboard_alone(visit):
    person = visit()
    page = person.go()
    person.until("() => document.activeElement.dataset.action === 'write'")  # one can type at once
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    page.keyboard.press("Shift+Escape")
    person.until("() => document.activeElement.dataset.action === 'write'")
    page.keyboard.type("Say hello.")
    page.keyboard.press("Enter")
    answer = page.locator("[data-role=assistant]")
    answer.wait_for()
    person.wait_done(answer)
    page.keyboard.press("Alt+r")
    page.wait_for_selector("[data-role=assistant] :text('2 of 2')")
    person.wait_done(page.locator("[data-role=assistant]"))
    page.keyboard.press("Alt+,")
    page.wait_for_selector("[data-role=assistant] :text('1 of 2')")
    page.keyboard.press("Alt+e")
    page.wait_for_selector("[data-role=user] textarea")
    page.keyboard.press("Control+a")
    page.keyboard.type("Say goodbye.")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".bubble:text('Say goodbye.')")
    page.keyboard.press("Control+Shift+O")
    person.until("() => !document.querySelector('[data-message]')")
    page.keyboard.press("Alt+ArrowDown")
    page.wait_for_selector("[data-message]")
    page.keyboard.press("Alt+m")
    page.get_by_role("menu").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+S")
    page.wait_for_selector("nav", state="hidden")
    page.keyboard.press("Control+Shift+S")
    page.wait_for_selector("nav", state="visible")
    names = page.evaluate("""() => [...document.querySelectorAll('button, a, input, select, textarea')]
      .filter((one) => one.checkVisibility() && one.tabIndex < 0 && !one.closest('[role=menu]'))
      .map((one) => one.outerHTML)""")
    assert names == [], "these cannot be reached by Tab"


@pytest.mark.parametrize("code", ["en", "de", "fr", "es", "zh", "ar", "hi", "sw"])
def test_the_page_speaks_the_browsers_language(visit, code):
    person = visit(locale=code)
    page = person.go()
    page.wait_for_selector("[data-action=write]")
    assert page.evaluate("() => document.documentElement.lang") == code
    assert page.evaluate("() => document.documentElement.dir") == ("rtl" if code == "ar" else "ltr")
    welcome = page.locator(".hello").inner_text()
    assert (welcome == "What would you like to know?") == (code == "en")
    person.picture(f"language-{code}")


def test_from_right_to_left_the_page_is_mirrored(visit, chat_of):
    chat, _, _ = chat_of("مرحبا بالعالم\n\n```python\nx = 1\n```", question="سؤال")
    person = visit(locale="ar")
    page = person.go(f"#/c/{chat['id']}")
    page.wait_for_selector(".prose .code")
    nav, main = page.locator("nav").bounding_box(), page.locator("main").bounding_box()
    assert nav["x"] > main["x"], "the sidebar stands on the right"
    assert page.locator(".prose p").first.evaluate("(one) => getComputedStyle(one).direction") == "rtl"
    assert page.locator(".code pre").evaluate("(one) => getComputedStyle(one).direction") == "ltr"


def test_on_a_phone_everything_fits(visit, chat_of):
    chat, _, _ = chat_of(RICH + "\n\n" + "a" * 300 + "\n\n```\n" + "x" * 300 + "\n```\n")
    person = visit(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    for name, hash in {**VIEWS, "chat": f"#/c/{chat['id']}"}.items():
        page = person.go(hash)
        check_it_fits(person, name)
    page.get_by_role("button", name="Show or hide the sidebar").first.tap()
    page.get_by_role("link", name="A chat").first.tap()
    person.until("() => getComputedStyle(document.querySelector('nav')).visibility === 'hidden'")


def test_a_keyboard_on_the_screen_leaves_the_input_in_view(visit, chat_of):
    chat, _, _ = chat_of(RICH * 5)
    person = visit(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = person.go(f"#/c/{chat['id']}")
    page.locator("[data-action=write]").tap()
    page.set_viewport_size({"width": 360, "height": 340})  # what resizes-content does when a keyboard comes
    person.until("() => document.querySelector('[data-action=write]').getBoundingClientRect().bottom <= 340")
    person.until("() => { const one = document.querySelector('.scroller');"
                 " return one.scrollHeight - one.scrollTop - one.clientHeight < 5; }")


def test_a_keyboard_that_lies_over_the_page_leaves_the_input_in_view(visit, chat_of):
    chat, _, _ = chat_of(RICH * 5)
    person = visit(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = person.go(f"#/c/{chat['id']}")
    cover = """(height) => { Object.defineProperty(visualViewport, 'height', {value: height, configurable: true});
      visualViewport.dispatchEvent(new Event('resize')); }"""  # as Safari tells of one
    page.evaluate(cover, 340)
    bottom = "(most) => document.querySelector('[data-action=write]').getBoundingClientRect().bottom <= most"
    person.until(bottom, 340)
    page.keyboard.press("Control+k")
    page.locator("dialog").wait_for()
    person.until("() => document.querySelector('dialog').getBoundingClientRect().bottom <= 340")
    page.keyboard.press("Escape")
    page.evaluate(cover, 640)
    person.until(f"() => !({bottom})(500)")


def test_a_notch_and_a_home_bar_cover_nothing(visit, chat_of):
    chat, _, _ = chat_of(RICH * 5)
    person = visit(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = person.page
    insets = {"top": 47, "topMax": 47, "bottom": 34, "bottomMax": 34}
    person.context.new_cdp_session(page).send("Emulation.setSafeAreaInsetsOverride", {"insets": insets})
    for hash in (f"#/c/{chat['id']}", "#/models"):
        person.go(hash)
        person.until("() => document.querySelector('main button')?.getBoundingClientRect().top >= 47")
    person.go(f"#/c/{chat['id']}")
    person.until("() => document.querySelector('form.composer')?.getBoundingClientRect().bottom <= 640 - 34")
    page.get_by_role("button", name="Show or hide the sidebar").first.tap()
    person.settle()
    box = page.locator("nav .brand").bounding_box()
    assert box["y"] >= 47
    box = page.locator("nav .places a").last.bounding_box()
    assert box["y"] + box["height"] <= 640 - 34


@pytest.mark.parametrize("locale", ["en", "ar"])
def test_a_finger_pushes_the_drawer_out_of_the_screen(visit, locale):
    person = visit(locale=locale, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = person.go()
    session = person.context.new_cdp_session(page)

    def push(start, end):
        moves = [("Move", start + (end - start) * n / 8) for n in range(1, 9)]
        for kind, x in [("Start", start), *moves, ("End", None)]:
            points = [] if x is None else [{"x": x, "y": 300}]
            session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
        person.settle()
        return page.locator("nav").evaluate("(one) => getComputedStyle(one).visibility")

    page.locator("header button").first.tap()
    person.settle()
    start, aside = (200, -1) if locale == "en" else (160, 1)
    assert push(start, start - aside * 100) == "visible", "it is pushed the other way only"
    assert push(start, start + aside * 30) == "visible", "too little"
    assert push(start, start + aside * 150) == "hidden"


def test_reduced_motion_stops_what_moves(visit):
    person = visit(reduced_motion="reduce")
    page = person.go()
    page.wait_for_selector(".frame")
    assert page.locator(".frame").evaluate("(one) => getComputedStyle(one).transitionDuration") in ("0s", "0")


def test_a_screen_reader_hears_the_answer_politely(visit, chat_of, tell):
    chat, _, answer = chat_of("x")
    person = visit()
    page = person.go(f"#/c/{chat['id']}")
    page.wait_for_selector(".prose")
    page.evaluate("""() => { window.__heard = []; new MutationObserver(() => window.__heard.push(
      document.querySelector('[aria-live=polite]').textContent)).observe(
      document.querySelector('[aria-live=polite]'), {childList: true, characterData: true, subtree: true}); }""")
    tell("message", {"message": {**answer, "status": "running", "content": ""}})
    tell("delta", {"chat_id": chat["id"], "message_id": answer["id"], "kind": "content", "from": 0, "text": "One. Tw"})
    person.until("() => window.__heard.length")
    tell("message", {"message": {**answer, "status": "done", "content": "One. Two."}})
    person.until("() => /complete/.test(window.__heard.at(-1))")
    heard = page.evaluate("() => window.__heard")
    assert heard[0] == "The answer begins."
    assert "".join(heard[1:]).replace(" ", "") == "One.Two.Theansweriscomplete.", "each sentence once"
    assert len(heard) <= 3


def test_the_shell_opens_without_its_server(visit):
    person = visit()
    person.expected.append("ERR_INTERNET_DISCONNECTED|Failed to load resource|Failed to fetch")
    page = person.go()
    person.until("() => navigator.serviceWorker.ready.then(() => !!navigator.serviceWorker.controller)")
    person.context.set_offline(True)
    page.reload()
    page.get_by_role("heading", name="The server is not there").wait_for()
    person.picture("offline")
    person.context.set_offline(False)
    page.wait_for_selector("[data-action=write]")  # notices by itself


def test_at_an_eighth_of_the_speed_the_page_stays_usable(visit):
    person = visit()
    page = person.go()
    session = person.context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": 8})
    person.ask("Count to ten.")
    person.until("() => document.activeElement.dataset.action === 'write'")
    page.keyboard.type("meanwhile")  # keys are taken while the answer comes
    assert page.input_value("[data-action=write]") == "meanwhile"
    person.wait_text(5)
    page.keyboard.press("Escape")
    ended = "() => /stopped|done/.test(document.querySelector('[data-role=assistant]').dataset.status)"
    person.until(ended)
    page.keyboard.press("Control+k")
    page.get_by_role("dialog", name="Search").wait_for()
