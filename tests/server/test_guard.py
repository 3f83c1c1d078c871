"""The door, route by route: what comes from elsewhere, without a key or as another kind of content does not get in."""

import re
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import httpx2
import pytest

from tenth.errors import RequestError
from tenth.server import connections
from tenth.server import keys as keys_module
from tenth.server import running as running_module
from tenth.server.app import App
from tenth.server.config import ServerConfig
from tenth.server.failures import Refused
from tenth.server.guard import EITHER_PATHS, FORM_PATHS, LOGIN_PATH, MOST_PATH_BYTES, OPEN_PATHS
from tenth.server.keys import Caller, Keys, Meter
from tenth.server.lan import AUTHORITY_PATH
from tenth.server.state import State

from .running import DEADLINE_S, TINY, Held, Running, wait_until


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """(server, key) with one key of every scope."""
    folder = tmp_path_factory.mktemp("state")
    state = State(folder / "state.db")
    key = Keys(state).new("all", ("infer", "manage", "metrics", "accounts"))
    state.close()
    with Running({"tiny": TINY}, folder, allow_origin=["http://localhost:3000"]) as running:
        yield running, key


def routes(running):
    """(method, path) of every route there is, with ids filled in; and one that is none."""
    found = [("GET", "/nothing"), ("POST", "/nothing")]
    stack = list(running.app.fastapi.routes)
    while stack:
        route = stack.pop()
        inner = getattr(route, "original_router", None) or getattr(route, "routes", None)
        if inner is not None:
            stack += getattr(inner, "routes", inner)
            continue
        path = route.path.replace("{", "").replace("}", "").replace(":path", "")
        found += [(method, path) for method in route.methods]
    assert ("POST", "/v1/chat/completions") in found
    return found


def test_without_a_key_every_route_but_health_login_and_the_page_is_a_401(guarded):
    running, _ = guarded
    is_open = OPEN_PATHS | running.app.page.paths
    for method, path in routes(running):
        if path == LOGIN_PATH:
            continue
        for headers in ({}, {"authorization": "Bearer tenth-no"}, {"x-api-key": "no"}, {"authorization": "Basic x"}):
            answer = running.http.request(method, path, headers={"content-type": "application/json"} | headers)
            there = 404 if path == AUTHORITY_PATH else 200  # this server has no door with a certificate
            assert answer.status_code == (there if path in is_open else 401), (method, path)
    assert running.get(LOGIN_PATH).json() == {"user": None, "needs_login": True, "can_manage": False, "is_open": False}
    assert running.post(LOGIN_PATH, {"key": "no"}).status_code == 401


@pytest.mark.parametrize("headers", [
    {"host": "evil.example"}, {"host": "localhost.evil.example"}, {"host": "localhost"}, {"host": ""},
    {"host": "127.0.0.1:1"}, {"host": "x/?@127.0.0.1"}, {"origin": "http://evil.example"}, {"origin": "null"},
    {"origin": "http://notlocalhost"}, {"origin": "http://localhost.evil.example"}, {"sec-fetch-site": "cross-site"},
], ids=str)  # fmt: skip
def test_from_elsewhere_every_route_is_a_403(guarded, headers):
    running, key = guarded
    for method, path in routes(running):
        sent = {"authorization": f"Bearer {key}", "content-type": "application/json"} | headers
        assert running.http.request(method, path, headers=sent).status_code == 403, (method, path)


def test_what_is_no_json_is_a_415_on_every_route_that_takes_a_body(guarded):
    running, key = guarded
    posts = [path for method, path in routes(running) if method == "POST"]
    assert len(posts) > 4
    for path in posts:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"):
            answer = running.http.post(path, content=b"{}", headers={"content-type": kind, "x-api-key": key})
            assert answer.status_code == 415, (path, kind)
        if path not in FORM_PATHS:
            answer = running.http.post(path, content=b"x", headers={
                "content-type": "application/json", "content-encoding": "gzip", "x-api-key": key})
            assert answer.status_code == 415, path


