"""How fast a large store of chats opens and is searched, and what the server takes for history and page.

    python scripts/measure_chats.py [MODEL] [--chats 10000] [--messages 20]

Makes a store of made-up chats in a temporary folder, each of so many messages with words that are as frequent as in
languages (Zipf). Opening and searching are measured in fresh processes, with the file's pages in the page cache and
without. Memory: the resident size of ``tenth serve`` beside that of a process that has the same model open and has
answered the same question, after the page was loaded, chats listed, read and searched, and an answer streamed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx2
import psutil

RUNS = 10  # fresh processes for each figure
QUERIES = ("w7", "w1 w2", "w900 w901", '"w3 w5"', "w12", "rarest", "w4321", "nowhere", "w1 w2 w3 w4", "w19")
ENGINE = """
import sys, time, psutil, tenth
with tenth.load(sys.argv[1], kv_tokens=4096, context=4096, max_sequences=4, note_experts=True) as model:
    model.chat([{"role": "user", "content": "Why is the sky blue?"}], max_tokens=60, temperature=0, top_logprobs=5).text
    print(psutil.Process().memory_info().rss)
"""
OPEN = """
import json, sys, time
from pathlib import Path
from tenth.server.chats.parts import ChatServer  # everything that is imported is not opened
from tenth.server.chats.search import Search, open_index
from tenth.server.chats.store import Chats
from tenth.server.state import State
start = time.perf_counter()
state = State(Path(sys.argv[1]))
chats = Chats(state, open_index(state))
first = chats.all("local", 100)
opened = time.perf_counter() - start
search, times = Search(state, open_index(state)), {}
for query in sys.argv[2:]:
    start = time.perf_counter()
    n = len(search.hits("local", query, 50))
    times[query] = (time.perf_counter() - start, n)
start = time.perf_counter()
chats.messages("local", first[0]["id"])
print(json.dumps({"open": opened, "search": times, "read": time.perf_counter() - start}))
"""


def make(path: Path, n_chats: int, n_messages: int) -> None:
    """The store."""
    from tenth.server.chats.search import open_index
    from tenth.server.chats.store import Chats
    from tenth.server.state import State

    chance = random.Random(0)
    words = [f"w{n}" for n in range(20_000)]
    weights = [1 / (n + 1) for n in range(len(words))]
    total, sums = 0.0, []
    for weight in weights:
        total += weight
        sums.append(total)
    state = State(path)
    state.engine._writer.execute("PRAGMA synchronous=OFF")  # only while it is made
    chats = Chats(state, open_index(state))
    for n in range(n_chats):
        at, messages = 1.7e9 + n, []
        for m in range(n_messages):
            text = " ".join(chance.choices(words, cum_weights=sums, k=chance.randint(10, 120)))
            messages.append({"key": m, "parent": m - 1 if m else None, "role": "assistant" if m % 2 else "user",
                             "content": text + (" rarest" if n == n_chats // 2 and not m else ""), "files": [],
                             "created_at": at + m})
        chats.add_whole("local", {"title": " ".join(chance.choices(words, cum_weights=sums, k=5)), "is_pinned": False,
                                  "settings": {}, "created_at": at, "updated_at": at, "model": None, "folder_id": None,
                                  "current": n_messages - 1}, messages)
    state.close()


def fresh(path: Path, is_cold: bool) -> dict:
    """One fresh process that opens the store and searches it."""
    for file in path.parent.iterdir():
        if is_cold and file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    done = subprocess.run([sys.executable, "-c", OPEN, str(path), *QUERIES], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def told(name: str, values: list[float]) -> None:
    """A line of figures, in milliseconds."""
    values = [1000 * value for value in values]
    print(f"{name:<44} median {statistics.median(values):7.1f} ms, worst {max(values):7.1f} ms, n {len(values)}")


def memory(home: Path, model: str) -> None:
    """What the server takes beside the engine."""
    env = os.environ | {"TENTH_HOME": str(home)}
    alone = int(subprocess.run([sys.executable, "-c", ENGINE, model], check=True, capture_output=True, text=True,
                               env=env).stdout)
    flags = ["--port", "0", "--kv-tokens", "4096", "--context", "4096", "--max-sequences", "4", "--log-level", "error"]
    server = subprocess.Popen([sys.executable, "-m", "tenth", "serve", f"m={model}", *flags], env=env,
                              stderr=subprocess.PIPE, text=True)
    try:
        line = server.stderr.readline()
        url = "http://127.0.0.1:" + line.split("127.0.0.1:")[1].split()[0]
        threading.Thread(target=server.stderr.read, daemon=True).start()
        process = psutil.Process(server.pid)
        print(f"engine alone, after an answer                {alone / 1e6:7.1f} MB")
        print(f"server, ready                                {process.memory_info().rss / 1e6:7.1f} MB")
        with httpx2.Client(base_url=url, timeout=120, trust_env=False) as http:
            page = http.get("/").text
            for part in page.split('"'):
                if part.startswith("/assets/"):
                    http.get(part)
            chat = "/api/chats/" + http.get("/api/chats").json()["chats"][0]["id"]
            for path in ("/api/session", "/api/folders", "/api/presets", "/api/machine", chat):
                http.get(path)
            for query in QUERIES:
                http.get("/api/search", params={"q": query})
            http.post(f"{chat}/messages", json={
                "content": "Why is the sky blue?", "settings": {"max_tokens": 60, "temperature": 0}}).raise_for_status()
            while http.get(chat).json()["messages"][-1]["status"] in ("queued", "prompt", "running"):
                time.sleep(0.1)
            for what in ("after page, history, search, answer", "after the list of models too"):
                used = process.memory_info().rss
                print(f"server, {what:<36} {used / 1e6:7.1f} MB: {(used - alone) / 1e6:.1f} MB more")
                http.get("/api/library")
    finally:
        server.terminate()
        server.wait(60)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="a file; without one memory is not measured")
    parser.add_argument("--chats", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="keep the store there, or take the one that is there")
    parser.add_argument("--messages", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        path = folder / "server" / "state.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            make(path, given.chats, given.messages)
        print(f"{given.chats} chats, {given.chats * given.messages} messages, {path.stat().st_size / 1e6:.0f} MB")
        for is_cold in (False, True):
            found = [fresh(path, is_cold) for _ in range(RUNS)]
            name = "cold" if is_cold else "warm"
            told(f"{name}: open, and list 100 chats", [one["open"] for one in found])
            told(f"{name}: read a chat", [one["read"] for one in found])
            for query in QUERIES:
                n = found[0]["search"][query][1]
                told(f"{name}: search {query} ({n} hits)", [one["search"][query][0] for one in found])
        if given.model:
            memory(folder, given.model)


if __name__ == "__main__":
    main()
