"""Files and batches through the official client: answered, told how far, cancelled, and gone on with after a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import httpx2
import openai
import pytest

from tenth.server import files
from tenth.server.failures import Refused
from tenth.server.files import Batches, Files
from tenth.server.keys import Keys
from tenth.server.state import State

from .running import TINY, Running, wait_until


def lines(n, **fields):
    return [{"custom_id": f"line-{i}", "method": "POST", "url": "/v1/chat/completions", "body": {
        "model": "tiny", "messages": [{"role": "user", "content": f"Say {i}"}], "temperature": 0.0, "max_tokens": 8,
        **fields}} for i in range(n)]


def jsonl(values):
    return "\n".join(map(json.dumps, values)).encode()


def test_a_batch_answers_every_line(server, tiny):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        wrong = [*lines(6), {**lines(1)[0], "custom_id": "wrong", "body": {"model": "tiny", "messages": [], "n": 1}}]
        file = client.files.create(file=("in.jsonl", jsonl(wrong)), purpose="batch")
        assert client.files.retrieve(file.id).filename == "in.jsonl"
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
                                      metadata={"a": "b"})
        wait_until(lambda: client.batches.retrieve(batch.id).status == "completed")
        batch = client.batches.retrieve(batch.id)
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (7, 6, 1)
        answers = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
        assert [answer["custom_id"] for answer in answers] == [f"line-{i}" for i in range(6)]
        text = answers[3]["response"]["body"]["choices"][0]["message"]["content"]
        assert text == tiny.chat([{"role": "user", "content": "Say 3"}], temperature=0.0, max_tokens=8).text
        (bad,) = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
        assert (bad["custom_id"], bad["response"]["status_code"]) == ("wrong", 400)
        assert "messages" in bad["response"]["body"]["error"]["message"]
        more = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        client.batches.cancel(more.id)
        listed = [b.id for b in client.batches.list(limit=1)]  # the client turns the pages
        assert listed.index(more.id) < listed.index(batch.id)
        files = [f.id for f in client.files.list(limit=1, order="asc")]
        assert files == [f.id for f in client.files.list(limit=1000)][::-1]
        assert file.id in [f.id for f in client.files.list(purpose="batch")]
        assert file.id not in [f.id for f in client.files.list(purpose="batch_output")]
        client.files.delete(file.id)
        with pytest.raises(openai.NotFoundError):
            client.files.content(file.id)


@pytest.mark.parametrize("content", [b"", b"{}", b"nothing", jsonl(lines(1) * 2),
                                     jsonl([{**lines(1)[0], "url": "http://evil.example/"}])])
def test_a_file_that_is_no_batch_is_a_400(server, content):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        file = client.files.create(file=("../../etc/passwd", content), purpose="batch")
        with pytest.raises(openai.BadRequestError):
            client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        with pytest.raises(openai.BadRequestError):
            client.files.create(file=("x", b"x"), purpose="assistants")
        with pytest.raises(openai.BadRequestError, match="expires_after"):
            client.files.create(file=("x", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 1})


def test_the_first_answer_to_a_line_stays(tmp_path):
    state = State(tmp_path / "state.db")
    batches = Batches(state, Files(state))
    id = batches.add("me", "file-1", "/v1/chat/completions", {}, [("a", {"n": 1}), ("b", {"n": 1})])
    batches.answer(id, 0, 200, {"first": 1})
    batches.answer(id, 0, 500, {"second": 2})
    assert [n for n, _ in batches.next_lines(id, 4)] == [1]
    (row,) = state.query("SELECT code, answer FROM batch_lines WHERE batch = ? AND n = 0", id)
    assert (row["code"], json.loads(row["answer"])) == (200, {"first": 1})
    state.close()


def test_of_one_owner_only_so_much_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_STORED_BYTES", 10)
    state = State(tmp_path / "state.db")
    place = Files(state)
    place.add("me", "a", "batch", b"x" * 6)
    with pytest.raises(Refused) as refused:
        place.add("me", "b", "batch", b"x" * 5)
    assert refused.value.status == 507
    place.add("me", "b", "batch", b"x" * 4)
    place.add("another", "b", "batch", b"x" * 10)
    state.close()


def test_what_was_deleted_is_in_no_file(tmp_path):
    state = State(tmp_path / "state.db")
    place = Files(state)

    def is_there():
        assert state.engine.forget()  # the log has nothing any more
        return any(b"a word of it" in file.read_bytes() for file in tmp_path.iterdir())

    id = place.add("me", "a", "batch", b"a word of it" * 1000)["id"]
    assert is_there()
    place.delete(id, "me")
    assert not is_there()
    state.close()


@pytest.mark.parametrize("url", ["/v1/chat/completions", "/v1/completions"])
def test_no_line_of_a_batch_is_streamed(server, url):
    body = {"model": "tiny", "prompt": "a", "stream": True} if url == "/v1/completions" else {
        "model": "tiny", "messages": [{"role": "user", "content": "a"}], "stream": True}
    line = {"custom_id": "a", "method": "POST", "url": url, "body": body}
    file = server.http.post("/v1/files", files={"file": ("x", jsonl([line]))}, data={"purpose": "batch"}).json()["id"]
    asked = {"input_file_id": file, "endpoint": url, "completion_window": "24h"}
    batch = "/v1/batches/" + server.post("/v1/batches", asked).json()["id"]
    wait_until(lambda: server.get(batch).json()["status"] == "completed")
    told = server.get(f"/v1/files/{server.get(batch).json()['error_file_id']}/content").json()
    assert (told["response"]["status_code"], told["response"]["body"]["error"]["param"]) == (400, "stream")


def test_another_owner_s_files_and_batches_are_a_404(tmp_path):
    state = State(tmp_path / "state.db")
    mine, other = Keys(state).new("mine", ("infer",)), Keys(state).new("other", ("infer",))
    state.close()
    with Running({"tiny": TINY}, tmp_path) as running:
        with openai.OpenAI(base_url=running.url + "/v1", api_key=mine, max_retries=0) as client:
            file = client.files.create(file=("in.jsonl", jsonl(lines(1))), purpose="batch").id
            batch = client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")
        head = {"x-api-key": other, "content-type": "application/json"}
        body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        for method, path in (("GET", f"files/{file}"), ("GET", f"files/{file}/content"), ("DELETE", f"files/{file}"),
                             ("GET", f"batches/{batch.id}"), ("POST", f"batches/{batch.id}/cancel"),
                             ("POST", "batches")):
            assert running.http.request(method, f"/v1/{path}", headers=head, json=body).status_code == 404, path
        assert running.get("/v1/files", headers=head).json()["data"] == []
        assert running.get("/v1/batches", headers=head).json()["data"] == []


def test_a_batch_goes_on_after_kill_9_and_loses_nothing_that_was_answered(shell_env, tmp_path):
    command = [sys.executable, "-m", "tenth", "serve", f"tiny={TINY}", "--port", "0", "--log-level", "error"]

    def start():
        process = subprocess.Popen(command, env=shell_env, stderr=subprocess.PIPE, text=True)
        line = process.stderr.readline()
        return process, "http://127.0.0.1:" + line.split("127.0.0.1:")[1].split()[0]

    n = 400
    process, url = start()
    with httpx2.Client(trust_env=False) as http:
        file = http.post(url + "/v1/files", files={"file": ("in.jsonl", jsonl(lines(n)))},
                         data={"purpose": "batch"}).json()["id"]
        batch = http.post(url + "/v1/batches", json={"input_file_id": file, "completion_window": "24h",
                                                     "endpoint": "/v1/chat/completions"}).json()["id"]
        done = 0
        while done < 20:
            time.sleep(0.01)
            done = http.get(f"{url}/v1/batches/{batch}").json()["request_counts"]["completed"]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        assert done < n
        process, url = start()
        try:
            assert http.get(f"{url}/v1/batches/{batch}").json()["request_counts"]["completed"] >= done
            wait_until(lambda: http.get(f"{url}/v1/batches/{batch}").json()["status"] == "completed")
            found = http.get(f"{url}/v1/batches/{batch}").json()
            assert found["request_counts"] == {"total": n, "completed": n, "failed": 0}
            output = http.get(f"{url}/v1/files/{found['output_file_id']}/content").text
            assert len(output.splitlines()) == n
        finally:
            process.terminate()
            process.wait(20)
            process.stderr.close()