def test_bodies_have_a_bound_whether_announced_or_not(guarded):
    running, key = guarded
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    chunks = (b" " * (1 << 20) for _ in range(17))
    assert running.http.post("/tokenize", content=chunks, headers=headers).status_code == 413
    head = "\r\n".join([f"POST /tokenize HTTP/1.1\r\nhost: 127.0.0.1:{running.port}",
                        *(f"{name}: {value}" for name, value in headers.items()), f"content-length: {1 << 40}"])
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as raw:
        raw.sendall(f"{head}\r\n\r\n".encode())
        assert b" 413 " in raw.recv(100)


def test_a_body_that_is_no_form_has_its_bound_where_a_form_may_be_larger(guarded):
    running, key = guarded
    headers = {"content-type": "application/json", "x-api-key": key}
    for path in EITHER_PATHS:
        chunks = (b" " * (1 << 20) for _ in range(17))
        assert running.http.post(path, content=chunks, headers=headers).status_code == 413


@pytest.mark.parametrize("twice", [
    ["host: evil.example", "host: {own}"], ["host: {own}", "host: {own}"],
    ["host: {own}", "origin: http://evil.example", "origin: http://{own}"],
])
def test_a_host_or_an_origin_that_is_there_twice_does_not_get_in(guarded, twice):
    running, key = guarded
    lines = ["GET /v1/models HTTP/1.1", f"x-api-key: {key}", "connection: close", *twice]
    with socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE_S) as raw:
        raw.sendall(("\r\n".join(lines) + "\r\n\r\n").format(own=f"127.0.0.1:{running.port}").encode())
        assert re.match(rb"HTTP/1.1 40[03] ", raw.recv(100))  # of two hosts the parser refuses what the guard would


def test_a_path_without_end_is_a_414(guarded):
    running, key = guarded
    for n, status in ((MOST_PATH_BYTES, 404), (MOST_PATH_BYTES + 1, 414)):
        path = "/v1/models/".ljust(n, "x")
        assert running.get(path, headers={"x-api-key": key}).status_code == status


def test_both_ways_to_send_a_key_work_and_own_pages_may_ask(guarded):
    running, key = guarded
    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
        for origin in ({}, {"origin": running.url}, {"origin": f"http://localhost:{running.port}"}):
            assert running.get("/v1/models", headers=headers | origin).status_code == 200


def test_an_allowed_origin_gets_its_headers_and_its_preflight(guarded):
    running, key = guarded
    origin = {"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"}
    asked = running.http.options("/v1/chat/completions", headers=origin)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "http://localhost:3000")
    answer = running.get("/v1/models", headers=origin | {"x-api-key": key})
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "access-control-allow-credentials" not in answer.headers
    assert running.http.options("/v1/models", headers={"x-api-key": key}).status_code == 405


def test_scopes_limits_and_revoking_count_at_once(tmp_path):
    state = State(tmp_path / "state.db")
    keys = Keys(state)
    reader, asker = keys.new("reader", ("metrics",)), keys.new("asker", ("infer",), requests_per_minute=3)
    with Running({"tiny": TINY}, tmp_path) as running:
        def status(path, key):
            return running.get(path, headers={"x-api-key": key}).status_code

        assert status("/metrics", reader) == 200
        assert status("/v1/models", reader) == 403
        assert [status("/v1/models", asker) for _ in range(4)] == [200, 200, 200, 429]
        assert "retry-after" in running.get("/v1/models", headers={"x-api-key": asker}).headers
        keys.revoke("reader")
        assert status("/metrics", reader) == 401
        keys.revoke("asker")
        assert status("/v1/models", asker) == 401, "revoking the last key must not open the server"
    state.close()


