"""Several people at one server: accounts made on the page, signing in, and a phone that comes by a link."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..server.running import TINY, Running
from .visiting import Visit, open_chromium

ADMIN, MEMBER = ("ada", "a long password"), ("ben", "another password")


@pytest.fixture
def office(tmp_path):
    with Running({"tiny": TINY}, tmp_path) as running:
        yield running


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A server with a door to the network (here: an address of this machine only)."""
    monkeypatch.setenv("TENTH_HOME", str(tmp_path / "home"))
    with Running({"tiny": TINY}, tmp_path, lan=True, lan_address="127.0.0.2") as running:
        yield running


def sign_in(page, name, password):
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def make_account(page, name, password):
    page.get_by_role("button", name="New account").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Password").fill(password)
    dialog.get_by_role("button", name="Create account").click()


def test_accounts_are_made_limited_and_kept_apart(office, visit, axe):
    person = visit(server=office, max_tokens=5)
    person.expected.append("401|403|ERR_INCOMPLETE|Failed to load")
    page = person.go()
    person.wait_done(person.ask("A question from before."))
    page.get_by_role("link", name="Accounts").click()
    make_account(page, *ADMIN)
    page.get_by_role("heading", name="Sign in").wait_for()  # from now on everybody has to
    person.picture("login")
    person.check_axe(axe)
    sign_in(page, ADMIN[0], "wrong")
    page.get_by_role("alert").wait_for()
    sign_in(page, *ADMIN)
    page.locator("nav li", has_text="A question from before").wait_for()  # hers now
    page.get_by_role("link", name="Accounts").click()
    make_account(page, *MEMBER)
    page.get_by_role("button", name="Limits of ben").click()
    page.get_by_label("Requests per minute").fill("3")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    page.get_by_text("Requests per minute: 3").wait_for()
    person.picture("accounts")
    person.check_axe(axe)
    page.get_by_role("button", name="Sign out ada").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    sign_in(page, *MEMBER)
    page.locator("nav").wait_for()
    page.get_by_text("Your chats will be listed here.").wait_for()
    assert page.get_by_role("link", name="Accounts").count() == 0
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Password until now").fill(MEMBER[1])
    page.get_by_label("New password").fill("the third password")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("heading", name="Sign in").wait_for()  # every session of his has ended
    sign_in(page, MEMBER[0], "the third password")
    page.get_by_role("button", name="Sign out ben").wait_for()


def test_a_phone_scans_the_code_and_sees_the_desks_chats_live(house, visit):
    desk = visit(server=house, max_tokens=5)
    page = desk.go("#/phone")
    page.get_by_role("img", name="Code to scan with the phone").wait_for()
    desk.picture("phone-code")
    link = page.locator(".link").inner_text()
    assert "/#pair=" in link
    page.get_by_text("The connection is encrypted").wait_for()
    phone = visit(server=house, base=link.partition("/#")[0], ignore_https_errors=True, is_mobile=True,
                  has_touch=True, viewport={"width": 360, "height": 640})
    phone.expected.append("401|SSL certificate")  # asked before it is let in; a browser cannot know the certificate
    phone.page.goto(link)
    phone.page.wait_for_selector("[data-action=write]")
    assert "pair" not in phone.page.url, "the secret is gone from the address"
    page.get_by_role("link", name="New chat").click()
    desk.wait_done(desk.ask("From the desk"))
    phone.page.get_by_role("button", name="Show or hide the sidebar").first.tap()
    phone.page.locator("nav li a", has_text="From the desk").tap()
    phone.page.wait_for_selector("[data-role=assistant][data-status=done]")
    second = visit(server=house, base=link.partition("/#")[0], ignore_https_errors=True)
    second.expected.append("401|SSL certificate")
    second.page.goto(link)  # which counts once
    second.page.get_by_role("heading", name="Sign in").wait_for()


@pytest.fixture
def trusting_browser(browser, house, tmp_path):
    """A browser on a device where the certificate of the house's authority was installed, as the page gave it."""
    (tmp_path / "tenth.crt").write_bytes(house.get("/tenth.crt").content)
    home = tmp_path / "device"
    subprocess.run([sys.executable, Path(__file__).with_name("trust.py"), home, tmp_path / "tenth.crt"], check=True)
    chromium = open_chromium(browser.browser_type, env={**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": ""})
    yield chromium
    chromium.close()


def test_a_device_that_trusts_the_machine_opens_the_page_offline(house, visit, trusting_browser, axe):
    desk = visit(server=house)
    page = desk.go("#/phone")
    page.get_by_text("No more warning, and open offline").click()
    page.get_by_text(house.lan.certificate.authority_fingerprint).wait_for()
    assert page.get_by_role("link", name="Download the certificate").get_attribute("href") == "/tenth.crt"
    desk.picture("phone-trust")
    desk.check_axe(axe)
    link = page.locator(".card .link").inner_text()
    with contextlib.closing(Visit(trusting_browser, house, base=house.lan.url, max_tokens=5, is_mobile=True,
                                  has_touch=True, viewport={"width": 360, "height": 640})) as phone:
        phone.expected.append("401|ERR_INTERNET_DISCONNECTED|Failed to load resource|Failed to fetch")
        phone.page.goto(link)  # no warning to be clicked away
        phone.page.wait_for_selector("[data-action=write]")
        phone.until("() => navigator.serviceWorker.ready.then(() => !!navigator.serviceWorker.controller)")
        phone.context.set_offline(True)
        phone.page.reload()
        phone.page.get_by_role("heading", name="The server is not there").wait_for()
        phone.context.set_offline(False)
        phone.page.wait_for_selector("[data-action=write]")
