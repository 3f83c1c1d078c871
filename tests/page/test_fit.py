"""Every view on a phone, in the languages with the longest words and in those written otherwise."""

from __future__ import annotations

import pytest

from ..server import moe
from ..server.chats.test_library import bare, packaged  # noqa: F401  (a catalogue with the tiny model in it)
from ..server.running import Running
from .fitting import check_it_fits

PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
LINK = {"url": "https://192.168.178.123:8010/#pair=" + "x" * 43, "expires_at": 4e9, "is_tls": True,
        "authority": ":".join(["AB"] * 32)}
LONG = "A_name_of_a_file_that_nobody_would_give_it_but_programs_do_2026-11-29_final_version.txt"


@pytest.fixture
def full(server, chat_of):
    """What fills lists: folders, presets, chats with long titles; gives a chat."""
    headers = {"origin": server.url}
    chat, _, answer = chat_of("An answer with **Markdown**.", title="A title that is longer than any phone is wide")
    name = "A folder with a very long name for such a small thing"
    folder = server.post("/api/folders", {"name": name}, headers=headers).json()
    change = {"folder_id": folder["id"], "is_pinned": False}
    server.http.patch(f"/api/chats/{chat['id']}", json=change, headers=headers)
    named = {"name": "A preset with a long name as well", "model": None, "settings": {}}
    preset = server.post("/api/presets", named, headers=headers).json()
    yield chat, answer
    server.http.delete(f"/api/folders/{folder['id']}", headers=headers)
    server.http.delete(f"/api/presets/{preset['id']}", headers=headers)


def open_all(page):
    page.evaluate("""() => document.querySelectorAll('main details, dialog details').forEach(
      (one) => { one.open = true; })""")


def close(person):
    page = person.page
    if page.locator("dialog input[type=search]").count():
        page.fill("dialog input[type=search]", "")  # Escape would clear it first
    page.keyboard.press("Escape")
    person.until("() => !document.querySelector('dialog[open], [role=menu]:popover-open')")


@pytest.mark.parametrize("code", ["de", "sw", "ar", "hi"])
def test_every_place_fits_a_phone(visit, full, code):
    person = visit(locale=code, **PHONE)
    page = person.page
    person.context.route("**/api/pairing", lambda route: route.fulfill(status=201, json=LINK))
    for view in ("models", "settings", "phone", "accounts"):
        person.go(f"#/{view}")
        person.settle()
        open_all(page)
        person.picture(f"fit-{code}-{view}")
        check_it_fits(person, view)
    page.locator("main .button").first.tap()
    page.locator("dialog").wait_for()
    person.picture(f"fit-{code}-account")
    check_it_fits(person, "a new account")


