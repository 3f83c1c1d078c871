"""``tenth app``: one server, however often it is asked for, and the page in the browser."""

import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest

from tenth.cli import app, qr, serve
from tenth.server import whereabouts
from tenth.server.config import ServerConfig


@pytest.fixture
def browser(tmp_path):
    """A "browser" that notes what it was sent to."""
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/opened\n')
    script.chmod(0o755)
    return script


def start(env, *words, command="app"):
    return subprocess.Popen([sys.executable, "-m", "tenth", command, *words], env=env, text=True,
                            stderr=subprocess.PIPE)


def opened(folder, n):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        file = folder / "opened"
        if file.exists() and len(lines := file.read_text().splitlines()) >= n:
            return lines
        time.sleep(0.05)
    raise AssertionError("no browser was opened")


@pytest.mark.parametrize(("host", "given", "here"), [
    ("127.0.0.1", "http://127.0.0.1:80", "http://127.0.0.1:80"), ("0.0.0.0", "http://0.0.0.0:80", "http://127.0.0.1:80"),
    ("::1", "http://[::1]:80", "http://[::1]:80"), ("::", "http://[::]:80", "http://[::1]:80"),
])  # fmt: skip
def test_an_address_can_be_called(host, given, here):
    server = ServerConfig(host=host)
    assert [serve.address(server, 80, is_here) for is_here in (False, True)] == [given, here]


def test_the_page_opens_with_one_server_and_no_model(tmp_path, shell_env, browser):
    env = shell_env | {"BROWSER": str(browser)}
    server = start(env, "--port", "0")
    try:
        (url,) = opened(tmp_path, 1)
        with httpx2.Client(base_url=url, trust_env=False, timeout=30) as http:
            assert "<html" in http.get("/").text.lower()
            library = http.get("/api/library").json()
            assert library["proposal"]  # a model to begin with
            assert not any(model["is_here"] for model in library["models"])
            assert http.get("/api/machine").json()["cpu"]
        again = start(env)
        assert url in again.communicate(timeout=90)[1]
        assert again.returncode == 0
        assert opened(tmp_path, 2) == [url, url]
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
        assert not Path(env["TENTH_HOME"], "server", "running.json").exists()
    finally:
        server.kill()
        server.communicate()


def test_a_phone_comes_in_by_what_the_terminal_says(shell_env):
    server = start(shell_env, "--port", "0", "--lan", "--lan-address", "127.0.0.2", command="serve")
    try:
        said = ""
        while not (link := re.search(r"(https://127\.0\.0\.2:\d+)/#pair=(\S+)", said)) or "SHA-256" not in said:
            line = server.stderr.readline()
            assert line, said
            said += line
        base, secret = link.groups()
        told = re.search(r"SHA-256 ([0-9A-F:]{95})", said).group(1)
        trusted = ssl.create_default_context(cafile=f"{shell_env['TENTH_HOME']}/server/lan-authority.pem")
        host, port = base.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port))) as plain, trusted.wrap_socket(
                plain, server_hostname=host) as door:
            assert sha256(door.getpeercert(True)).hexdigest().upper() == told.replace(":", "")
        with httpx2.Client(base_url=base, verify=trusted, trust_env=False, headers={"origin": base}) as phone:
            assert phone.get("/api/chats").status_code == 401
            assert phone.post("/api/session", json={"pairing": secret}).status_code == 200
            assert phone.get("/api/chats").status_code == 200
            assert phone.post("/api/session", json={"pairing": secret}).status_code == 401
    finally:
        server.terminate()
        server.communicate()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_server_under_another_name_of_the_machine_is_gone_from_a_file(kind):
    name = whereabouts.server_name()
    assert whereabouts.is_alive(name, kind)
    assert not whereabouts.is_alive(None, kind)
    assert not whereabouts.is_alive(name.rpartition("/")[0] + "/1.00", kind)
    container = "7c0f" + name  # of which nothing is known where several machines use a database
    assert whereabouts.is_alive(container, kind) == (kind == "postgres")


def test_a_server_that_was_killed_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("TENTH_HOME", str(tmp_path))
    with whereabouts.announced("http://127.0.0.1:1"):
        assert whereabouts.running() == "http://127.0.0.1:1"
        file = tmp_path / "server" / "running.json"
        about = json.loads(file.read_text())
        host, _, _ = about["server"].rsplit("/", 2)
        for gone in (f"{host}/999999999/1.00", f"{host}/1/1.00", "elsewhere/1/1.00", ""):
            file.write_text(json.dumps(about | {"server": gone}))
            assert whereabouts.running() is None, gone
        for damaged in ("", "[]", "{}", "nonsense", '{"url": 1, "server": 2}'):
            file.write_text(damaged)
            assert whereabouts.running() is None, damaged
        file.write_text(json.dumps({"url": "http://127.0.0.1:2", "server": about["server"]}))
    assert whereabouts.running() == "http://127.0.0.1:2"  # another one's word is left alone


def test_without_a_screen_the_address_is_said(monkeypatch, capsys):
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    app.show("http://127.0.0.1:8010", True)
    assert "http://127.0.0.1:8010" in capsys.readouterr().err


def test_a_code_can_be_shown_in_characters():
    lines = qr.code_of("https://192.168.1.5:8010/#pair=" + "x" * 43).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert 2 * len(lines) in range(len(lines[0]), len(lines[0]) + 2)  # square: two cells in each character
    assert set("".join(lines)) <= set(" █▀▄")
