"""A server on a tiny model, and somebody who listens to its events."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager

import httpx2
import pytest

from ..running import TINY, Running
from .cluster import Cluster


@pytest.fixture(scope="package", params=["sqlite", "postgres"])
def place(request, tmp_path_factory):
    """Where a state may lie: a file, and a database of PostgreSQL."""
    if request.param == "sqlite":
        yield tmp_path_factory.mktemp("chats") / "state.db"
    else:
        yield request.getfixturevalue("postgres").new_database()


@pytest.fixture(scope="session")
def postgres():
    """PostgreSQL from the system's packages, in a folder of its own; skipped where there is none."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="package")
def desk(place):
    """A server without keys, with the tiny model."""
    with Running({"tiny": TINY}, "", place=place) as running:
        yield running


@contextmanager
def listening(running, last=None, headers=None):
    """A list that fills with (id, name, data) of events, until the block ends."""
    found, ready = [], threading.Event()
    client = httpx2.Client(base_url=running.url, timeout=60, trust_env=False)
    sent = {**(headers or {}), **({"last-event-id": last} if last else {})}

    def listen():
        try:
            with client.stream("GET", "/api/events", headers=sent) as answer:
                fields = {}
                for line in answer.iter_lines():
                    if line:
                        name, _, value = line.partition(": ")
                        fields[name] = value
                    elif "data" in fields:
                        found.append((fields["id"], fields["event"], json.loads(fields["data"])))
                        fields = {}
                        ready.set()
        except httpx2.HTTPError:
            ready.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert ready.wait(60), "no event came"
    try:
        yield found
    finally:
        client.close()


def wait_for(what, seconds=20):
    """The first true value of ``what()``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def new_chat(running, **fields):
    answer = running.post("/api/chats", fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def ask(running, chat, content="Hi", parent=None, **fields):
    """The (question, answer) as they are when the server has them."""
    body = {"content": content, "parent_id": parent, "settings": {"max_tokens": 12, "temperature": 0}} | fields
    answer = running.post(f"/api/chats/{chat['id']}/messages", body)
    assert answer.status_code == 201, answer.text
    return answer.json()["user"], answer.json()["answer"]


def messages(running, chat):
    return {one["id"]: one for one in running.get(f"/api/chats/{chat['id']}").json()["messages"]}


def ended(running, message):
    """The message once it has ended."""
    def find():
        found = messages(running, {"id": message["chat_id"]})[message["id"]]
        return found if found["status"] not in ("queued", "prompt", "running") else None

    return wait_for(find)
