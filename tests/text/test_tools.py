"""Calls of tools: read in every format however the answer is cut, and kept to by grammars."""

import json
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tenth.errors import RequestError
from tenth.text.grammar import Grammar
from tenth.text.matching import Grammars
from tenth.text.messages import plain_messages
from tenth.text.tokenizer import Tokenizer
from tenth.text.tools import FORMATS, GENERIC, CallParser, format_of, read_tools
from tenth.text.tools.grammar import call_grammar, quoting
from tenth.text.tools.history import with_tools

from .vocabularies import Metadata, published

F = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {
     "type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer"}}, "required": ["a"],
     "additionalProperties": False}}}  # fmt: skip
G = {"type": "function", "function": {"name": "g", "description": "does g", "parameters": {
     "type": "object", "properties": {"b": {"enum": ["x", "y"]}}, "required": ["b"]}}}  # fmt: skip
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in (F, G)}
BEGIN, CALL, SEP, CALL_END, END = (f"<｜tool▁{name}｜>" for name in
                                   ("calls▁begin", "call▁begin", "sep", "call▁end", "calls▁end"))  # fmt: skip

# Of each format: an answer with calls f {"a": "x", "n": 2}, and in those that have several g {"b": "y"}.
ANSWERS = {
    "generic": '<tool_call>\n{"name": "f", "arguments": {"a": "x", "n": 2}}\n</tool_call>',
    "hermes": '<tool_call>\n{"name": "f", "arguments": {"a": "x", "n": 2}}\n</tool_call>\n<tool_call>\n'
              '{"name": "g", "arguments": {"b": "y"}}\n</tool_call>',
    "llama": '{"name": "f", "parameters": {"a": "x", "n": 2}}; {"name": "g", "parameters": {"b": "y"}}',
    "mistral": '[TOOL_CALLS][{"name": "f", "arguments": {"a": "x", "n": 2}}, {"name": "g", "arguments": {"b": "y"}}]',
    "mistral-named": '[TOOL_CALLS]f[ARGS]{"a": "x", "n": 2}[TOOL_CALLS]g[ARGS]{"b": "y"}',
    "harmony": '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": "x", "n": 2}',
    "qwen3-coder": "<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n<parameter=n>\n2\n</parameter>\n"
                   "</function>\n</tool_call>\n<tool_call>\n<function=g>\n<parameter=b>\ny\n</parameter>\n"
                   "</function>\n</tool_call>",
    "glm": "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x</arg_value>\n<arg_key>n</arg_key>\n"
           "<arg_value>2</arg_value>\n</tool_call>\n<tool_call>g\n<arg_key>b</arg_key>\n<arg_value>y</arg_value>\n"
           "</tool_call>",
    "gemma4": '<|tool_call>call:f{a:<|"|>x<|"|>,n:2}<tool_call|><|tool_call>call:g{b:<|"|>y<|"|>}<tool_call|>',
    "functiongemma": "<start_function_call>call:f{a:<escape>x<escape>,n:2}<end_function_call><start_function_call>"
                     "call:g{b:<escape>y<escape>}<end_function_call>",
    "deepseek-v3": f'{BEGIN}{CALL}function{SEP}f\n```json\n{{"a": "x", "n": 2}}\n```{CALL_END}\n'
                   f'{CALL}function{SEP}g\n```json\n{{"b": "y"}}\n```{CALL_END}{END}',
    "deepseek-v3.1": f'{BEGIN}{CALL}f{SEP}{{"a": "x", "n": 2}}{CALL_END}{CALL}g{SEP}{{"b": "y"}}{CALL_END}{END}',
}  # fmt: skip
ALL = {row.name: row for row in (*FORMATS, GENERIC)}
SINGLE = ("harmony", "generic")
BEHIND_TEXT = sorted(set(ALL) - {"llama"})  # Llama's calls are the whole answer


def read(name, pieces):
    parser = CallParser(ALL[name].read, SCHEMAS)
    events = [event for piece in pieces for event in parser.push(piece)] + parser.finish()
    assert "".join(event.raw for event in events) == "".join(pieces)
    merged = []
    for event in events:
        if event.kind in ("content", "arguments") and merged and merged[-1][0] == event.kind:
            merged[-1][1] += event.text
        elif event.text or event.kind in ("start", "end"):
            merged.append([event.kind, event.text])
    return merged