def test_a_minute_passes_and_what_is_at_work_ends(monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr(keys_module, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    meter, asker = Meter(), Caller("asker", "asker", "member", ("infer",), requests_per_minute=2)
    for _ in range(3):
        meter.start(asker)
        now_s[0] += 20
        meter.start(asker)
        meter.end(asker)
        with pytest.raises(Refused) as refused:
            meter.start(asker)
        assert refused.value.retry_after_s == 40
        now_s[0] += 60
    one_by_one = Caller("other", "other", "member", ("infer",), concurrent=1)
    for _ in range(2):
        meter.start(one_by_one)
        with pytest.raises(Refused, match="1 requests at work"):
            meter.start(one_by_one)
        meter.end(one_by_one)


def test_keys_are_kept_as_hashes(tmp_path):
    state = State(tmp_path / "state.db")
    secret = Keys(state).new("me", ("infer",))
    with pytest.raises(RequestError, match="already"):
        Keys(state).new("me", ("infer",))
    with pytest.raises(RequestError, match="no scope"):
        Keys(state).new("other", ("root",))
    state.close()
    files = list(tmp_path.iterdir())
    assert all(secret.removeprefix("tenth-").encode() not in file.read_bytes() for file in files)
    assert {file.stat().st_mode & 0o077 for file in files} == {0}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_another_address_needs_a_key_to_start(tmp_path, host):
    config = ServerConfig(host=host)
    with pytest.raises(RequestError, match="needs a key"):
        App([("tiny", str(TINY))], lambda source: None, config, tmp_path / "state.db")
    state = State(tmp_path / "state.db")
    Keys(state).new("me", ("infer",))
    state.close()
    app = App([("tiny", str(TINY))], lambda source: None, config, tmp_path / "state.db")
    assert app.needs_key()
    assert "evil.example:8010" not in config.hosts(8010)
    app.state.close()


def test_settings_that_cannot_be_are_refused(tmp_path):
    for wrong in ({"tls_cert": "x"}, {"tls_cert": "/none", "tls_key": "/none"}, {"allow_origin": ["*"]},
                  {"allow_origin": ["http://*"]}, {"log_level": "loud"}):
        with pytest.raises(RequestError):
            ServerConfig(**wrong)


def test_the_commands_refuse_and_list(tmp_path, shell_env):
    def run(*args):
        return subprocess.run([sys.executable, "-m", "tenth", *args], env=shell_env, capture_output=True, text=True)

    refused = run("serve", str(TINY), "--host", "0.0.0.0", "--port", "0")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 2)
    assert "needs a key" in refused.stderr
    made = run("key", "new", "me")
    assert made.stdout.startswith("tenth-")
    assert "me" in run("key", "list").stdout
    assert made.stdout.strip() not in run("key", "list", "--json").stdout
    assert run("key", "new", "slow", "--requests-per-minute", "5", "--concurrent", "2").returncode == 0
    assert "infer  (at most 5 a minute, 2 at a time)" in run("key", "list").stdout
    assert run("key", "revoke", "me").returncode == 0
    assert "revoked" in run("key", "list").stdout
    assert run("key", "fly").returncode == 2


def test_https_with_certificate_files(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "1", "-subj", "/CN=localhost"], check=True,
                   capture_output=True)
    for wrong in ((key, cert), (cert, cert), (cert, TINY)):
        with pytest.raises(RequestError, match="are no certificate and its key") as refused:
            ServerConfig(tls_cert=str(wrong[0]), tls_key=str(wrong[1]))
        assert "PEM" in refused.value.hint
    locked = tmp_path / "locked.pem"
    subprocess.run(["openssl", "ec", "-in", key, "-aes128", "-passout", "pass:secret", "-out", locked], check=True,
                   capture_output=True)
    with pytest.raises(RequestError, match="are no certificate and its key"):
        ServerConfig(tls_cert=str(cert), tls_key=str(locked))
    with Running({"tiny": TINY}, tmp_path, tls_cert=str(cert), tls_key=str(key)) as running:
        address = f"https://127.0.0.1:{running.port}"
        with httpx2.Client(verify=False, trust_env=False) as client:
            assert client.get(f"{address}/health").json() == {"status": "ok"}
            assert client.get(f"{address}/v1/models", headers={"origin": address}).status_code == 200


