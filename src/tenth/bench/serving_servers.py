"""The servers that are compared under load: how each is called, started and ended, and who else uses the processors."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tenth.errors import RequestError, ResourceError

CONTEXT, SEQUENCES, KV_TOKENS = 8192, 8, 16384
START_S = 120
OURS = "tenth"


@dataclass(frozen=True)
class Contender:
    """A server: how it is called and started."""

    label: str
    command: str

    def arguments(self, model: str, port: int) -> list[str]:
        """The command line."""
        return [part.replace("{model}", model).replace("{port}", str(port)) for part in shlex.split(self.command)]


def ours() -> Contender:
    """tenth's server."""
    return Contender(OURS, f"{shlex.quote(sys.executable)} -m tenth serve bench={{model}} --port {{port}} "
                     f"--context {CONTEXT} --kv-tokens {KV_TOKENS} --max-sequences {SEQUENCES} --no-speculate "
                     "--log-level error")


def peer(text: str) -> Contender:
    """What --peer says. Raises RequestError."""
    label, _, command = text.partition("=")
    if not label or not command.strip():
        raise RequestError(f"{text!r} names no server", "--peer LABEL=COMMAND, with {model} and {port} in the command")
    return Contender(label, command)


@contextmanager
def running(contender: Contender, model: Path) -> Iterator[tuple[int, psutil.Process]]:
    """The port of a server with its model loaded, and its process; ended with the block. Raises ResourceError."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(contender.arguments(str(model), port), stdout=log, stderr=log, cwd=home,
                                   env=os.environ | {"TENTH_HOME": home})
        try:
            _wait(contender, process, port)
            yield port, psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _wait(contender: Contender, process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise ResourceError(f"{contender.label} did not start", contender.command)


class Others:
    """How much of the machine's processors others take from now on, beside these and the clients in this process."""

    def __init__(self, measured: Sequence[psutil.Process]) -> None:
        self._mine = (*measured, psutil.Process())
        self._start_s, self._before_s = time.perf_counter(), self._used_s()

    def _used_s(self) -> float:
        everything = psutil.cpu_times()
        mine = sum(part for process in self._mine for part in process.cpu_times()[:2])
        return float(sum(everything) - everything.idle - getattr(everything, "iowait", 0.0) - mine)

    def share(self) -> float:
        """Of all processors' time."""
        seconds = (time.perf_counter() - self._start_s) * (psutil.cpu_count() or 1)
        return max(0.0, (self._used_s() - self._before_s) / seconds)
