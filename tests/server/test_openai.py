"""OpenAI's dialect through the official client: what it sends is honoured or refused by name."""

import asyncio
import json

import openai
import pytest

from tenth.server.dialects.openai_chat_request import ChatRequest
from tenth.server.dialects.openai_completions import CompletionRequest
from tenth.server.dialects.response_request import ResponseRequest
from tenth.server.streams import event

from .running import events

HI = [{"role": "user", "content": "Hi"}]
GREEDY = {"temperature": 0.0, "max_tokens": 12}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_an_answer_is_that_of_the_python_api(client, tiny):
    said = client.chat.completions.create(model="tiny", messages=HI, **GREEDY)
    stream = tiny.chat(HI, **GREEDY)
    assert said.choices[0].message.content == stream.text
    assert said.choices[0].finish_reason == stream.finish_reason
    assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (
        stream.usage.prompt_tokens, stream.usage.completion_tokens)
    assert said.model_extra["timings"]["first_token_s"] > 0


def test_a_stream_has_the_same_text_and_its_usage(client):
    whole = client.chat.completions.create(model="tiny", messages=HI, **GREEDY)
    chunks = list(client.chat.completions.create(model="tiny", messages=HI, stream=True,
                                                 stream_options={"include_usage": True}, **GREEDY))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_the_async_client_has_several_answers_at_work(server):
    async def ask():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(
                client.chat.completions.create(model="tiny", messages=HI, **GREEDY) for _ in range(6)))

    texts = {answer.choices[0].message.content for answer in asyncio.run(ask())}
    assert len(texts) == 1


def test_known_beginnings_are_told(client):
    long = [{"role": "user", "content": "a b c d e f g h " * 12}]
    client.chat.completions.create(model="tiny", messages=long, max_tokens=1)
    again = client.chat.completions.create(model="tiny", messages=long, max_tokens=1)
    assert again.usage.prompt_tokens_details.cached_tokens >= 32


def test_log_probabilities_are_those_of_the_engine(client, tiny):
    said = client.chat.completions.create(model="tiny", messages=HI, logprobs=True, top_logprobs=3, **GREEDY)
    known = tiny.chat(HI, top_logprobs=3, **GREEDY).logprobs
    listed = said.choices[0].logprobs.content
    assert [token.logprob for token in listed] == [token.logprob for token in known]
    assert b"".join(bytes(token.bytes) for token in listed).decode(errors="replace") == said.choices[0].message.content
    assert [len(token.top_logprobs) for token in listed] == [3] * len(known)
    chunks = list(client.chat.completions.create(model="tiny", messages=HI, logprobs=True, stream=True, **GREEDY))
    streamed = [t.logprob for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert streamed == [token.logprob for token in known]


def test_a_seed_gives_the_same_answers_and_n_different_ones(client):
    how = {"model": "tiny", "messages": HI, "seed": -7, "temperature": 2.0, "max_tokens": 16, "n": 3}
    first, second = client.chat.completions.create(**how), client.chat.completions.create(**how)
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in second.choices]
    assert len(set(texts)) == 3
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert first.usage.completion_tokens == 48
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**how, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_bias_stops_and_penalties_are_honoured(client, tiny):
    token = tiny.tokenize("z", special=False)[0]
    forced = client.chat.completions.create(model="tiny", messages=HI, logit_bias={str(token): 100}, **GREEDY)
    assert forced.choices[0].message.content == "z" * 12
    stopped = client.chat.completions.create(model="tiny", messages=HI, logit_bias={str(token): 100}, stop=["zzz"],
                                             **GREEDY)
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("", "stop")
    penal = {"frequency_penalty": 2.0, "presence_penalty": 1.5}
    said = client.chat.completions.create(model="tiny", messages=HI, **penal, **GREEDY)
    assert said.choices[0].message.content == tiny.chat(HI, **penal, **GREEDY).text


def test_completions_go_on_from_text_ids_and_lists(client, tiny):
    one = client.completions.create(model="tiny", prompt="abc", echo=True, **GREEDY)
    assert one.choices[0].text == "abc" + tiny.generate("abc", **GREEDY).text
    ids = tiny.tokenize("abc")
    both = client.completions.create(model="tiny", prompt=[ids, ids], logprobs=2, **GREEDY)
    assert [choice.text for choice in both.choices] == [tiny.generate(ids, **GREEDY).text] * 2
    assert len(both.choices[0].logprobs.tokens) == 12
    assert max(len(top) for top in both.choices[0].logprobs.top_logprobs) == 2
    streamed = client.completions.create(model="tiny", prompt="abc", stream=True, **GREEDY)
    assert "".join(chunk.choices[0].text for chunk in streamed) == tiny.generate("abc", **GREEDY).text


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "tenth"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("a/b")


def test_a_model_that_is_not_served_is_a_404_that_names_those_that_are(client):
    with pytest.raises(openai.NotFoundError, match="tiny") as caught:
        client.chat.completions.create(model="gpt-4o", messages=HI)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_route_that_is_not_there_is_named_and_a_wrong_base_url_noticed(server):
    hello = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    for base, meant in (("", "/v1/chat/completions"), ("/v1/v1", "/v1/chat/completions")):
        with openai.OpenAI(base_url=server.url + base, api_key="none", max_retries=0) as astray, pytest.raises(
                openai.NotFoundError, match=rf"no POST {base}/chat/completions here \(there is {meant}: see"):
            astray.chat.completions.create(**hello)
    assert "no POST /v1/images here (/docs lists what there is)" in server.post("/v1/images", {}).text
    wrong = server.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert "no GET /v1/chat/completions here" in wrong.text


