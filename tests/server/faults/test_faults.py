"""What is acknowledged survives: kill -9 at any moment, a full disk, a failing one.

Calls are let fail by a small library (faults.c, LD_PRELOAD): one after the other in the state alone, all at once in a
server. ``python tests/server/faults/driver.py FOLDER 1 28 5`` with the library preloaded tries every call: 802 cases.
"""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest

from tenth.server.state import State

from ..running import DEADLINE_S, TINY, wait_until
from ..test_unwatched import batch

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """The library. A C compiler is there wherever tenth is installed from its sources."""
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    return library


def test_whichever_call_fails_the_state_is_whole_and_nothing_acknowledged_is_lost(faults, tmp_path, shell_env):
    done = subprocess.run([sys.executable, HERE / "driver.py", tmp_path, "2", str(errno.ENOSPC), str(errno.EIO)],
                          env=shell_env | {"LD_PRELOAD": str(faults)}, capture_output=True, text=True, timeout=600)
    told = json.loads(done.stdout or "{}")
    assert told.get("wrong") == [], done.stderr + str(told)
    assert told["cases"] > 100


class Served:
    """``tenth serve`` in a process of its own."""

    def __init__(self, env):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tenth", "serve", f"tiny={TINY}", "--port", "0", "--log-level", "error"],
            env=env, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        assert "127.0.0.1:" in line, line + self.process.stderr.read()
        self.url = "http://127.0.0.1:" + line.split("127.0.0.1:")[1].split()[0]
        self.drain = threading.Thread(target=self.process.stderr.read)
        self.drain.start()

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait(DEADLINE_S)
        self.drain.join()
        self.process.stderr.close()


RESPONSE = {"model": "tiny", "input": "Hi", "temperature": 0.0, "max_output_tokens": 4}
LINE = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/completions",
                   "body": {"model": "tiny", "prompt": "a", "max_tokens": 2}}).encode()


def keep_asking(url, told, stop):
    """Store responses, files and batches until the server is gone, noting what was acknowledged."""
    with httpx2.Client(base_url=url, timeout=DEADLINE_S, trust_env=False) as http:
        while not stop.is_set():
            try:
                response = http.post("/v1/responses", json=RESPONSE).json()
                told.append((f"/v1/responses/{response['id']}", response))
                later = http.post("/v1/responses", json=RESPONSE | {"background": True}).json()
                told.append((f"/v1/responses/{later['id']}", None))
                file = http.post("/v1/files", files={"file": ("x", LINE)}, data={"purpose": "batch"}).json()
                told.append((f"/v1/files/{file['id']}", file))
                batch = http.post("/v1/batches", json={"input_file_id": file["id"], "completion_window": "24h",
                                                       "endpoint": "/v1/completions"}).json()
                told.append((f"/v1/batches/{batch['id']}", None))
                told.append((f"/v1/files/{file['id']}", "deleting"))
                http.delete(f"/v1/files/{file['id']}")
                told.append((f"/v1/files/{file['id']}", "deleted"))
            except httpx2.HTTPError:
                return


def test_kill_9_at_any_moment_loses_nothing_acknowledged(tmp_path, shell_env):
    chance, told = random.Random(9), []
    for _ in range(3):
        served, stop = Served(shell_env), threading.Event()
        askers = [threading.Thread(target=keep_asking, args=(served.url, told, stop)) for _ in range(3)]
        for asker in askers:
            asker.start()
        wait_until(lambda least=len(told) + 15: len(told) >= least)
        time.sleep(chance.uniform(0.0, 0.3))
        served.end(signal.SIGKILL)
        stop.set()
        for asker in askers:
            asker.join()
    state = State(Path(shell_env["TENTH_HOME"]) / "server" / "state.db")
    assert state.query("PRAGMA integrity_check")[0][0] == "ok"
    state.close()
    deleting, deleted = ({path for path, value in told if value == what} for what in ("deleting", "deleted"))
    served = Served(shell_env)
    try:
        with httpx2.Client(base_url=served.url, timeout=DEADLINE_S, trust_env=False) as http:
            for path, value in told:
                answer = http.get(path)
                allowed = {404} if path in deleted else {200, 404} if path in deleting else {200}
                assert answer.status_code in allowed, path
                if path not in deleting and value is not None:
                    assert answer.json() == value
            deadline = time.monotonic() + DEADLINE_S
            ended = {"completed", "incomplete", "failed", "cancelled"}
            while {http.get(path).json()["status"] for path, value in told if value is None} - ended:
                assert time.monotonic() < deadline, "what was begun does not end"
                time.sleep(0.1)
    finally:
        served.end(signal.SIGTERM)


@pytest.mark.parametrize(("error", "status"), [(errno.ENOSPC, 507), (errno.EIO, 503)], ids=["full", "failing"])
def test_a_disk_that_is_full_or_fails_is_told_and_the_server_goes_on(faults, tmp_path, shell_env, error, status):
    trouble = tmp_path / "trouble"
    served = Served(shell_env | {"LD_PRELOAD": str(faults), "FAULTS_WHILE": str(trouble)})
    try:
        with httpx2.Client(base_url=served.url, timeout=DEADLINE_S, trust_env=False) as http:
            before = http.post("/v1/responses", json=RESPONSE).json()
            trouble.write_text(str(error))
            asks = (lambda: http.post("/v1/responses", json=RESPONSE),
                    lambda: http.post("/v1/files", files={"file": ("x", LINE)}, data={"purpose": "batch"}),
                    lambda: http.delete(f"/v1/responses/{before['id']}"))
            for ask in asks:
                answer = ask()
                assert answer.status_code == status, answer.text
                assert "nothing was stored" in answer.json()["error"]["message"]
            assert http.post("/v1/responses", json=RESPONSE | {"store": False}).status_code == 200
            assert http.get(f"/v1/responses/{before['id']}").json() == before
            os.remove(trouble)
            after = http.post("/v1/responses", json=RESPONSE)
            assert after.status_code == 200
            assert http.get(f"/v1/responses/{after.json()['id']}").json() == after.json()
    finally:
        trouble.unlink(missing_ok=True)
        served.end(signal.SIGTERM)
    state = State(Path(shell_env["TENTH_HOME"]) / "server" / "state.db")
    assert state.query("PRAGMA integrity_check")[0][0] == "ok"
    state.close()


def test_a_batch_and_a_background_response_outlast_a_full_disk(faults, tmp_path, shell_env):
    trouble, n = tmp_path / "trouble", 200
    served = Served(shell_env | {"LD_PRELOAD": str(faults), "FAULTS_WHILE": str(trouble)})
    try:
        with httpx2.Client(base_url=served.url, timeout=DEADLINE_S, trust_env=False) as http:
            id = batch(http, n)
            later = http.post("/v1/responses", json=RESPONSE | {"background": True, "max_output_tokens": 200,
                                                                "ignore_eos": True}).json()["id"]
            trouble.write_text(str(errno.ENOSPC))
            before = http.get(f"/v1/batches/{id}").json()["request_counts"]["completed"]
            assert before < n
            time.sleep(0.5)  # so that answers want to be stored meanwhile
            assert http.get(f"/v1/batches/{id}").json()["status"] == "in_progress"
            trouble.unlink()
            wait_until(lambda: http.get(f"/v1/batches/{id}").json()["status"] == "completed")
            assert http.get(f"/v1/batches/{id}").json()["request_counts"] == {"total": n, "completed": n, "failed": 0}
            wait_until(lambda: http.get(f"/v1/responses/{later}").json()["status"] == "incomplete")
    finally:
        trouble.unlink(missing_ok=True)
        served.end(signal.SIGTERM)
