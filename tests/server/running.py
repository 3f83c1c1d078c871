"""A real server in a thread of this process: the app, uvicorn, a socket, and clients that speak to it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import httpx2

import tenth
from tenth.server.app import App
from tenth.server.config import ServerConfig
from tenth.server.lan import open_lan
from tenth.server.running import Server, listen

DATA = Path(__file__).parents[1] / "data"
TINY = DATA / "golden_chat.gguf"
DEADLINE_S = 180.0  # for what happens at once on a machine that has nothing else to do


class Running:
    """``with Running({"tiny": TINY}, folder) as server: server.post("/v1/…", {...})``."""

    def __init__(self, models, folder, engine=None, place=None, app=None, **config):
        self.config = ServerConfig(**({"port": 0, "log_level": "error", "grace": 5.0} | config))
        self.engine = {"kv_tokens": 4096, "max_sequences": 4} | (engine or {})
        self.loads, self.place = [], place or Path(folder) / "state.db"
        self.app = App([(name, str(source)) for name, source in models.items()], self.load, self.config,
                       self.place, **(app or {}))
        self.sock = listen(self.config)
        self.port = self.sock.getsockname()[1]
        ready = threading.Event()
        self.lan = open_lan(self.config, self.port) if self.config.lan else None
        self.server = Server(self.app, self.sock, ready.set, self.lan)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        assert ready.wait(60), "the server did not start"
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx2.Client(base_url=self.url, timeout=DEADLINE_S, trust_env=False)

    def load(self, source):
        self.loads.append(source)
        return tenth.load(source, **{"note_experts": True} | self.engine)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.http.close()
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive(), "the server did not stop"
        self.sock.close()
        if self.lan is not None:
            self.lan.sock.close()

    def post(self, path, body, **how):
        return self.http.post(path, json=body, **how)

    def get(self, path, **how):
        return self.http.get(path, **how)

    def chat(self, model="tiny", content="Hi", **fields):
        body = {"model": model, "messages": [{"role": "user", "content": content}], **fields}
        return self.post("/v1/chat/completions", body)

    @property
    def served(self):
        """The first model."""
        return next(iter(self.app.shelf.models.values()))

    def opened(self):
        """Its model, open."""
        self.chat(self.served.name, max_tokens=1)
        return self.served.model

    def gate(self):
        return self.served.gate

    def engine_stats(self):
        return self.served.model.stats


class Held:
    """``with Held(model, after=2) as held``: a model's engine that waits before its third step from now.

    It goes on when ``held.go`` is set: so a test decides what happens first, on a machine of any speed. ``steps``: the
    batches that were computed.
    """

    def __init__(self, model, after=0):
        self.runtime, self.after, self.steps = model.loaded.runtime, after, []
        self.reached, self.go = threading.Event(), threading.Event()

    def __enter__(self):
        self._step, self._runs_ahead = self.runtime.step, self.runtime.runs_ahead
        self.runtime.step, self.runtime.runs_ahead = self._held, False
        return self

    def wait(self):
        """Until the engine has come to where it waits."""
        assert self.reached.wait(DEADLINE_S), "the engine has not come so far"

    def _held(self, batch):
        if len(self.steps) == self.after:
            self.reached.set()
            assert self.go.wait(DEADLINE_S), "nobody let the engine go on"
        self.steps.append(batch)
        return self._step(batch)

    def __exit__(self, *_):
        self.go.set()
        self.runtime.step, self.runtime.runs_ahead = self._step, self._runs_ahead


def wait_until(happens, within_s=DEADLINE_S):
    """Seconds until something is so."""
    start = time.perf_counter()
    while not happens():
        assert time.perf_counter() - start < within_s, "it never happened"
        time.sleep(0.005)
    return time.perf_counter() - start


def events(text):
    """The (name, JSON) pairs of a stream of events."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            data = fields["data"]
            found.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return found
