"""Structured output over HTTP: answers that match, in every dialect; what cannot be matched is a 400."""

import json

import anthropic
import ollama
import openai
import pydantic
import pytest

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9},
                                           "ok": {"type": "boolean"}},
          "required": ["n", "ok"], "additionalProperties": False}
HI = [{"role": "user", "content": "Hi"}]


LONG = 500  # tokens: without a seed the model may begin with a lot of white space


def check(text):
    value = json.loads(text)
    assert set(value) == {"n", "ok"}
    assert 0 <= value["n"] <= 9


class Answer(pydantic.BaseModel):
    n: int
    ok: bool


def test_openai_s_formats(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        named = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
        how = {"model": "tiny", "messages": HI, "max_tokens": 60, "seed": 1}
        said = client.chat.completions.create(**how, response_format=named, n=2)
        for choice in said.choices:
            check(choice.message.content)
            assert choice.finish_reason == "stop"
        streamed = client.chat.completions.create(**how, response_format=named, stream=True)
        check("".join(chunk.choices[0].delta.content or "" for chunk in streamed))
        regex = client.chat.completions.create(**how, extra_body={"response_format": {"type": "regex",
                                                                                      "regex": "(yes|no)!"}})
        assert regex.choices[0].message.content in ("yes!", "no!")
        response = client.responses.create(model="tiny", input="Hi", max_output_tokens=60, text={
            "format": {"type": "json_schema", "name": "answer", "schema": SCHEMA}})
        check(response.output_text)
        plain = client.completions.create(model="tiny", prompt="x", max_tokens=60,
                                          extra_body={"response_format": named})
        check(plain.choices[0].text)


def test_the_client_s_parse_helper(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        said = client.chat.completions.parse(model="tiny", messages=HI, response_format=Answer, max_tokens=200,
                                             logit_bias={})
        assert isinstance(said.choices[0].message.parsed, Answer)


def test_anthropic_s_and_ollama_s_formats(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        said = client.messages.create(model="tiny", messages=HI, max_tokens=LONG, output_config={
            "format": {"type": "json_schema", "schema": SCHEMA}})
        check(said.content[0].text)
    with ollama.Client(host=server.url, trust_env=False) as client:
        check(client.chat("tiny", HI, format=SCHEMA, options={"num_predict": LONG}).message.content)


@pytest.mark.parametrize(("format", "named"), [
    ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"unevaluatedItems": False}}}, "unevaluatedItems"),
    ({"type": "json_schema"}, "schema"), ({"type": "xml"}, "xml"), ({"type": "regex", "regex": "("}, "regular"),
    ({"type": "lark", "lark": "start: nothing"}, "grammar"),
])
def test_what_cannot_be_matched_is_a_400_that_says_so(server, format, named):
    answer = server.chat(response_format=format, max_tokens=5)
    assert answer.status_code == 400
    assert named in answer.json()["error"]["message"]
