"""kill -9 while three chats stream: every acknowledged message is there, and what of the answers was saved.

``TENTH_KILLS=20 TENTH_SEED=1 pytest -s`` of this file kills more often, at other moments, and says how much was lost.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tenth.server.databases import open_engine

from .conftest import wait_for

N_KILLS, SEED = int(os.environ.get("TENTH_KILLS", "2")), int(os.environ.get("TENTH_SEED", "6"))
LONG = {"max_tokens": 4000, "temperature": 0.7, "system": "Write a very long story."}


class Killed:
    """``tenth serve`` in a process of its own, with somebody who reads what it tells."""

    def __init__(self, env, model, database):
        words = ["serve", f"small={model}", "--port", "0", "--log-level", "error", "--kv-tokens", "16384"]
        self.process = subprocess.Popen([sys.executable, "-m", "tenth", *words, *database], env=env,
                                        stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        assert "127.0.0.1:" in line, line + self.process.stderr.read()
        self.http = httpx2.Client(base_url="http://127.0.0.1:" + line.split("127.0.0.1:")[1].split()[0], timeout=60,
                                  trust_env=False)
        self.told = {}  # answer -> [(when, length of the content that was told by then)]
        self.threads = [threading.Thread(target=self.process.stderr.read),
                        threading.Thread(target=self._listen, daemon=True)]
        for thread in self.threads:
            thread.start()

    def _listen(self):
        try:
            with httpx2.stream("GET", f"{self.http.base_url}/api/events", timeout=60, trust_env=False) as answer:
                name = None
                for line in answer.iter_lines():
                    field, _, value = line.partition(": ")
                    if field == "event":
                        name = value
                    elif field == "data" and name == "delta":
                        data = json.loads(value)
                        told = self.told.setdefault(data["message_id"], [])
                        told.append((time.monotonic(), data["from"] + units(data["text"])))
        except httpx2.HTTPError:
            pass

    def post(self, path, body):
        answer = self.http.post(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def kill(self):
        at = time.monotonic()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)
        for thread in self.threads:
            thread.join(20)
        self.process.stderr.close()
        self.http.close()
        return at


def keep_asking(served, chats, acknowledged, stop):
    """Short questions, one after the other, so that a kill may come in the middle of a write."""
    n = 0
    while not stop.is_set():
        try:
            said = served.post(f"/api/chats/{chats[n % 3]}/messages", {
                "content": f"question {n} {'x' * (n % 7) * 100}", "settings": {"max_tokens": 1}})
        except (httpx2.HTTPError, AssertionError) as error:
            if "429" not in str(error) and "answers are being made" not in str(error):
                return
            continue
        acknowledged[said["user"]["id"]] = said["user"]["content"]
        n += 1


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, shell_env):
    """(flags of the command line, where the state is)."""
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").new_database()
        return ["--database", url], url
    return [], Path(shell_env["TENTH_HOME"]) / "server" / "state.db"


def saved(place, ids):
    """(content, status) of these messages, as another process reads them now."""
    engine = open_engine(place)
    try:
        rows = {row["id"]: row for id in ids for row in engine.query(
            "SELECT id, content, status FROM messages WHERE id = ?", (id,))}
        return [(rows[id]["content"], rows[id]["status"]) for id in ids]
    finally:
        engine.close()


def units(text):
    return len(text.encode("utf-16-le")) // 2


def stream_and_kill(served, place, acknowledged, chance):
    """Three answers stream and questions are asked; then the server is killed. Gives a chat and its answer that was
    cut off, and what was lost."""
    chats = [served.post("/api/chats", {})["id"] for _ in range(3)]
    answers = []
    for chat in chats:
        said = served.post(f"/api/chats/{chat}/messages", {"content": "A story.", "settings": LONG})
        acknowledged[said["user"]["id"]] = "A story."
        answers.append(said["answer"]["id"])
    wait_for(lambda: all(id in served.told for id in answers), 120)
    had = [served.told[id][-1][1] for id in answers]  # what was told by now is saved soon, whatever else happens
    wait_for(lambda: all(units(text) >= n for (text, _), n in zip(saved(place, answers), had, strict=True)), 60)
    stop = threading.Event()
    asking = threading.Thread(target=keep_asking, args=(served, chats, acknowledged, stop))
    asking.start()
    time.sleep(chance.uniform(0.2, 1.5))
    at = served.kill()
    stop.set()
    asking.join(30)

    lost_s, cut = 0.0, []
    for chat, id, (text, status), n in zip(chats, answers, saved(place, answers), had, strict=True):
        assert status in ("running", "done"), "a story may end by itself, now and then"
        assert units(text) >= n
        cut += [(chat, id)] if status == "running" else []
        lost_s = max(lost_s, at - min((when for when, n in served.told[id] if n > units(text)), default=at))
    assert cut, "every story had ended"
    return *cut[0], lost_s


def check_file(place):
    with closing(sqlite3.connect(place)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.execute("INSERT INTO found (found) VALUES ('integrity-check')")


@pytest.mark.model
def test_nothing_acknowledged_is_lost(shell_env, real, database):
    flags, place = database
    chance, acknowledged = random.Random(SEED), {}
    for _ in range(1 if flags else N_KILLS):
        served = Killed(shell_env, real.served.source, flags)
        chat, answer, lost_s = stream_and_kill(served, place, acknowledged, chance)
        print(f"killed: {len(acknowledged)} questions acknowledged, {lost_s:.2f} s of answers lost")
        if isinstance(place, Path):
            check_file(place)
        engine = open_engine(place)
        there = dict(tuple(row) for row in engine.query("SELECT id, content FROM messages WHERE role = 'user'", ()))
        engine.close()
        assert {id: there.get(id) for id in acknowledged} == acknowledged

    served = Killed(shell_env, real.served.source, flags)  # and it goes on
    try:
        def message():
            found = served.http.get(f"/api/chats/{chat}").json()["messages"]
            return next(one for one in found if one["id"] == answer)

        left = wait_for(lambda: message()["status"] == "interrupted" and message())
        served.post(f"/api/chats/{chat}/messages/{answer}/continue", {})
        wait_for(lambda: served.told.get(answer), 120)
        assert message()["content"].startswith(left["content"])
    finally:
        served.kill()