def test_a_prompt_that_is_too_long_is_a_400(client):
    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a" * 3000}])


@pytest.mark.parametrize(("field", "value"), [
    ("n", 9), ("n", 0), ("temperature", -1), ("temperature", "1"), ("top_p", 0), ("top_logprobs", 21),
    ("max_tokens", 0), ("max_tokens", 1 << 25), ("seed", 1 << 65), ("stop", ["x" * 257]), ("stop", ["x"] * 17),
    ("logit_bias", {"5": 101}), ("logit_bias", {"x": 1}), ("logit_bias", {"999999": 1}), ("reasoning_effort", "huge"),
    ("messages", []), ("messages", [{"role": "wizard", "content": "x"}]), ("stream", "yes"), ("nonsense", 1),
    ("max_completion_tokens", 5), ("stream_options", {"include_usage": True}), ("metadata", {"a": 1}),
    ("thinking", {"type": "enabled", "budget_tokens": -1}), ("store", True), ("modalities", ["audio"]),
    ("presence_penalty", 11), ("user", "x" * 513), ("chat_template_kwargs", {"tokenize": True}),
])  # fmt: skip
def test_what_is_out_of_bounds_is_a_400_that_names_it(server, field, value):
    answer = server.chat(**({"max_tokens": 4} | {field: value}))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert field.split("_")[0] in error["message"] or field in (error["param"] or ""), error


def test_pictures_are_refused_by_name(server):
    answer = server.chat(content=[{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages.0.content.0.type")
    assert "image_url" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("body", "message"), [
    (b"", "the body is empty"), (b"[]", ""), (b'"' + b"x" * 100 + b'"', ""),
    (b"{", "the body is not JSON"), (b"nul", "the body is not JSON"), (b'{"model": NaN}', "the body is not JSON"),
    (b"\xff", "the body is not JSON"), (b'{"a":' * 5000 + b"1" + b"}" * 5000, "the body is not JSON"),
    (b"[" * 100 + b"]" * 100, "nests deeper than 64 levels"),
    (b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', "the body is not JSON"),
])  # fmt: skip
def test_bodies_that_are_no_request_are_a_400(server, body, message):
    answer = server.http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(("path", "body", "least"), [
    ("/v1/chat/completions", ChatRequest, {"messages": HI, "max_tokens": 1}),
    ("/v1/completions", CompletionRequest, {"prompt": "x", "max_tokens": 1}),
    ("/v1/responses", ResponseRequest, {"input": "x", "max_output_tokens": 1}),
], ids=["chat", "completions", "responses"])  # fmt: skip
def test_what_is_not_supported_may_be_null_or_ask_for_nothing(server, path, body, least):
    assert body.harmless
    for name in body.unsupported:
        given = [None] + ([body.harmless[name]] if name in body.harmless else [])
        assert [server.post(path, {"model": "tiny", **least, name: value}).status_code for value in given] == (
            [200] * len(given)), name


@pytest.mark.parametrize("path", ["/v1/models?limit=3", "/v1/files?colour=red", "/v1/batches?order=asc", "/health?x=1",
                                  "/v1/responses/resp_1?stream=true", "/api/tags?x=", "/metrics?name=x",
                                  "/v1/files?limit=0", "/v1/files?order=up", "/v1/files?after=file-none"])
def test_parameters_of_the_address_are_known_or_a_400(server, path):
    answer = server.get(path)
    assert answer.status_code == 400
    assert path.partition("?")[2].partition("=")[0] in answer.text


def test_a_stream_that_fails_ends_with_an_error_event(server, monkeypatch):
    model = server.app.shelf.models["tiny"].model
    runtime = model.loaded.runtime

    def fail(batch):
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(runtime, "step", fail)
    found = events(server.chat(stream=True, max_tokens=4).text)
    assert "the disk is gone" in found[-1][1]["error"]["message"]
    assert server.chat(max_tokens=4).status_code == 503


def test_tokens_there_and_back(server, tiny):
    ids = server.post("/tokenize", {"content": "Hi there"}).json()["tokens"]
    assert ids == tiny.tokenize("Hi there", special=False)
    assert server.post("/detokenize", {"tokens": ids, "model": "tiny"}).json() == {"content": "Hi there"}
    pieces = server.post("/tokenize", {"content": "Hi", "with_pieces": True}).json()["tokens"]
    assert "".join(piece["piece"] for piece in pieces) == "Hi"
    assert server.post("/detokenize", {"tokens": [10**9]}).status_code == 400


def test_an_event_is_json_whatever_was_computed():
    def refused(name):
        raise AssertionError(f"{name} is no JSON")

    data = event({"logprob": float("-inf"), "rate": float("nan")}).decode().removeprefix("data: ")
    assert json.loads(data, parse_constant=refused) == {"logprob": None, "rate": None}
