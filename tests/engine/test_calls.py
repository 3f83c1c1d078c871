"""Tools from end to end: template, grammar, native model, stream, on the tiny chat model or with a script for it."""

import json

import pytest

import tenth
from tenth.feed import TokenReader
from tenth.text.families import family_of
from tenth.text.stream import DeltaStream
from tenth.text.tools import CallParser, format_of

from .test_stream import Letters
from .test_thinking import FILE, QUESTION, TURN, scripted  # noqa: F401

HERMES = "{# {{ tools }} <tool_call> #}" + TURN
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {
           "type": "object", "properties": {"city": {"enum": ["Bern", "Oslo"]}, "days": {"type": "integer",
           "minimum": 1, "maximum": 9}}, "required": ["city", "days"], "additionalProperties": False}}}  # fmt: skip
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern", "days": 2}}\n</tool_call>'
SHORT = '<tool_call>{"name":"weather"}</tool_call>'


@pytest.fixture(scope="module", params=[HERMES, HERMES + "{{ '<think>\n' }}"], ids=["answers", "thinks"])
def model(request):
    with tenth.load(FILE, template=request.param, threads=1) as opened:
        yield opened


@pytest.mark.parametrize("seed", range(3))
def test_a_call_that_has_to_be_made_is_made_and_fits_the_schema(model, seed):
    stream = model.chat(QUESTION, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, seed=seed,
                        temperature=2.0, max_tokens=300, thinking_budget=4)  # fmt: skip
    pieces = list(stream)
    [call] = stream.tool_calls
    arguments = json.loads(call.arguments)
    assert call.name == "weather"
    assert arguments["city"] in ("Bern", "Oslo")
    assert 1 <= arguments["days"] <= 9
    assert (stream.text, stream.finish_reason) == ("", "stop")
    parts = [piece for piece in pieces if piece.kind == "call"]
    assert parts[0].call.name == "weather"
    assert parts[-1].call.ended
    assert "".join(parts) == call.arguments
    assert len(parts) > 5  # they came as they were made


def test_thinking_content_and_calls_come_one_after_the_other(scripted):  # noqa: F811
    model = scripted("<think>\nhm\n</think>\n\nI look.\n" + CALL + "\n" + SHORT + "<|im_end|>",
                     template="{# <think> #}" + HERMES)  # fmt: skip
    stream = model.chat(QUESTION, tools=[WEATHER])
    kinds = [piece.kind for piece in stream]
    assert sorted(set(kinds), key=kinds.index) == ["thinking", "content", "call"]
    assert (stream.thinking, stream.text) == ("hm", "I look.")
    assert [(call.name, json.loads(call.arguments)) for call in stream.tool_calls] == [
        ("weather", {"city": "Bern", "days": 2}), ("weather", {})]  # fmt: skip
    assert len({call.id for call in stream.tool_calls}) == 2


def test_without_tools_what_looks_like_a_call_is_text(scripted):  # noqa: F811
    for settings in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
        stream = scripted(CALL + "<|im_end|>", template=HERMES).chat(QUESTION, **settings)
        assert (stream.text, stream.tool_calls) == (CALL, [])


def test_wrong_tools_are_refused_at_once(model):
    with pytest.raises(tenth.RequestError, match=r"tools\[0\]"):
        model.chat(QUESTION, tools=[{"type": "web_search"}])
    strict = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object", "if": {}}}}
    with pytest.raises(tenth.RequestError, match="if"):
        model.chat(QUESTION, tools=[strict])


@pytest.mark.parametrize(
    ("answer", "content", "arguments"),
    [
        ("<|channel|>final<|message|>Hi", "Hi", ""),
        ('<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"days": 1}', "", '{"days": 1}'),
    ],
)
def test_harmony_marks_what_comes_behind_a_thought_also_where_a_grammar_has_begun(answer, content, arguments):
    template = "{{ tools }}<|channel|>analysis<|message|>functions."
    reader = TokenReader(Letters(), DeltaStream(family_of(template)), None, CallParser(format_of(template).read, {}))
    pieces = [piece for letter in "<|channel|>analysis<|message|>hm<|end|><|start|>assistant" for piece in
              reader.push(ord(letter))]  # fmt: skip
    pieces += reader.settle()
    pieces += [piece for letter in answer for piece in reader.push(ord(letter))] + reader.finish()
    texts = {kind: "".join(piece for piece in pieces if piece.kind == kind) for kind in ("thinking", "content", "call")}
    assert texts == {"thinking": "hm", "content": content, "call": arguments}
