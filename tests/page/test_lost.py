"""Connections that break in the middle of an answer: nothing is lost, nothing comes twice."""

from __future__ import annotations

import contextlib
import re
import socket
import threading

import pytest

from ..server.running import Running
from .conftest import SMALL


class Wire:
    """A relay between browser and server whose connections can be cut."""

    def __init__(self):
        self.port, self.is_cut, self.ends = 0, False, set()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                mine, _ = self.sock.accept()
                if self.is_cut:
                    mine.close()
                    continue
                other = socket.create_connection(("127.0.0.1", self.port))
                self.ends |= {mine, other}
                for one, two in ((mine, other), (other, mine)):
                    threading.Thread(target=self._relay, args=(one, two), daemon=True).start()

    def _relay(self, one, two):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                two.sendall(data)
        with contextlib.suppress(OSError):
            two.shutdown(socket.SHUT_RDWR)  # so that its own thread ends, too
        self.ends.discard(one)
        one.close()

    def cut(self):
        """Break every connection; new ones are refused until ``mend``."""
        self.is_cut = True
        for end in list(self.ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self):
        self.is_cut = False

    def close(self):
        self.cut()
        self.sock.shutdown(socket.SHUT_RDWR)  # ends the waiting for more
        self.sock.close()


@pytest.fixture
def wire():
    made = Wire()
    yield made
    made.close()


@pytest.fixture
def far(wire, small_file, tmp_path):
    """A server at the other end of the wire."""
    host = wire.url.removeprefix("http://")
    with Running({SMALL: small_file}, tmp_path, {"kv_tokens": 4096}, allow_host=[host]) as running:
        wire.port = running.port
        yield running


def test_an_answer_goes_on_without_its_connection_and_is_whole_afterwards(far, wire, visit):
    person = visit(server=far, max_tokens=150, base=wire.url)
    person.expected.append("ERR_EMPTY_RESPONSE|ERR_CONNECTION|ERR_INCOMPLETE|Failed to load resource")
    page = person.go()
    answer = person.ask("Tell a long story about a river.")
    person.wait_text(40)
    wire.cut()
    page.get_by_text("Not connected").first.wait_for()
    wire.mend()
    person.wait_done(answer)
    page.get_by_text("Not connected").first.wait_for(state="detached")
    chat = far.get(f"/api/chats/{page.url.partition('#/c/')[2]}").json()
    shown = answer.locator(".prose").inner_text()
    assert re.findall(r"\w+", shown) == re.findall(r"\w+", chat["messages"][-1]["content"])
    page.reload()
    person.wait_shown(shown)
