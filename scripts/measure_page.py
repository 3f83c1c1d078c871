"""How smooth the chat page stays while an answer of 10,000 tokens streams: python scripts/measure_page.py [--slow 8].

A real server tells Debian's chromium of an answer made of everything that Markdown can, or of one endless list, block
of code or paragraph. Printed is what the page's own thread did: the longest task, tasks over 50 ms, the longest time
between two frames; and of tasks also the time that they had a processor, which other programs do not lengthen.
``--slow`` divides the CPU's speed, as a phone would.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.page.visiting import Visit, open_chromium
from tests.server.running import TINY, Running

from tenth.server.chats.revs import next_rev

CHARACTERS = 40_000  # of 10,000 tokens
TOLD_S = 0.03  # the server gathers text for so long
PARAGRAPH = ("Here is a sentence with **bold**, *italic* and `code`, a formula $e^{i\\pi} + 1 = 0$, and a "
             "[link](https://example.org/a). It goes on for a while, as answers do, with nothing much to say.\n\n")
MIXED = PARAGRAPH * 2 + """## A heading

- one thing
- another, with `code`
  1. inside
  2. inside again

| a | b | c |
|---|--:|:-:|
| 1 | 2 | 3 |
| 4 | 5 | 6 |

```python
def add(a: int, b: int) -> int:
    \"\"\"The sum.\"\"\"
    return a + b  # nothing else
```

$$\\int_0^1 x^2\\,dx = \\frac{1}{3}$$

"""
TEXTS = {
    "mixed": MIXED,
    "code": "def f(x):\n    return x + 1  # more\n\n",
    "list": "- an item with **bold** text and a few more words than needed\n",
    "paragraph": "words without any end that go on and on, with *some* emphasis here and there and ",
}
WATCH = """() => {
  window.__tasks = []; window.__frames = []; let last = performance.now();
  new PerformanceObserver((list) => list.getEntries().forEach((e) => __tasks.push(e.duration)))
    .observe({entryTypes: ['longtask']});
  const frame = (now) => { __frames.push(now - last); last = now; requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
}"""


def text_of(kind: str) -> str:
    """40,000 characters of a kind."""
    unit = TEXTS[kind]
    whole = unit * (CHARACTERS // len(unit) + 1)
    return ("```python\n" if kind == "code" else "") + whole[:CHARACTERS] + ("\n```\n" if kind == "code" else "")


def stream(server: Running, chat: str, answer: dict, text: str, tokens_per_second: float) -> None:
    """Tell of the text as the server would while a model writes it."""
    loop = server.server.servers[0].get_loop()

    async def tell() -> None:
        hub = server.app.chats.hub
        rev = next_rev(answer["rev"])
        hub.tell("local", "message", {"message": {**answer, "rev": rev, "status": "running", "content": ""}})
        at, step = 0, max(1, round(4 * tokens_per_second * TOLD_S))
        start = time.monotonic()
        while at < len(text):
            hub.tell("local", "delta", {"chat_id": chat, "message_id": answer["id"], "kind": "content", "from": at,
                                        "text": text[at:at + step], "rev": rev})
            at += step
            await asyncio.sleep(max(0.0, start + at / step * TOLD_S - time.monotonic()))
        hub.tell("local", "message", {"message": {**answer, "rev": next_rev(rev), "status": "done", "content": text}})

    asyncio.run_coroutine_threadsafe(tell(), loop).result()


def measure(server: Running, visit: Visit, kind: str, args: argparse.Namespace) -> dict:
    """One answer, watched."""
    headers = {"origin": server.url}
    chat = server.post("/api/chats", {"title": kind}, headers=headers).json()["id"]
    made = server.post(f"/api/chats/{chat}/messages", {"content": kind, "settings": {"max_tokens": 1}}, headers=headers)
    answer = made.json()["answer"]
    visit.page.goto("about:blank")
    page = visit.go(f"#/c/{chat}")
    page.wait_for_selector("[data-role=assistant][data-status=done]")
    session = visit.context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": args.slow})
    page.evaluate(WATCH)
    browser = visit.context.browser
    browser.start_tracing(page=page, categories=["toplevel"])
    stream(server, chat, answer, text_of(kind), args.speed)
    page.wait_for_timeout(2000)
    tasks, frames = page.evaluate("[__tasks, __frames]")
    used = processor_ms(browser.stop_tracing())
    frames.sort()
    return {"text": kind, "slow": args.slow, "longest_task_ms": round(max(tasks, default=0)),
            "tasks_over_50_ms": len(tasks), "frames": len(frames), "longest_frame_ms": round(frames[-1]),
            "frames_over_50_ms": sum(frame > 50 for frame in frames),
            "frame_99_percent_ms": round(frames[int(len(frames) * 0.99)]),
            "longest_task_processor_ms": round(max(used)), "tasks_over_50_processor_ms": sum(ms > 50 for ms in used)}


def processor_ms(trace: bytes) -> list[float]:
    """How long each task of the busiest page's main thread had a processor."""
    events = json.loads(trace)["traceEvents"]
    main = {(one["pid"], one["tid"]) for one in events
            if one["name"] == "thread_name" and one["args"]["name"] == "CrRendererMain"}
    tasks: dict[tuple[int, int], list[float]] = {}
    for one in events:
        thread = (one["pid"], one["tid"])
        if one["name"].endswith("RunTask") and thread in main and "tdur" in one:
            tasks.setdefault(thread, []).append(one["tdur"] / 1000)
    return max(tasks.values(), key=sum)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slow", type=float, default=1, help="divide the CPU's speed by this")
    parser.add_argument("--speed", type=float, default=500, help="tokens per second")
    parser.add_argument("--text", choices=TEXTS, action="append", help="what the answer is made of (default: all)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Running({"tiny": TINY}, folder) as server, \
            sync_playwright() as playwright:
        browser = open_chromium(playwright.chromium)
        visit = Visit(browser, server)
        for kind in args.text or TEXTS:
            print(json.dumps(measure(server, visit, kind, args)), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