def calls(events):
    """(content, [(name, arguments, whether it has ended)])."""
    content, found = "", []
    for kind, text in events:
        if kind == "content":
            content += text
        elif kind == "start":
            found.append([text, "", False])
        elif kind == "arguments":
            found[-1][1] += text
        else:
            found[-1][2] = True
    return content, [(name, arguments, ended) for name, arguments, ended in found]


def test_every_format_has_an_example():
    assert set(ANSWERS) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_calls_are_found_with_their_arguments_as_json(name):
    content, found = calls(read(name, [ANSWERS[name]]))
    expected = [("f", {"a": "x", "n": 2}, True), ("g", {"b": "y"}, True)][: 1 if name in SINGLE else 2]
    assert content == ""
    assert [(n, json.loads(arguments), ended) for n, arguments, ended in found] == expected


@pytest.mark.parametrize("name", BEHIND_TEXT)
def test_text_before_and_behind_calls_is_content_without_the_space_between(name):
    content, found = calls(read(name, ["Let me see.\n\n", ANSWERS[name]]))
    assert content == "Let me see."
    assert found == calls(read(name, [ANSWERS[name]]))[1]
    if name != "mistral-named":
        content, again = calls(read(name, [ANSWERS[name], "\n\nThat is it.\n"]))
        assert (content, again) == ("That is it.\n", found)


def cuts(text, places):
    bounds = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


FRAGMENTS = st.sampled_from(sorted(
    {mark for row in ALL.values() for mark in (*row.marks, row.opening)} | set(ANSWERS.values())
    | {" ", "\n", "{", "}", '"', "\\", ":", ",", "[", "]", "Hello", '{"name": "f"', '"arguments": {"a": 1}', "null",
       "<function=f>", "<parameter=a>", "</parameter>", "</function>", "```json\n", "call:f{", "é🙂", "to=functions.f",
       '{"arguments": {"b": 2}, "name": "g"}', '"parameters": "{\\"a\\": 1}"', "f", "<tool", "[TOOL",
       "<｜tool"}))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(FRAGMENTS, max_size=12).map("".join), st.lists(st.integers(0, 400), max_size=8))
@example('<tool_call>\n{"arguments": "{\\"a\\": 1}", "id": 7, "name": "f"}', [3, 20])
@example("<tool_call>\n<function=f>\n<parameter=a>\n\n\nx\n\n</parameter>\n</function>", [41, 42, 43])
def test_any_text_is_read_the_same_however_it_is_cut_and_none_is_lost(text, places):
    for name in ALL:
        whole = read(name, [text])  # which also checks that nothing is lost
        assert read(name, cuts(text, places)) == whole, name
        assert read(name, list(text)) == whole, name


@pytest.mark.parametrize("name", ALL)
def test_text_without_calls_is_content_to_the_last_space(name):
    for text in ("Just words.\n", "  a < b, {x} [y]\n\n", "", '{"answer": [1, 2]}', "<tool> </tool_", "```json\n"):
        assert read(name, list(text)) == ([["content", text]] if text else [])


@pytest.mark.parametrize("name", ALL)
def test_a_call_that_is_cut_off_has_no_end(name):
    text = ANSWERS[name]
    _, found = calls(read(name, [text[: text.index("2")]]))
    assert [(name, ended) for name, _, ended in found] == [("f", False)]
    assert found[0][1].startswith('{"a": "x"')


def test_deep_nesting_is_no_call():
    deep = '{"name": "f", "arguments": ' + '{"a":' * 10_000
    events = read("hermes", ["<tool_call>" + deep])
    assert all(kind != "end" for kind, _ in events)


def test_a_bare_object_is_a_call_only_of_a_tool_that_there_is():
    assert calls(read("hermes", ['{"name": "f", "arguments": {}}'])) == ("", [("f", "{}", True)])
    text = '{"name": "Anna", "arguments": {}}'
    assert calls(read("hermes", [text])) == (text, [])


def test_values_of_parameters_follow_the_schema():
    text = ANSWERS["qwen3-coder"].split("\n<tool_call>")[0]
    text = text.replace("\nx\n", '\n12 "q"\n\n').replace("\n2\n", "\nTrue\n")
    assert json.loads(calls(read("qwen3-coder", [text]))[1][0][1]) == {"a": '12 "q"\n', "n": True}