@pytest.mark.parametrize("begun", [b"", b"GET /hea"], ids=["nothing", "part of a head"])
@pytest.mark.parametrize("n_before", [0, 1], ids=["at first", "after a request"])
def test_a_connection_that_does_not_ask_is_closed(tmp_path, monkeypatch, begun, n_before):
    for module, name in ((connections, "HEAD_WAIT_S"), (running_module, "IDLE_S")):
        monkeypatch.setattr(module, name, 0.2)
    with Running({"tiny": TINY}, tmp_path) as running, socket.create_connection(
            ("127.0.0.1", running.port), timeout=30) as raw:
        for _ in range(n_before):
            raw.sendall(f"GET /health HTTP/1.1\r\nhost: 127.0.0.1:{running.port}\r\n\r\n".encode())
            assert b"200 OK" in raw.recv(1000)
        raw.sendall(begun)
        while raw.recv(1000):  # until the other side closes
            pass


def test_a_request_that_takes_long_is_not_cut_off(tmp_path, monkeypatch):
    with Running({"tiny": TINY}, tmp_path) as running:
        with Held(running.opened()) as held:
            monkeypatch.setattr(connections, "HEAD_WAIT_S", 0.05)
            answers = []
            thread = threading.Thread(target=lambda: answers.append(running.chat(max_tokens=2)))
            thread.start()
            held.wait()
            time.sleep(0.3)
            held.go.set()
            thread.join(60)
        assert [answer.status_code for answer in answers] == [200]


def test_a_database_that_is_busy_has_nobody_else_wait(guarded):
    running, key = guarded
    headers = {"authorization": f"Bearer {key}"}
    asked = []
    threads = [threading.Thread(target=lambda path=path: asked.append(httpx2.get(
        running.url + path, headers=headers, timeout=DEADLINE_S, trust_env=False)))
        for path in ("/v1/models", LOGIN_PATH, "/v1/models")]
    engine = running.app.state.engine
    with engine._reading:
        for thread in threads:
            thread.start()
        for _ in range(20):  # the server takes them up meanwhile
            assert running.get("/health").status_code == 200
            time.sleep(0.01)
        assert not asked
    for thread in threads:
        thread.join()
    assert [one.status_code for one in asked] == [200, 200, 200]


def test_who_is_not_known_can_send_little(guarded):
    running, _ = guarded
    body = {"name": "x", "password": "x" * 100_000}
    assert running.post(LOGIN_PATH, body).status_code == 413
    assert running.post(LOGIN_PATH, {"name": "x", "password": "x" * 1024}).status_code == 401


@pytest.mark.parametrize("path", ["/v1/files", "/api/attachments", "/api/import"])
@pytest.mark.parametrize("encoding", ["unicode_escape", "undefined", '"punycode"'])
def test_forms_in_odd_encodings_do_not_get_in(guarded, path, encoding):
    running, key = guarded
    name = b'--B\r\nContent-Disposition: form-data; name="file"; filename="\\ud800.txt"\r\n\r\n\0\r\n'
    purpose = b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--B--\r\n'

    def send(charset):
        headers = {"x-api-key": key, "content-type": f"multipart/form-data; boundary=B; Charset = {charset}"}
        return running.http.post(path, content=name + purpose, headers=headers).status_code

    assert send(encoding) == 415
    assert send("UTF-8") in (200, 400)


def test_a_client_that_goes_while_it_sends_is_no_fault_of_the_server(guarded, caplog):
    running, key = guarded
    with socket.create_connection(("127.0.0.1", running.port)) as raw:
        head = [f"POST /tokenize HTTP/1.1\r\nhost: 127.0.0.1:{running.port}", "content-type: application/json",
                f"x-api-key: {key}", "content-length: 100", "", "{"]
        raw.sendall("\r\n".join(head).encode())
    counts = running.app.metrics.requests
    left = [one for one in ("499", "500")]
    wait_until(lambda: any(counts.labels("/tokenize", one)._value.get() for one in left))
    assert not counts.labels("/tokenize", "500")._value.get()
    assert not [one for one in caplog.records if one.exc_info]


def test_the_pieces_of_many_tokens_are_refused(guarded):
    running, key = guarded
    body = {"content": "a b " * 100_000, "with_pieces": True}
    assert running.post("/tokenize", body, headers={"x-api-key": key}).status_code == 400
    assert running.post("/tokenize", body | {"with_pieces": False}, headers={"x-api-key": key}).status_code == 200