@pytest.mark.parametrize("code", ["de", "sw", "ar", "hi"])
def test_chats_and_all_that_opens_over_them_fit_a_phone(visit, full, tell, code, tmp_path):
    chat, answer = full
    person = visit(locale=code, **PHONE)
    person.expected.append("400 \\(Bad Request\\)")
    page = person.go(f"#/c/{chat['id']}")
    page.locator(".prose").wait_for()
    check_it_fits(person, "the chat")
    for keys in ("Control+k", "Control+/", "Alt+s"):
        page.keyboard.press(keys)
        page.locator("dialog").wait_for()
        open_all(page)
        if keys == "Control+k":
            page.keyboard.type("answer")
            page.locator("[role=option]").first.wait_for()
        person.picture(f"fit-{code}-{keys.replace('/', 'slash')}")
        check_it_fits(person, keys)
        close(person)
    for number, opener in enumerate(page.locator("main [aria-haspopup]").all()):
        opener.tap()
        page.locator("dialog, [role=menu]:popover-open").first.wait_for()
        person.picture(f"fit-{code}-menu-{number}")
        check_it_fits(person, f"menu {number}")
        close(person)
    page.locator("header button").first.tap()
    person.until("() => getComputedStyle(document.querySelector('nav')).visibility === 'visible'")
    page.locator("nav [aria-expanded=false]:not([aria-haspopup])").first.tap()  # the folder
    person.picture(f"fit-{code}-drawer")
    check_it_fits(person, "the drawer")
    for number, opener in enumerate(page.locator("nav [aria-haspopup]").all()[:2]):
        opener.tap()
        page.locator("[role=menu]:popover-open").wait_for()
        person.picture(f"fit-{code}-drawer-menu-{number}")
        check_it_fits(person, f"menu {number} of the drawer")
        page.locator("[role=menu]:popover-open button:last-child").tap()  # asks whether to delete
        page.locator("dialog").wait_for()
        check_it_fits(person, "a question")
        close(person)
    page.keyboard.press("Escape")

    (tmp_path / LONG).write_text("word " * 12000)
    (tmp_path / "data.bin").write_bytes(b"\0" * 100)
    (tmp_path / "short.md").write_text("# Short")
    for name in (LONG, "data.bin", "short.md"):
        page.locator("input[type=file]").first.set_input_files(tmp_path / name)
    page.locator(".chip").nth(2).wait_for()
    person.until("() => document.querySelectorAll('.chip.wrong').length === 2")
    person.picture(f"fit-{code}-files")
    check_it_fits(person, "attachments")
    tell("message", {"message": {**answer, "status": "running", "content": ""}})
    delta = {"chat_id": chat["id"], "message_id": answer["id"], "kind": "thinking", "from": 0, "text": "Now " * 60}
    tell("delta", delta)
    page.locator(".thinking .end").wait_for()
    person.picture(f"fit-{code}-thinking")
    check_it_fits(person, "thinking")
    tell("message", {"message": {**answer, "status": "interrupted", "content": "One."}})
    page.locator(".note").first.wait_for()
    check_it_fits(person, "interrupted")


@pytest.fixture
def experts(tmp_path):
    with Running({"moe": moe.write(tmp_path / "moe.gguf")}, tmp_path) as running:
        yield running


@pytest.mark.parametrize("code", ["de", "ar"])
def test_what_is_behind_an_answer_fits_a_phone(experts, visit, code):
    person = visit(server=experts, max_tokens=30, locale=code, **PHONE)
    page = person.go()
    person.write("Hi")
    page.locator("form button[type=submit]").tap()  # Enter begins a line where there is no keyboard
    answer = page.locator("[data-role=assistant]").first
    answer.wait_for()
    person.wait_done(answer)
    page.keyboard.press("Alt+i")
    page.locator("canvas").wait_for()
    tokens = answer.locator(".tokens button")
    tokens.nth(1).tap()
    answer.locator(".alternatives tbody tr").first.wait_for()
    person.picture(f"fit-{code}-inside")
    check_it_fits(person, "tokens and experts")
    answer.locator(".cost").tap()
    page.locator("dialog").wait_for()
    person.picture(f"fit-{code}-cost")
    check_it_fits(person, "the cost")


@pytest.mark.parametrize("code", ["de", "ar"])
def test_the_first_run_and_what_is_said_in_passing_fit_a_phone(bare, visit, code, tmp_path):  # noqa: F811
    person = visit(server=bare, locale=code, **PHONE)
    person.expected.append("400 \\(Bad Request\\)")
    page = person.go()
    page.locator("main .button.primary").wait_for()
    person.picture(f"fit-{code}-first-run")
    check_it_fits(person, "the first run")
    page.locator("main .button.primary").tap()
    page.locator("main section li button").nth(2).wait_for()
    person.picture(f"fit-{code}-examples")
    check_it_fits(person, "the examples")
    person.go("#/settings")
    open_all(page)
    (tmp_path / "presets.json").write_text("not JSON")
    for one in page.locator("input[type=file]").all():
        one.set_input_files(tmp_path / "presets.json")
    page.locator(".toast").first.wait_for()
    person.picture(f"fit-{code}-toast")
    check_it_fits(person, "a toast")