# ---- which format


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{% if tools %}<tool_call>{% endif %}", "hermes"),
        ("{{ tools }}<tool_call>\n<function=x><parameter=y>", "qwen3-coder"),
        ("{{ tools }}<tool_call>{{ n }}<arg_key>k</arg_key><arg_value>", "glm"),
        ("{{ tools }}" + CALL + "```json", "deepseek-v3"),
        ("{{ tools }}" + CALL, "deepseek-v3.1"),
        ("{{ tools }}<|channel|>commentary functions.", "harmony"),
        ("{{ tools }}[TOOL_CALLS]", "mistral"),
        ("{{ tools }}[TOOL_CALLS][ARGS]", "mistral-named"),
        ("{{ tools }}<|tool_call>call:", "gemma4"),
        ("{{ tools }}<start_function_call>", "functiongemma"),
        ("{{ tools }}<|python_tag|>", "llama"),
        ("{{ messages }}", "generic"),
        ("{{ messages }}<tool_call>", "generic"),
        ("{{ tools }}", "generic"),
    ],
)
def test_the_template_tells_the_format(template, name):
    assert format_of(template).name == name


# ---- grammars


@pytest.fixture(scope="module", params=[True, False], ids=["control", "plain"])
def vocabulary(request):
    """One whose marks are control tokens, and one where they are text like any other."""
    values = dict(published("qwen2")[1].values)
    marks = sorted({mark for row in ALL.values() for mark in row.marks})
    values["tokenizer.ggml.tokens"] = [*values["tokenizer.ggml.tokens"], *marks]
    kinds = [3 if request.param else 1] * len(marks)
    values["tokenizer.ggml.token_type"] = [*values["tokenizer.ggml.token_type"], *kinds]
    tokenizer = Tokenizer.from_metadata(Metadata(values))
    return tokenizer, Grammars(tokenizer)


def takes(vocabulary, grammar, text):
    tokenizer, grammars = vocabulary
    matcher = grammars.matcher(grammar)
    ids = tokenizer.encode(text, special=False, parse_special=True, continuing=True)
    return matcher.advance(ids) == len(ids) and matcher.accepts


@pytest.mark.parametrize("name", ALL)
def test_a_grammar_takes_right_calls_and_no_others(vocabulary, name):
    row, text = ALL[name], ANSWERS[name]
    quote, is_single = quoting(vocabulary[0], row), name in SINGLE
    wrong = text.replace('"a"', '"q"').replace("=a>", "=q>").replace(">a<", ">q<").replace("{a:", "{q:")
    assert wrong != text
    for choice in ("auto", "required"):
        grammar = call_grammar(row, read_tools([F, G], choice), quote)
        assert takes(vocabulary, grammar, text)
        assert not takes(vocabulary, grammar, wrong)
        assert takes(vocabulary, grammar, row.plain + "Hello you") == (choice == "auto")
        if choice == "auto" and name in BEHIND_TEXT and not row.plain:
            assert takes(vocabulary, grammar, "Hello\n" + text)
    single = call_grammar(row, read_tools([F, G], "required", parallel=False), quote)
    assert takes(vocabulary, single, text) == is_single
    only = call_grammar(row, read_tools([F, G], {"type": "function", "function": {"name": "g"}}), quote)
    assert not takes(vocabulary, only, text)
    some = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
        {"type": "function", "function": {"name": "g"}}]}}
    allowed = call_grammar(row, read_tools([F, G], some), quote)
    assert takes(vocabulary, allowed, row.plain + "Hello you")
    assert not takes(vocabulary, allowed, text)  # which calls f


@pytest.mark.parametrize("name", ALL)
def test_an_answer_that_is_no_call_may_have_a_grammar_too(vocabulary, name):
    row = ALL[name]
    for answer, text in ((Grammar.json_schema({"type": "array"}), "[1]"), (Grammar.regex("[0-9]/[0-9]"), "1/2")):
        grammar = call_grammar(row, read_tools([F]), quoting(vocabulary[0], row), answer)
        assert takes(vocabulary, grammar, row.plain + text)
        assert not takes(vocabulary, grammar, row.plain + "words")
    with pytest.raises(RequestError, match="Lark"):
        call_grammar(row, read_tools([F]), quoting(vocabulary[0], row), Grammar.lark('start: "a"'))


