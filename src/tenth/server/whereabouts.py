"""Which process is a server, whether it still runs, and where the one of this data folder listens."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil

from tenth.library import library_folder
from tenth.server.databases import Kind


def server_name() -> str:
    """This process, so that another one can tell whether it still runs."""
    process = psutil.Process()
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.2f}"


def is_alive(server: str | None, kind: Kind) -> bool:
    """Whether a server that uses this database still runs.

    Of one on another machine nothing is known, so it counts as alive where machines can share a database. A file of
    SQLite is used by one machine: another name is that of a container before this one, or the machine's old one.
    """
    host, pid, created = (server or "//").rsplit("/", 2)
    if not server or host != socket.gethostname():
        return bool(server) and kind != "sqlite"
    if int(pid) == os.getpid():
        return server == server_name()
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == created
    except psutil.Error:
        return False


def _file() -> Path:
    return library_folder() / "server" / "running.json"


@contextlib.contextmanager
def announced(url: str) -> Iterator[None]:
    """Have ``tenth app`` find this process's server as long as the block runs."""
    file, text = _file(), json.dumps({"url": url, "server": server_name()})
    with contextlib.suppress(OSError):  # not found, then
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = file.with_name(f"{file.name}.{os.getpid()}")
        part.write_text(text)
        part.replace(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if file.read_text() == text:
                file.unlink()


def running() -> str | None:
    """The address of the server that runs with this data folder, the one that was started last."""
    try:
        found = json.loads(_file().read_text())
        url, server = str(found["url"]), str(found["server"])
        return url if is_alive(server, "sqlite") else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
