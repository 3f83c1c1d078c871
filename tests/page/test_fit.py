"""Every view on a phone, in every language."""

from __future__ import annotations

import pytest

from ..server import moe
from ..server.chats.test_library import bare, packaged  # noqa: F401  (a catalogue with the tiny model in it)
from ..server.running import TINY, Running
from .fitting import FROM_LEFT, FROM_RIGHT, InLanguages

PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
LINK = {"url": "https://192.168.178.123:8010/#pair=" + "x" * 43, "expires_at": 4e9, "is_tls": True,
        "authority": ":".join(["AB"] * 32)}
PASSWORD = "a long password"
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


@pytest.fixture(params=[FROM_LEFT, FROM_RIGHT], ids=["from the left", "from the right"])
def phone(request, visit):
    """Makes a visit with a phone; gives the person, and what checks what is shown."""
    def make(**how):
        person = visit(locale=request.param[0], **PHONE, **how)
        return person, InLanguages(person, request.param).check

    return make


def open_all(page):
    page.evaluate("""() => document.querySelectorAll('main details, dialog details').forEach(
      (one) => { one.open = true; })""")


def close(person):
    page = person.page
    if page.locator("dialog input[type=search]").count():
        page.fill("dialog input[type=search]", "")  # Escape would clear it first
    page.keyboard.press("Escape")
    person.until("() => !document.querySelector('dialog[open], [role=menu]:popover-open')")


def test_every_place_fits_a_phone(phone, full):
    person, check = phone()
    page = person.page
    person.context.route("**/api/pairing", lambda route: route.fulfill(status=201, json=LINK))
    for view in ("models", "settings", "phone", "accounts"):
        person.go(f"#/{view}")
        if view == "models":
            page.locator("main article").first.wait_for()
        person.settle()
        open_all(page)
        check(view)
    page.locator("main .button").first.tap()
    page.locator("dialog").wait_for()
    check("a new account")


def test_chats_and_all_that_opens_over_them_fit_a_phone(phone, full, tell, tmp_path):
    chat, answer = full
    person, check = phone()
    person.expected.append("400 \\(Bad Request\\)")
    page = person.go(f"#/c/{chat['id']}")
    page.locator(".prose").wait_for()
    check("the chat")
    for keys in ("Control+k", "Control+/", "Alt+s"):
        page.keyboard.press(keys)
        page.locator("dialog").wait_for()
        open_all(page)
        if keys == "Control+k":
            page.keyboard.type("answer")
            page.locator("[role=option]").first.wait_for()
        check(keys)
        close(person)
    for number, opener in enumerate(page.locator("main [aria-haspopup]").all()):
        opener.tap()
        page.locator("dialog, [role=menu]:popover-open").first.wait_for()
        check(f"menu {number}")
        close(person)
    page.locator("header button").first.tap()
    person.until("() => getComputedStyle(document.querySelector('nav')).visibility === 'visible'")
    page.locator("nav [aria-expanded=false]:not([aria-haspopup])").first.tap()  # the folder
    check("the drawer")
    for number, opener in enumerate(page.locator("nav [aria-haspopup]").all()[:2]):
        opener.tap()
        page.locator("[role=menu]:popover-open").wait_for()
        check(f"menu {number} of the drawer")
        page.locator("[role=menu]:popover-open button:last-child").tap()  # asks whether to delete
        page.locator("dialog").wait_for()
        check("a question")
        close(person)
    page.keyboard.press("Escape")

    (tmp_path / LONG).write_text("word " * 12000)
    (tmp_path / "data.bin").write_bytes(b"\0" * 100)
    (tmp_path / "short.md").write_text("# Short")
    for name in (LONG, "data.bin", "short.md"):
        page.locator("input[type=file]").first.set_input_files(tmp_path / name)
    page.locator(".chip").nth(2).wait_for()
    person.until("() => document.querySelectorAll('.chip.wrong').length === 2")
    check("attachments")
    tell("message", {"message": {**answer, "status": "running", "content": ""}})
    delta = {"chat_id": chat["id"], "message_id": answer["id"], "kind": "thinking", "from": 0, "text": "Now " * 60}
    tell("delta", delta)
    page.locator(".thinking .end").wait_for()
    check("thinking")
    tell("message", {"message": {**answer, "status": "interrupted", "content": "One."}})
    page.locator(".note").first.wait_for()
    check("interrupted")


@pytest.fixture
def experts(tmp_path):
    with Running({"moe": moe.write(tmp_path / "moe.gguf")}, tmp_path) as running:
        yield running


def test_what_is_behind_an_answer_fits_a_phone(experts, phone):
    person, check = phone(server=experts, max_tokens=30)
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
    check("tokens and experts")
    answer.locator(".cost").tap()
    page.locator("dialog").wait_for()
    check("the cost")


def test_the_first_run_and_what_is_said_in_passing_fit_a_phone(bare, phone, tmp_path):  # noqa: F811
    person, check = phone(server=bare)
    person.expected.append("400 \\(Bad Request\\)")
    page = person.go()
    page.locator("main .button.primary").wait_for()
    check("the first run")
    page.locator("main .button.primary").tap()
    page.locator("main section li button").nth(2).wait_for()
    check("the examples")
    person.go("#/settings")
    open_all(page)
    (tmp_path / "presets.json").write_text("not JSON")
    for one in page.locator("input[type=file]").all():
        one.set_input_files(tmp_path / "presets.json")
    page.locator(".toast").first.wait_for()
    check("a toast")


@pytest.fixture
def office(tmp_path):
    """A server of two people with accounts."""
    with Running({"tiny": TINY}, tmp_path) as running:
        headers = {"origin": running.url}
        for name, role in (("ada", "admin"), ("a-member-with-quite-a-long-name-of-an-account", "member")):
            account = {"name": name, "password": PASSWORD, "role": role, "requests_per_minute": 30}
            made = running.post("/api/users", account, headers=headers)
            assert made.status_code == 201, made.text
            running.post("/api/session", {"name": "ada", "password": PASSWORD}, headers=headers)
        yield running


def test_signing_in_and_a_list_of_accounts_fit_a_phone(office, phone):
    person, check = phone(server=office)
    person.expected.append("401|403")
    page = person.page
    page.goto(office.url)
    page.locator("form input[type=password]").wait_for()
    check("signing in")
    page.locator("form .quiet").tap()
    check("signing in by key")
    page.locator("form .quiet").tap()
    page.locator("form input").first.fill("ada")
    page.locator("form input[type=password]").fill("wrong password")
    page.locator("form .primary").tap()
    page.get_by_role("alert").wait_for()
    check("a wrong password")
    page.locator("form input[type=password]").fill(PASSWORD)
    page.locator("form .primary").tap()
    page.locator("main .hello").wait_for()
    person.go("#/accounts")
    page.locator("main article").nth(1).wait_for()
    check("accounts of several")
    for number in range(2):
        page.locator("main article").nth(1).locator(".quiet").nth(number).tap()
        page.locator("dialog").wait_for()
        check(f"window {number} of an account")
        close(person)