def test_without_strict_tools_nothing_is_kept_to(vocabulary):
    assert call_grammar(GENERIC, read_tools([G]), quoting(vocabulary[0], GENERIC)) is None


def test_a_strict_schema_that_is_not_supported_is_named_and_another_passed_over(vocabulary):
    properties = {"l": {"type": "array", "uniqueItems": True}}
    function = {"name": "h", "parameters": {"type": "object", "properties": properties}}
    for strict in (True, False):
        tools = [{"type": "function", "function": {**function, "strict": strict}}]
        grammar = call_grammar(GENERIC, read_tools(tools, "required"), quoting(vocabulary[0], GENERIC))
        if strict:
            with pytest.raises(RequestError, match="uniqueItems"):
                vocabulary[1].matcher(grammar)
        else:
            vocabulary[1].matcher(grammar)


# ---- requests and conversations


@pytest.mark.parametrize(
    ("tools", "choice", "message"),
    [
        ("f", None, "tools must be"),
        ([F] * 200, None, "at most 128"),
        ([F, F], None, "two tools are named 'f'"),
        ([{"type": "web_search"}], None, r"tools\[0\]"),
        ([{"type": "function", "function": {"name": "a b"}}], None, r"tools\[0\].function.name is 'a b'"),
        ([{"type": "function", "function": {"name": "a", "parameters": 3}}], None, "parameters"),
        ([{"type": "function", "function": {"name": "a", "strict": 3}}], None, "strict"),
        ([{**F, "strict": True}], None, r"tools\[0\] has the field 'strict'"),
        ([{"type": "function", "function": {"name": "a", "async": True}}], None, "function has the field 'async'"),
        ([F], {"type": "allowed_tools", "allowed_tools": {"mode": "some", "tools": [F]}}, "mode"),
        ([F], {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, "1 to 128"),
        ([F], {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [F]}}, "the field"),
        ([F], "perhaps", "tool_choice is 'perhaps'"),
        ([F], {"type": "function", "function": {"name": "h"}}, "names the tool 'h'"),
        (None, "required", "there are no tools"),
    ],
)
def test_wrong_tools_are_refused_with_the_field(tools, choice, message):
    with pytest.raises(RequestError, match=message):
        read_tools(tools, choice)


def test_tool_choice_none_is_no_tools():
    assert read_tools([F], "none") is None
    assert read_tools([], None) is None


CONVERSATION = [
    {"role": "user", "content": "Do it"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "x"}'}}]},
    {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "done"}]},
]  # fmt: skip


def test_a_conversation_with_calls_is_put_as_the_template_wants_it():
    request = read_tools([F])
    messages, tools = with_tools(plain_messages(CONVERSATION), request, ALL["hermes"])
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": "x"}
    assert messages[1]["content"] == ""
    assert tools[0]["function"]["name"] == "f"
    messages, _ = with_tools(plain_messages(CONVERSATION), request, ALL["deepseek-v3"])
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == '{"a": "x"}'
    messages, tools = with_tools(plain_messages(CONVERSATION), request, GENERIC)
    assert tools is None
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert '"name": "f"' in messages[0]["content"]
    assert calls(read("generic", [messages[2]["content"]]))[1] == [("f", '{"a": "x"}', True)]
    assert "done" in messages[3]["content"]
    with pytest.raises(RequestError, match="message 0 has the tool call"):
        with_tools([{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}], None, GENERIC)


@pytest.mark.parametrize(
    ("message", "match"),
    [
        ({"role": "user", "content": None}, "content of message 0 is None"),
        ({"role": "user", "content": 3}, "content of message 0 is 3"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "'image_url'"),
        ({"role": "user", "content": ["x"]}, "'x'"),
        ({"role": "user", "content": [{"type": "text"}]}, "'text'"),
        ({"role": "user"}, "message 0"),
        ({"content": "x"}, "message 0"),
        ("x", "message 0"),
    ],
)
def test_contents_that_are_no_text_are_refused(message, match):
    with pytest.raises(RequestError, match=match):
        plain_messages([message])


def test_parts_of_a_content_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert plain_messages([{"role": "user", "content": parts}]) == [{"role": "user", "content": "ab"}]
