"""Every field of the official request types, one at a time, over HTTP: it is honoured, or refused by its name.

The official clients' own types are walked, so that a field which a newer client brings is tested too. That an accepted
field does something is another test's business, here only that the code reads it, or that the documents say why not.
"""

import ast
import inspect
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from openai.types import batch_create_params, completion_create_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params
from pydantic import BaseModel

import tenth.server
from tenth.sampling import SamplingParams
from tenth.server.body import Body
from tenth.server.dialects.openai_chat_request import AllowedTools, FunctionDefinition
from tenth.server.dialects.response_request import FunctionTool

from .official import samples

HI = [{"role": "user", "content": "Hi"}]
CASES = {
    "chat": ("/v1/chat/completions", chat_params.CompletionCreateParamsNonStreaming,
             {"messages": HI, "max_tokens": 1}),
    "chat stream": ("/v1/chat/completions", chat_params.CompletionCreateParamsStreaming,
                    {"messages": HI, "max_tokens": 1, "stream": True}),
    "completions": ("/v1/completions", completion_create_params.CompletionCreateParamsNonStreaming,
                    {"prompt": "Hi", "max_tokens": 1}),
    "responses": ("/v1/responses", response_create_params.ResponseCreateParamsNonStreaming,
                  {"input": "Hi", "max_output_tokens": 1}),
    "messages": ("/v1/messages", message_create_params.MessageCreateParamsNonStreaming,
                 {"messages": HI, "max_tokens": 1}),
    "count_tokens": ("/v1/messages/count_tokens", message_count_tokens_params.MessageCountTokensParams,
                     {"messages": HI}),
}  # fmt: skip
# Fields that a value of another one needs.
WITH = {
    "top_logprobs": {"/v1/chat/completions": {"logprobs": True},
                     "/v1/responses": {"include": ["message.output_text.logprobs"]}},
    "tool_choice": {"/v1/chat/completions": {"tools": [{"type": "function", "function": {"name": "x"}}]},
                    "/v1/responses": {"tools": [{"type": "function", "name": "x", "parameters": None,
                                                 "strict": None}]},
                    "/v1/messages": {"tools": [{"name": "x", "input_schema": {}}]},
                    "/v1/messages/count_tokens": {"tools": [{"name": "x", "input_schema": {}}]}},
    "best_of": {"/v1/completions": {"n": 1}},
}  # fmt: skip


def told(answer):
    error = answer.json()["error"]
    return f"{error['message']} {error.get('param')}"


@pytest.mark.parametrize("case", CASES)
def test_every_official_field_is_honoured_or_refused_by_name(server, case):
    path, kind, least = CASES[case]
    accepted, refused, wrong = set(), set(), []
    for value, names in samples(kind):
        if names[0] == "model" or any(names[: len(known)] == known for known in refused):
            continue
        if names[0] == "stream_options" and "stream" not in least:
            continue
        body = {**least, **WITH.get(names[0], {}).get(path, {}), names[0]: value[names[0]], "model": "tiny"}
        answer = server.post(path, body)
        if answer.status_code == 200 or "the prompt has" in told(answer):
            accepted.add(names)
            continue
        if names == ("input", "id"):  # an item_reference, known by having nothing else
            names = ("input", "item_reference")
        named = [n for n, name in enumerate(names) if n and name in told(answer)]
        is_whole = f"{names[0]} is not supported" in told(answer)
        is_value = f"{names[0]}: Input should" in told(answer) or told(answer).endswith(f" {names[0]}")
        if answer.status_code not in (400, 404) or not (named or is_whole or is_value):
            wrong.append((names, answer.status_code, answer.text[:300]))
        elif named or is_whole:
            refused.add(names[: named[-1] + 1] if named else names[:1])  # what is inside is no business then
    assert not wrong, "\n".join(map(str, wrong))
    print(f"{path}: {len(accepted)} accepted, {len(refused)} refused by name")
    assert {names[0] for names in accepted} >= set(least) - {"stream"}
    assert refused


def test_batches_take_their_official_fields(server):
    for value, names in samples(batch_create_params.BatchCreateParams):
        answer = server.post("/v1/batches", value if names[0] == "endpoint" else value | {
            "endpoint": "/v1/chat/completions"})
        assert answer.status_code in (400, 404), names  # there is no such file
        if answer.status_code == 400:
            assert names[0] in told(answer), names


def words(annotation):
    """The values that a field may have, where they are listed."""
    return [word for branch in (annotation, *get_args(annotation)) if get_origin(branch) is Literal
            for word in get_args(branch)]


def bodies():
    """Every class of a request's body of the APIs that others have defined."""
    found, left = set(), [Body]
    while left:
        kind = left.pop()
        found.add(kind)
        left += kind.__subclasses__()
    return {kind for kind in found if kind.__module__.startswith("tenth.server.dialects.")}


def test_every_accepted_field_is_read_or_its_description_says_why_not():
    folder = Path(inspect.getfile(tenth.server)).parent
    read = {node.attr for file in folder.rglob("*.py") for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Attribute)} | {field.name for field in fields(SamplingParams)}
    assert len(bodies()) > 30
    silent = []
    for kind in bodies() - {FunctionDefinition, FunctionTool, AllowedTools}:  # which are passed on whole
        assert issubclass(kind, BaseModel)
        silent += [f"{kind.__module__}.{kind.__name__}.{name}" for name, field in kind.model_fields.items()
                   if name not in read and not (field.description or kind.__doc__).startswith("Accepted")
                   and len(words(field.annotation)) != 1]
    assert not silent, "\n".join(silent)
