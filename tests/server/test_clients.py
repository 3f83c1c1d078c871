"""The pages of docs/clients, run as written against a real model; and for clients that cannot run here, what they send.

Only the address is another one, and the model has the name that a page gives it.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from .running import Running, events

PAGES = Path(__file__).parents[2] / "docs" / "clients"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def here(real, tmp_path_factory):
    """The server of the pages, elsewhere: the small model under the names that they give theirs."""
    models = dict.fromkeys(("smollm2:135m", "qwen2.5-coder:1.5b"), real.served.source)
    with Running(models, tmp_path_factory.mktemp("state"), {"kv_tokens": 16384}) as running:
        yield running


def test_every_page_is_in_the_index_and_has_something_to_run():
    index = (PAGES.parent / "server.md").read_text()
    for page in PAGES.glob("*.md"):
        assert f"clients/{page.name}" in index
        assert any(blocks(page.name, language) for language in ("py", "bash", "yaml", "json", "text"))


@pytest.mark.model
@pytest.mark.parametrize(("page", "n"), [("openai.md", 0), ("openai.md", 1), ("langchain.md", 0)])
def test_python_pages_run_as_written(here, tmp_path, page, n):
    script = tmp_path / "example.py"
    script.write_text(blocks(page, "py")[n].replace("127.0.0.1:8010", f"127.0.0.1:{here.port}"))
    env = os.environ | {"LANGSMITH_TRACING": "false"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 40


@pytest.mark.model
@pytest.mark.parametrize("n", range(len(blocks("curl.md", "bash"))))
def test_curl_s_page_runs_as_written(here, tmp_path, n):
    script = blocks("curl.md", "bash")[n].replace("127.0.0.1:8010", f"127.0.0.1:{here.port}")
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, cwd=tmp_path,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    assert '"error"' not in done.stdout
    assert len(done.stdout) > 80


def values(page, language):
    (text,) = blocks(page, language)
    return text


def test_the_editors_configurations_are_what_they_say():
    zed = json.loads(values("editors.md", "json"))["language_models"]["openai_compatible"]["tenth"]
    assert zed["api_url"] == "http://127.0.0.1:8010/v1"
    import yaml

    (model,) = yaml.safe_load(values("editors.md", "yaml"))["models"]
    assert (model["provider"], model["apiBase"]) == ("openai", "http://127.0.0.1:8010/v1")


EDIT = [{"role": "system", "content": "You are a coding assistant."},
        {"role": "user", "content": [{"type": "text", "text": "def add(a, b):"}]}]
READ_FILE = {"type": "function", "function": {"name": "read_file", "description": "Reads a file", "parameters": {
    "type": "object", "required": ["filepath"], "properties": {"filepath": {"type": "string"}}}}}
# Requests with the fields that these clients send. Continue's to Ollama and Zed's are those of their sources
# (core/llm/llms/Ollama.ts, crates/open_ai/src/open_ai.rs); the others' are what their documentation lets expect.
SENT = {
    "continue": ("/v1/chat/completions", {"messages": EDIT, "max_tokens": 8, "stream": True, "temperature": 0.1,
                                          "tools": [READ_FILE], "stream_options": {"include_usage": True}}),
    "continue ollama": ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}], "stream": True,
                                      "keep_alive": 1800, "options": {"num_predict": 8, "num_ctx": 8192}}),
    "continue ollama tools": ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}], "stream": False,
                                            "keep_alive": 1800, "tools": [READ_FILE],
                                            "options": {"num_predict": 8, "num_ctx": 8192}}),
    "zed": ("/v1/chat/completions", {"messages": EDIT, "max_completion_tokens": 8, "stream": True,
                                     "stream_options": {"include_usage": True}, "temperature": 1.0,
                                     "tools": [{"type": "function", "function": {
                                         "name": "f", "description": None, "parameters": None}}],
                                     "prompt_cache_key": "thread-1", "tool_choice": "auto"}),
    "aider": ("/v1/chat/completions", {"messages": EDIT, "temperature": 0, "stream": True, "max_tokens": 8}),
    "claude code": ("/v1/messages?beta=true", {
        "max_tokens": 8, "stream": True, "metadata": {"user_id": "user_x"},
        "system": [{"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}],
        "tools": [{"name": "Read", "description": "Reads", "input_schema": {
            "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": False,
            "required": ["path"], "properties": {"path": {"type": "string"}}}}]}),
    "open webui": ("/v1/chat/completions", {"messages": EDIT, "stream": True, "max_tokens": 8,
                                            "stream_options": {"include_usage": True}}),
    "open webui title": ("/v1/chat/completions", {"messages": EDIT, "stream": False, "max_completion_tokens": 8}),
    "open webui ollama": ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}], "stream": True,
                                        "options": {"num_predict": 8}}),
}  # fmt: skip


@pytest.mark.model
@pytest.mark.parametrize("client", SENT)
def test_what_editors_and_open_webui_send_is_answered(here, client):
    path, body = SENT[client]
    headers = {"authorization": "Bearer none", "user-agent": client}
    answer = here.http.post(path, json={"model": "qwen2.5-coder:1.5b", **body}, headers=headers)
    assert answer.status_code == 200, answer.text
    if not body["stream"]:
        assert answer.json().get("done") or answer.json()["choices"][0]["message"]["content"]
    elif path.startswith("/api"):
        assert json.loads(answer.text.splitlines()[-1])["done"] is True
    elif path.startswith("/v1/messages"):
        assert events(answer.text)[-1][0] == "message_stop"
    else:
        found = events(answer.text)
        assert found[-1][1] == "[DONE]"
        assert any(chunk["choices"] for _, chunk in found[:-1])


def test_continue_asks_ollama_s_api_of_a_model_by_its_older_name(server):
    assert server.post("/api/show", {"name": "tiny"}).status_code == 200


def test_open_webui_lists_models_both_ways_from_a_container_with_a_key(tmp_path):
    """Its container calls the host by a name, which has to be allowed; its server sends no Origin."""
    from tenth.server.keys import Keys
    from tenth.server.state import State

    from .running import TINY

    state = State(tmp_path / "state.db")
    key = Keys(state).new("open-webui", ("infer",))
    state.close()
    with Running({"tiny": TINY}, tmp_path, allow_host=["host.docker.internal"]) as running:
        host = {"host": f"host.docker.internal:{running.port}"}
        with httpx2.Client(base_url=running.url, trust_env=False, headers=host) as client:
            assert client.get("/v1/models").status_code == 401
            client.headers["authorization"] = f"Bearer {key}"
            assert [row["id"] for row in client.get("/v1/models").json()["data"]] == ["tiny"]
            assert [row["name"] for row in client.get("/api/tags").json()["models"]] == ["tiny"]
            assert client.get("/api/version").json()["version"]
