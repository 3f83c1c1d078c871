"""Debian's chromium, and real servers on the real small model."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess

import pytest

from tenth.errors import TenthError
from tenth.library import resolve
from tenth.server.chats.revs import next_rev

from ..server.running import Running
from .visiting import ROOT, Visit, missing, open_chromium, tell_pages

NODE = (20, 19)  # the least that Vite 8 runs on
SMALL = "smollm2:135m"


@pytest.fixture(scope="package")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    with sync_playwright() as playwright:
        chromium = open_chromium(playwright.chromium)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def sources(tmp_path_factory):
    """A copy of the page's sources with the packages that its lock file names; skips where they cannot be had."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node is not installed; only changing the page needs it")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < NODE:
        pytest.skip(f"node {version} is too old to build the page, expected {NODE}")
    folder = tmp_path_factory.mktemp("page") / "web"
    shutil.copytree(ROOT / "web", folder, ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(["npm", "ci", "--prefer-offline"], cwd=folder, capture_output=True, text=True,
                               timeout=300)
    if installed.returncode and re.search(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT", installed.stderr):
        pytest.skip(f"the page's packages cannot be had: {installed.stderr[-300:]}")
    assert installed.returncode == 0, installed.stderr
    return folder


@pytest.fixture(scope="package")
def axe(sources):
    """The source of axe-core."""
    return (sources / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture(scope="package")
def small_file(tmp_path_factory):
    """The small model, from the library or fetched for this run."""
    try:
        return resolve(SMALL, download=False)
    except TenthError:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TENTH_HOME", str(tmp_path_factory.mktemp("home")))
            try:
                return resolve(SMALL)
            except TenthError as error:
                pytest.skip(f"{SMALL} cannot be had: {error.message}")


@pytest.fixture(scope="package")
def server(small_file, tmp_path_factory):
    """A server on the small model, without keys. It leaves the browser a processor of a machine with two.

    With both in use two thousand tokens were written before the browser drew the first of them.
    """
    settings = {"kv_tokens": 16384, "threads": 1}
    with Running({SMALL: small_file}, tmp_path_factory.mktemp("page"), settings) as running:
        yield running


@pytest.fixture
def visit(browser, server):
    """Makes visits; each is looked through at its end."""
    with contextlib.ExitStack() as stack:
        def make(**how):
            made = Visit(browser, how.pop("server", server), **how)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def tell(server):
    """Tells every page of this machine's owner of an event, as the server itself does."""
    revs = {}  # of the messages told of

    def tell(name, value):
        if name == "message":
            rev = revs[value["message"]["id"]] = next_rev(value["message"]["rev"])
            value = {"message": {**value["message"], "rev": rev}}
        elif name == "delta":
            value = {**value, "rev": revs[value["message_id"]]}
        tell_pages(server, name, value)

    return tell


@pytest.fixture
def chat_of(server):
    """Makes a chat with a question and this answer; gives (chat, question, answer)."""
    def make(content, question="What?", title="A chat"):
        headers = {"origin": server.url}
        chat = server.post("/api/chats", {"title": title}, headers=headers).json()
        path = f"/api/chats/{chat['id']}/messages"
        asked = server.post(path, {"content": question, "settings": {"max_tokens": 1}}, headers=headers).json()
        user, answer = asked["user"], asked["answer"]
        server.post(f"{path}/{answer['id']}/stop", {}, headers=headers)
        changed = server.http.patch(f"{path}/{answer['id']}", json={"content": content}, headers=headers)
        assert changed.status_code == 200, changed.text
        return chat, user, changed.json()

    return make
