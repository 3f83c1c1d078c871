"""schemathesis on our own OpenAPI document and on OpenAI's: no 5xx, and answers are as the documents say.

A bounded part of scripts/fuzz_server.py, with the same examples each time.
"""

import pytest

from . import fuzzing
from .running import events

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def names(server):
    """Names of things that there are, and of some that there are not."""
    response = server.post("/v1/responses", {"model": "tiny", "input": "Hi", "max_output_tokens": 1}).json()["id"]
    file = server.http.post("/v1/files", files={"file": ("x", b"{}")}, data={"purpose": "batch"}).json()["id"]
    return {"model": ["tiny"], "name": ["tiny", "none"], "response_id": [response, "resp_none"],
            "previous_response_id": [response], "file_id": [file, "file-none"], "input_file_id": [file],
            "stream_id": ["stream_none"], "purpose": ["batch", "batch_output"]}


def test_our_own_document(server, names):
    document = server.get("/openapi.json").json()
    counts, failures = fuzzing.fuzz(fuzzing.with_names(document, names), server.url, fuzzing.OUR_CHECKS, 8)
    wrong, accepted = fuzzing.fuzz(document, server.url, fuzzing.OUR_CHECKS, 6, mode=fuzzing.WRONG)
    assert not failures + accepted, "\n\n".join(failures + accepted)
    assert sum(wrong.values()) > 50
    assert {label for label, _ in counts} == {
        f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert sum(n for (_, status), n in counts.items() if status == 200) > 20


def test_the_official_document(server, names):
    document = fuzzing.with_names(fuzzing.official(), names)
    counts, failures = fuzzing.fuzz(document, server.url + "/v1", fuzzing.OFFICIAL_CHECKS, 8)
    assert not failures, "\n\n".join(failures)
    assert len({label for label, _ in counts}) == 18
    assert not [key for key in counts if key[1] >= 500]


@pytest.mark.parametrize(("path", "schema", "body"), [
    ("/v1/chat/completions", "CreateChatCompletionResponse", {"messages": HI, "n": 2, "logprobs": True,
                                                              "top_logprobs": 2, "metadata": {"a": "b"}}),
    ("/v1/chat/completions", "CreateChatCompletionResponse", {"messages": HI, "reasoning_effort": "low"}),
    ("/v1/completions", "CreateCompletionResponse", {"prompt": ["a", "b"], "logprobs": 2, "echo": False}),
    ("/v1/responses", "Response", {"input": "Hi", "max_output_tokens": 3, "top_logprobs": 1,
                                   "include": ["message.output_text.logprobs"]}),
    ("/v1/responses", "Response", {"input": "Hi", "max_output_tokens": 3, "user": "u", "prompt_cache_key": "k"}),
])
def test_answers_are_as_the_official_schemas_have_them(server, path, schema, body):
    least = {"max_tokens": 3} if "max_output_tokens" not in body else {}
    answer = server.post(path, {"model": "tiny"} | least | body)
    assert answer.status_code == 200, answer.text
    assert not fuzzing.conforms(schema, answer.json())


@pytest.mark.model
def test_calls_are_as_the_official_schemas_have_them(real):
    function = {"name": "time", "parameters": {"type": "object", "properties": {}}, "strict": True}
    how = {"model": "small", "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0.0}
    chat = real.post("/v1/chat/completions", how | {"messages": HI, "max_tokens": 60, "tools": [
        {"type": "function", "function": function}]}).json()
    assert chat["choices"][0]["finish_reason"] == "tool_calls"
    assert not fuzzing.conforms("CreateChatCompletionResponse", chat)
    body = how | {"input": "Hi", "max_output_tokens": 60, "tools": [{"type": "function", **function}]}
    response = real.post("/v1/responses", body).json()
    assert response["output"][0]["type"] == "function_call"
    assert not fuzzing.conforms("Response", response)
    for _, event in events(real.post("/v1/responses", body | {"stream": True}).text):
        assert not fuzzing.event_conforms(event), event


def test_streams_are_as_the_official_schemas_have_them(server):
    chunks = events(server.chat(stream=True, max_tokens=3, logprobs=True, stream_options={"include_usage": True}).text)
    assert len(chunks) > 3
    for _, chunk in chunks[:-1]:
        assert not fuzzing.conforms("CreateChatCompletionStreamResponse", chunk), chunk
    found = events(server.post("/v1/responses", {"model": "tiny", "input": "Hi", "max_output_tokens": 3,
                                                 "stream": True}).text)
    assert len(found) > 3
    for _, event in found:
        assert not fuzzing.event_conforms(event), event


@pytest.mark.parametrize(("path", "schema"), [
    ("/v1/models", "ListModelsResponse"), ("/v1/models/tiny", "Model"), ("/v1/files", "ListFilesResponse"),
    ("/v1/batches", "ListBatchesResponse"),
])
def test_lists_are_as_the_official_schemas_have_them(server, names, path, schema):
    assert not fuzzing.conforms(schema, server.get(path).json())
