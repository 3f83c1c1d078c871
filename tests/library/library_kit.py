"""What the library's tests share: tiny GGUF files, wheels for pip, a server that knows ranges, processes to kill."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tenth.library import catalogue
from tenth.library.sources.pypi import Wheels

DRIVER = Path(__file__).with_name("library_driver.py")


def gguf_bytes(n_payload: int = 300_000, seed: int = 1) -> bytes:
    """A well-formed GGUF file: two keys, one F32 tensor of ``n_payload`` bytes that no compressor can shrink."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    n_weights = n_payload // 4
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2)
    head += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head += text("llama.context_length") + struct.pack("<II", 4, 2048)
    head += text("token_embd.weight") + struct.pack("<IQIQ", 1, n_weights, 0, 0)
    head += b"\0" * (-len(head) % 32)
    blocks = (hashlib.sha256(f"{seed} {i}".encode()).digest() for i in range(n_weights * 4 // 32 + 1))
    return head + b"".join(blocks)[: n_weights * 4]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder: Path, package: str, members: dict[str, bytes], version: str = "1.0") -> Path:
    module = package.replace("-", "_")
    path = folder / f"{module}-{version}-py3-none-any.whl"
    info = f"{module}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


class WheelModel:
    """A model in ``n_parts`` wheels of a find-links folder, in the catalogue as tiny:1."""

    def __init__(self, folder: Path, n_parts: int = 2):
        self.folder, self.content, self.n_parts = folder, gguf_bytes(), n_parts
        step = len(self.content) // n_parts + 1
        self.wheels = [
            write_wheel(folder, f"tiny-part{i + 1}",
                        {f"tiny_part{i + 1}/data/part0{i + 1}.bin": self.content[i * step : (i + 1) * step]})
            for i in range(n_parts)
        ]  # fmt: skip
        self.digest = sha256(self.content)

    def row(self) -> catalogue.CatalogueModel:
        wheels = Wheels("tiny-part{n}==1.0", "tiny_part{n}/data/part{n:02}.bin", "tiny.gguf", self.n_parts)
        return catalogue.CatalogueModel("tiny:1", ("tiny",), "A test", "none", len(self.content), self.digest, wheels)

    def driver_row(self) -> str:
        return json.dumps({"size": len(self.content), "sha256": self.digest, "n_parts": self.n_parts})


class FileServer(ThreadingHTTPServer):
    """Serves ``folder`` on 127.0.0.1. Faults are attributes that a test sets; ``requests`` is what was asked."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.ranges = True  # False: every reply is the whole file, status 200
        self.etags = True
        self.block_delay_s = 0.0  # per 16 KiB
        self.hold_at: int | None = None  # stop there until ``go_on`` is set
        self.go_on = threading.Event()
        self.drops: list[int] = []  # for each coming request: close after so many bytes
        self.statuses: list[int] = []  # for each coming request: answer this status
        self.replies: dict[str, tuple[int, dict[str, str], bytes]] = {}  # path -> a reply that is no file
        self.sent_bytes = 0  # of bodies, over all requests
        self.requests: list[tuple[str, dict[str, str]]] = []

    def url(self, name: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}/{name}"

    def ranges_asked(self) -> list[str | None]:
        return [headers.get("range") for _, headers in self.requests]

    def handle_error(self, request, client_address):
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self):
        server, path = self.server, self.path.partition("?")[0]
        server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if server.statuses:
            return self._send(server.statuses.pop(0), {}, b"busy")
        if path in server.replies:
            return self._send(*server.replies[path])
        file = server.folder / path.strip("/")
        if not file.is_file():
            return self._send(404, {}, b"no")
        self._send_file(file.read_bytes())

    def _send_file(self, data: bytes):
        server, tag = self.server, f'"{sha256(data)[:16]}"'
        headers = {"ETag": tag} if server.etags else {}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not (server.ranges and match) or self.headers.get("If-Range", tag) != tag:
            return self._send(200, headers, data, server.drops)
        start = int(match[1])
        if start >= len(data):
            return self._send(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        end = min(int(match[2] or len(data)) + 1, len(data))
        self._send(
            206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}, data[start:end], server.drops
        )

    def _send(self, status: int, headers: dict[str, str], body: bytes, drops: list[int] | tuple[()] = ()):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        end = drops.pop(0) if drops else len(body)
        for start in range(0, end, 16384):
            self.wfile.write(body[start : min(start + 16384, end)])
            self.server.sent_bytes += min(16384, end - start)
            if self.server.hold_at is not None and start >= self.server.hold_at:
                self.server.go_on.wait()
            if self.server.block_delay_s:
                time.sleep(self.server.block_delay_s)
        if end < len(body):
            self.close_connection = True

    def log_message(self, *args):
        pass


def start_driver(*args: str, **env: str) -> subprocess.Popen:
    """``library_driver.py`` in a process of its own, with this test's environment."""
    return subprocess.Popen([sys.executable, str(DRIVER), *args], env=os.environ | env, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def run_driver(*args: str, **env: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of ``library_driver.py``."""
    process = start_driver(*args, **env)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def wait_for(condition, timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came to the moment that was waited for"
        time.sleep(0.005)
