"""A person at the page: a browser context that watches for policy violations, errors and requests elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]
PICTURES = ROOT / "build" / "page"  # what the views look like: kept as artefacts
PATIENCE_S = 120  # for what has to come: a busy machine is slow, and waiting costs nothing where it is not
SETTLED = """() => new Promise((done) => {
  let left = 6;  // frames in which nothing happens
  new MutationObserver(() => { left = 6; }).observe(document, {subtree: true, childList: true, attributes: true});
  const isFinite = (one) => one.playState === 'running' && one.effect.getComputedTiming().activeDuration < Infinity;
  const look = () => {
    left = document.getAnimations().some(isFinite) ? 6 : left - 1;
    if (left < 0) done(true);
    else requestAnimationFrame(look);
  };
  look();
})"""
SHOWN = """([text, status]) => {
  const answer = [...document.querySelectorAll('[data-role=assistant]')].at(-1);
  return answer?.dataset.status === status && answer.querySelector('.prose')?.innerText === text;
}"""
WATCH = """
window.__violations = [];
addEventListener('securitypolicyviolation', (event) => window.__violations.push(
  `${event.violatedDirective} ${event.blockedURI} ${event.sample} ${event.sourceFile}:${event.lineNumber}`));
window.__ran = [];
window.alert = window.confirm = window.prompt = (text) => { window.__ran.push(String(text)); };
"""


def missing(reason):
    """Skip; but where a browser was promised (``TENTH_NEED_BROWSER``), fail."""
    if os.environ.get("TENTH_NEED_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


def open_chromium(chromium, **how):
    """Debian's chromium, by playwright's type of browser."""
    if not Path(CHROMIUM).exists():
        missing(f"{CHROMIUM} is not installed (apt-get install chromium)")
    return chromium.launch(executable_path=CHROMIUM, args=FLAGS, **how)


def tell_pages(server, name, value):
    """Tell every page of this machine's owner of an event, as the server itself does."""

    async def now():
        server.app.chats.hub.tell("local", name, value)

    asyncio.run_coroutine_threadsafe(now(), server.server.servers[0].get_loop()).result(10)


class Late:
    """Replies of the server that were made and do not arrive before ``arrive``."""

    def __init__(self, page, method, pattern):
        self.page, self.method, self.pattern, self.held = page, method, re.compile(pattern), []
        self.is_past = False
        page.route(self.pattern, self._hold)

    def _hold(self, route):
        if route.request.method != self.method or self.is_past:
            return route.fallback()
        self.held.append((route, route.fetch()))

    def wait(self):
        """Wait until the server has made one."""
        end = time.monotonic() + PATIENCE_S
        while not self.held:
            assert time.monotonic() < end, "nothing was asked for"
            self.page.wait_for_timeout(20)

    def arrive(self):
        self.wait()
        self.is_past = True
        for route, response in self.held:
            with self.page.expect_event("requestfinished", lambda one, asked=route.request: one.url == asked.url):
                route.fulfill(response=response)
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


class Visit:
    """A page of one person. ``close`` fails when anything ran, was refused by the policy, or went elsewhere."""

    def __init__(self, browser, server, max_tokens=40, base=None, **how):
        self.base = base or server.url
        self.server, self.max_tokens = server, max_tokens  # of each answer: a small model does not know when to stop
        self.errors, self.elsewhere = [], []
        # Patterns of console errors that a test brings about. 409: there is no link for a phone without a door.
        self.expected = ["404 \\(Not Found\\)", "409 \\(Conflict\\)"]
        self.context = browser.new_context(**({"locale": "en", "viewport": {"width": 1280, "height": 800}} | how))
        self.context.add_init_script(WATCH)
        self.context.on("request", self._on_request)
        self.context.route("**/api/chats", self._make_short)
        self.page = self.new_page()

    def new_page(self):
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return page

    def _make_short(self, route):
        if route.request.method != "POST":
            return route.continue_()
        body = route.request.post_data_json
        body["settings"] = {"max_tokens": self.max_tokens, "temperature": 0, **body.get("settings", {})}
        return route.continue_(post_data=json.dumps(body))

    def _on_request(self, request):
        if not request.url.startswith((self.base, "blob:", "data:")):
            self.elsewhere.append(request.url)

    def go(self, hash="#/", page=None):
        page = page or self.page
        page.goto(f"{self.base}/{hash}")
        page.wait_for_selector("main > *")
        return page

    def write(self, text, page=None):
        (page or self.page).fill("[data-action=write]", text)

    def ask(self, text, page=None):
        """Send a question; gives its answer's element as a locator."""
        page = page or self.page
        before = page.locator("[data-role=assistant]").count()
        self.write(text, page)
        page.keyboard.press("Enter")
        answer = page.locator("[data-role=assistant]").nth(before)
        answer.wait_for()
        return answer

    def until(self, script, arg=None, page=None, seconds=PATIENCE_S):
        """Wait until a script gives something true. (Playwright's own evaluates text, which the policy forbids.)"""
        page = page or self.page
        end = time.monotonic() + seconds
        while not page.evaluate(script, arg):
            assert time.monotonic() < end, f"it did not become true: {script}"
            page.wait_for_timeout(60)

    def wait_done(self, answer, status="done"):
        self.until("([id, status]) => document.querySelector(`[data-message='${id}']`)?.dataset.status === status",
                   [answer.get_attribute("data-message"), status], answer.page)

    def wait_shown(self, text, page=None, status="done"):
        """Wait until the last answer has ended with this text."""
        self.until(SHOWN, [text, status], page)

    def wait_text(self, n, page=None):
        """Wait until the last answer has more than n characters."""
        self.until("n => [...document.querySelectorAll('[data-role=assistant] .prose')].at(-1)?.innerText.length > n",
                   n, page)

    def settle(self, page=None):
        """Wait until nothing moves: for pictures, and for what is measured or looked through."""
        (page or self.page).evaluate(SETTLED)

    def picture(self, name, page=None):
        PICTURES.mkdir(parents=True, exist_ok=True)
        (page or self.page).screenshot(path=PICTURES / f"{name}.png")

    def check_axe(self, axe):
        """No violation of WCAG 2.2 A and AA, nor of good practice, as far as axe (its source) can tell."""
        page = self.page
        self.settle()  # fading in changes contrast
        page.evaluate(f"(() => {{ {axe} }})()")  # the policy allows no script element
        found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]] == []

    def _end_answers(self):
        """What nobody reads any more does not slow the next test."""
        headers = {"origin": self.server.url}
        for one in self.server.get("/api/stats").json().get("answers", ()):  # none where one has to log in
            self.server.post(f"/api/chats/{one['chat_id']}/messages/{one['message_id']}/stop", {}, headers=headers)

    def close(self):
        for page in self.context.pages:
            if page.url.startswith("http"):
                assert page.evaluate("window.__ran") == [], "a script of somebody else ran"
                assert page.evaluate("window.__violations") == [], "the policy was violated"
        self.context.close()
        self._end_answers()
        left = [text for text in self.errors if not any(re.search(pattern, text) for pattern in self.expected)]
        assert left == [], "the console has errors"
        assert self.elsewhere == [], "the page asked another host"
