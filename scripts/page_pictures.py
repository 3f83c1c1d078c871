"""Takes the README's pictures of the chat page: a desk and a phone, of a real answer of a real model.

python scripts/page_pictures.py [MODEL] needs playwright, Debian's chromium and the model in the library.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.page.visiting import Visit, open_chromium
from tests.server.running import Running

from tenth.library import resolve

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MODEL = "qwen2.5-coder:1.5b"
OTHERS = ("How do I prune a rose?", "Letter to the landlord", "Names for a small cat")
QUESTION = ("Write a Python function that says whether a text is a palindrome, ignoring case and all but letters. "
            "Then give a table of three examples and their results.")
PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True, "device_scale_factor": 1.5}


def take(visit: Visit, name: str, dark: bool) -> None:
    """One picture, small enough for a repository."""
    page = visit.page
    page.emulate_media(color_scheme="dark" if dark else "light")
    page.mouse.move(5, 5)
    page.wait_for_timeout(700)
    page.screenshot(path=IMAGES / f"{name}.png")


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else MODEL
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright, \
            Running({model: resolve(model)}, folder, {"kv_tokens": 8192}) as server:
        browser = open_chromium(playwright.chromium)
        headers = {"origin": server.url}
        for title in OTHERS:
            server.post("/api/chats", {"title": title}, headers=headers)
        chat = server.post("/api/chats", {"title": "Palindromes", "settings": {"temperature": 0, "max_tokens": 400}},
                           headers=headers).json()
        desk = Visit(browser, server, viewport={"width": 1280, "height": 860})
        desk.go(f"#/c/{chat['id']}")
        answer = desk.ask(QUESTION)
        desk.until("id => document.querySelector(`[data-message='${id}']`).dataset.status === 'done'",
                   answer.get_attribute("data-message"), seconds=600)
        desk.page.locator(".scroller").evaluate("(one) => one.scrollTo(0, 0)")
        take(desk, "desk", dark=False)
        phone = Visit(browser, server, **PHONE)
        phone.go(f"#/c/{chat['id']}")
        phone.page.wait_for_selector(".hl-keyword")
        take(phone, "phone", dark=True)
        browser.close()


if __name__ == "__main__":
    main()
