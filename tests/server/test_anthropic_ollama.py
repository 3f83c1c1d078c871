"""Anthropic's and Ollama's dialects through their official clients, and thinking in every dialect."""

import math
import re

import anthropic
import ollama
import openai
import pytest
from ollama import _types as ollama_types

from tenth.server.dialects import ollama_lifetime, ollama_request

from .running import TINY, Held, Running, events, wait_until

HI = [{"role": "user", "content": "Hi"}]
GREEDY = {"temperature": 0.0}  # the newest client has no argument for it
# A template of a model that thinks: the tiny model never stops thinking by itself, a budget has to.
THINKS = ("{% for m in messages %}{{ m['content'] }}{% endfor %}"
          "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
          "{% else %}<think>\n{% endif %}")


@pytest.fixture(scope="module")
def claude(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def llama(server):
    with ollama.Client(host=server.url, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    with Running({"tiny": TINY}, tmp_path_factory.mktemp("state"), {"template": THINKS, "speculate": False}) as running:
        yield running


def test_a_message_is_that_of_the_python_api(claude, tiny):
    said = claude.messages.create(model="tiny", messages=HI, max_tokens=12, extra_body=GREEDY)
    stream = tiny.chat(HI, max_tokens=12, think=False, **GREEDY)
    assert said.content[0].text == stream.text
    assert said.stop_reason == "max_tokens"
    usage = said.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == stream.usage.prompt_tokens
    assert usage.output_tokens == 12


def test_a_message_streams_as_the_official_events(claude):
    whole = claude.messages.create(model="tiny", messages=HI, system="Be brief.", max_tokens=12, extra_body=GREEDY)
    with claude.messages.stream(model="tiny", messages=HI, system=[{"type": "text", "text": "Be brief."}],
                                max_tokens=12, extra_body=GREEDY) as stream:
        names = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 12)
    raw = [name for name in names if name not in ("text",)]
    assert raw[:2] == ["message_start", "content_block_start"]
    assert raw[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_a_stop_sequence_is_named(claude, tiny):
    text = claude.messages.create(model="tiny", messages=HI, max_tokens=12, extra_body=GREEDY).content[0].text
    said = claude.messages.create(model="tiny", messages=HI, max_tokens=12, extra_body=GREEDY,
                                  stop_sequences=["never", text[-2:]])
    assert (said.stop_reason, said.stop_sequence) == ("stop_sequence", text[-2:])
    assert said.content[0].text == text[: text.index(text[-2:])]


def test_tokens_are_counted(claude, tiny):
    n = claude.messages.count_tokens(model="tiny", messages=HI).input_tokens
    assert n == tiny.chat(HI, max_tokens=1).usage.prompt_tokens


def test_the_beta_methods_work_too(claude):
    assert claude.beta.messages.create(model="tiny", messages=HI, max_tokens=2).content[0].type == "text"
    assert claude.beta.messages.count_tokens(model="tiny", messages=HI).input_tokens > 0


def test_anthropic_s_errors_have_their_form(claude):
    with pytest.raises(anthropic.NotFoundError, match="tiny"):
        claude.messages.create(model="claude-opus-4", messages=HI, max_tokens=1)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        claude.messages.create(model="tiny", messages=HI, max_tokens=0)


def test_ollama_chats_and_generates(llama, tiny):
    options = {"temperature": 0.0, "num_predict": 12}
    whole = llama.chat("tiny", HI, options=options)
    expected = tiny.chat(HI, temperature=0.0, max_tokens=12)
    assert whole.message.content == expected.text
    assert (whole.done_reason, whole.eval_count) == ("length", 12)
    assert whole.prompt_eval_count == expected.usage.prompt_tokens
    parts = list(llama.chat("tiny:latest", HI, options=options, stream=True))
    assert "".join(part.message.content for part in parts) == expected.text
    assert parts[-1].done
    assert llama.generate("tiny", "Hi", options=options).response == expected.text
    raw = llama.generate("tiny", "abc", raw=True, options=options)
    assert raw.response == tiny.generate("abc", temperature=0.0, max_tokens=12).text
    listed = llama.chat("tiny", HI, options=options, logprobs=True, top_logprobs=2).logprobs
    assert [len(token.top_logprobs) for token in listed] == [2] * 12


def test_ollama_lists_shows_and_refuses(llama):
    assert [model.model for model in llama.list().models] == ["tiny"]
    assert llama.ps().models[0].context_length == 256
    assert llama.show("tiny").modelinfo["general.architecture"] == "llama"
    with pytest.raises(ollama.ResponseError, match="gives no vectors") as caught:
        llama.embed("tiny", "Hi")
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="num_ctx"):
        llama.chat("tiny", HI, options={"num_ctx": 4096})
    for keep in (-1, 1800, "5m"):
        assert llama.chat("tiny", HI, options={"num_ctx": 256, "num_predict": 1}, keep_alive=keep).done
    for name in ("http://127.0.0.1/x.gguf", "../x", "/etc/passwd", "hf:a/b:Q4_0"):
        with pytest.raises(ollama.ResponseError, match="catalogue"):
            llama.pull(name)


def test_a_model_is_opened_and_closed_by_requests_without_words(tmp_path):
    with Running({"tiny": TINY}, tmp_path, idle_unload=3600) as running, ollama.Client(running.url) as client:
        assert client.generate("tiny", keep_alive="1h30m").done_reason == "load"
        assert [model.model for model in client.ps().models] == ["tiny"]
        assert running.served.keep_s == 5400
        assert client.chat("tiny", keep_alive=0).done_reason == "unload"
        wait_until(lambda: not client.ps().models)
        assert client.chat("tiny", []).done_reason == "load"  # and it stays, as nothing else was said
        assert running.served.keep_s is None
        assert client.generate("tiny", "Hi", options={"num_predict": 2}, keep_alive="0").response
        wait_until(lambda: not client.ps().models)


@pytest.mark.parametrize(("given", "expected"), [
    (None, None), (0, 0), (1.5, 1.5), (-1, math.inf), ("-1m", math.inf), ("0", 0), ("5m", 300), ("1h0.5s", 3600.5),
    ("250ms", 0.25),
])  # fmt: skip
def test_how_long_a_model_stays_open(given, expected):
    assert ollama_lifetime.seconds(given) == expected


@pytest.mark.parametrize("given", ["", "5", "m", "5 m", "5mm", "1e3s", "m5", "٥m", "5m" * 60])
def test_what_is_no_time_to_stay_open_is_a_400(server, given):
    answer = server.post("/api/generate", {"model": "tiny", "keep_alive": given})
    assert (answer.status_code, "keep_alive" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize(("params", "body"), [
    (ollama_types.ChatRequest, ollama_request.ChatRequest),
    (ollama_types.GenerateRequest, ollama_request.GenerateRequest),
    (ollama_types.Options, ollama_request.Options),
    (ollama_types.Message, ollama_request.Message),
])
def test_every_official_field_of_ollama_is_honoured_or_refused_by_name(params, body):
    assert set(params.model_fields) <= set(body.model_fields) | set(body.unsupported)


def test_thinking_ends_with_its_budget_in_openai_s_dialect(thinker):
    with openai.OpenAI(base_url=thinker.url + "/v1", api_key="none", max_retries=0) as client:
        how = {"model": "tiny", "messages": HI, "temperature": 0.0, "max_tokens": 60}
        said = client.chat.completions.create(**how, extra_body={"thinking_budget": 9})
        extra = said.choices[0].message.model_extra
        assert extra["reasoning_content"] == extra["reasoning"] != ""
        assert said.choices[0].message.content
        assert said.usage.completion_tokens_details.reasoning_tokens == 9
        chunks = list(client.chat.completions.create(**how, stream=True, extra_body={"thinking_budget": 9}))
        thought = "".join((c.choices[0].delta.model_extra or {}).get("reasoning_content", "") for c in chunks)
        assert thought == extra["reasoning_content"]
        none = client.chat.completions.create(**how, reasoning_effort="none")
        assert none.usage.completion_tokens_details.reasoning_tokens == 0
        low = client.chat.completions.create(**how, reasoning_effort="minimal")
        assert low.usage.completion_tokens_details.reasoning_tokens == 60
    twice = thinker.chat(max_tokens=1, chat_template_kwargs={"thinking": True}, thinking={"type": "disabled"})
    assert twice.status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_that_ends_inside_a_closing_mark_leaves_none_of_it_in_the_thought(thinker, stream):
    begins_marks = {thinker.opened().tokenizer.encode("<", special=False)[-1]: 100}
    how = {"temperature": 0.0, "max_tokens": 40, "logit_bias": begins_marks, "thinking_budget": 5, "stream": stream}
    said = thinker.chat(**how)
    assert said.status_code == 200
    deltas = [event["choices"][0]["delta"] for _, event in events(said.text) if event != "[DONE]"] if stream else [
        said.json()["choices"][0]["message"]]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "<<<<"
    assert set("".join(delta.get("content") or "" for delta in deltas)) == {"<"}


def test_thinking_comes_as_blocks_in_anthropic_s_dialect(thinker):
    how = {"model": "tiny", "messages": HI, "max_tokens": 60, "extra_body": GREEDY}
    with anthropic.Anthropic(base_url=thinker.url, api_key="none", max_retries=0) as client:
        said = client.messages.create(**how, thinking={"type": "enabled", "budget_tokens": 9})
        assert [block.type for block in said.content] == ["thinking", "text"]
        with client.messages.stream(**how, thinking={"type": "enabled", "budget_tokens": 9}) as stream:
            streamed = stream.get_final_message().content
        assert [block.type for block in streamed] == ["thinking", "text"]
        assert (streamed[0].thinking, streamed[1].text) == (said.content[0].thinking, said.content[1].text)
        plain = client.messages.create(**how)
        assert [block.type for block in plain.content] == ["text"]
        again = client.messages.create(**{**how, "messages": [*HI, {"role": "assistant", "content": said.content},
                                                              *HI], "max_tokens": 4})
        assert again.content


def test_thinking_has_its_field_in_ollama_s_dialect(thinker):
    with ollama.Client(host=thinker.url, trust_env=False) as client:
        said = client.chat("tiny", HI, think="low", options={"num_predict": 40, "temperature": 0.0})
        assert said.message.thinking
        assert not client.chat("tiny", HI, think=False, options={"num_predict": 4}).message.thinking


def test_events_of_anthropic_are_named(server):
    answer = server.post("/v1/messages", {"model": "tiny", "messages": HI, "max_tokens": 2, "stream": True})
    found = events(answer.text)
    assert [name for name, _ in found] == [value["type"] for _, value in found]
    assert {"message_start", "content_block_delta", "message_stop"} <= {name for name, _ in found}


def end_thinking(running, id):
    return running.post("/v1/chat/completions/control", {"id": id, "action": "reasoning_end"})


def test_a_call_ends_thinking_now_in_every_dialect(thinker):
    """Without it the whole answer would be thought, as test_thinking_ends_with_its_budget shows."""
    asks = {
        "/v1/chat/completions": {"messages": HI, "max_tokens": 200, "thinking": {"type": "enabled"}},
        "/v1/responses": {"input": "Hi", "max_output_tokens": 200, "reasoning": {"effort": "max"}},
        "/v1/messages": {"messages": HI, "max_tokens": 200, "thinking": {"type": "enabled", "budget_tokens": 1000}},
        "/api/chat": {"messages": HI, "options": {"num_predict": 200}, "think": True},
    }
    for path, body in asks.items():
        greedy = {"temperature": 0.0}  # a token drawn at random could be the end of the answer, or of the thought
        still = {"options": body["options"] | greedy | {"ignore_eos": True}} if "options" in body else greedy
        with Held(thinker.opened(), after=30) as held, thinker.http.stream(
                "POST", path, json={"model": "tiny", "stream": True} | body | still) as answer:
            told, text = False, ""
            for line in answer.iter_lines():
                text += line
                if not told and re.search('(thinking|reasoning_content|delta)": ?"[^"]', line):
                    told = end_thinking(thinker, answer.headers["x-tenth-answer"]).json() == {"success": True}
                    held.go.set()
        assert told, path
        assert ('"text_delta"' in text or "output_text.delta" in text or '"content":"' in text.replace(
            '"content":""', "")), path


def test_ending_the_thinking_of_what_is_not_there_is_a_404(thinker):
    assert end_thinking(thinker, "chatcmpl-0123").status_code == 404
    assert thinker.post("/v1/chat/completions/control", {"id": "x", "action": "explode"}).status_code == 400
    with Held(thinker.opened(), after=30), thinker.http.stream("POST", "/v1/chat/completions", json={
            "model": "tiny", "messages": HI, "max_tokens": 100, "stream": True, "reasoning_effort": "none",
            "ignore_eos": True}) as answer:
        lines = answer.iter_lines()  # kept: a generator that is dropped closes the stream
        while '"content":"' not in next(lines).replace('"content":""', ""):
            pass
        said = end_thinking(thinker, answer.headers["x-tenth-answer"]).json()
    assert said["success"] is False
    assert "does not think" in said["message"]
