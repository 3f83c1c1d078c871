"""Tools and calls in the messages of a conversation, as the model's template wants them or in words of our own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from tenth.errors import RequestError
from tenth.text.tools.formats import GENERIC, ToolFormat
from tenth.text.tools.request import ToolRequest

_PREAMBLE = """You can call these functions. Each line describes one, with a JSON schema of its parameters:
{tools}

To call a function, answer with a JSON object between <tool_call> and </tool_call>, and nothing behind it:
<tool_call>
{{"name": "the function's name", "arguments": {{"the parameters": "and their values"}}}}
</tool_call>
You will be given the result. Call a function only when you need it; else answer in words."""


def with_tools(
    messages: list[dict[str, Any]], request: ToolRequest | None, format: ToolFormat
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """(messages, tools) for the template: GENERIC puts all into the messages.

    Raises RequestError for a tool call that is none.
    """
    if format is not GENERIC:
        tools = [tool.as_openai() for tool in request.tools] if request else None
        return [_with_calls(i, message, format.arguments) for i, message in enumerate(messages)], tools
    plain = [_in_words(i, message) for i, message in enumerate(messages)]
    if request is None:
        return plain, None
    preamble = _PREAMBLE.format(tools="\n".join(json.dumps(tool.as_openai()["function"]) for tool in request.tools))
    if plain[0]["role"] == "system":
        return [{**plain[0], "content": f"{plain[0]['content']}\n\n{preamble}"}, *plain[1:]], None
    return [{"role": "system", "content": preamble}, *plain], None


def _calls(i: int, message: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str, Any]]:
    """(the call, its function's name, its arguments, read if they are a text that can be)."""
    calls = message.get("tool_calls") or []
    if not isinstance(calls, (list, tuple)):
        raise RequestError(f"tool_calls of message {i} is {calls!r}, expected a list")
    read = []
    for call in calls:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise RequestError(f"message {i} has the tool call {call!r}, expected one with a function's name")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError, RecursionError):  # else as the model wrote it
                arguments = json.loads(arguments or "{}")
        read.append((call, function["name"], {} if arguments is None else arguments))
    return read


def _with_calls(i: int, message: dict[str, Any], form: str) -> dict[str, Any]:
    calls = _calls(i, message)
    if not calls:
        return {key: value for key, value in message.items() if key != "tool_calls"}
    plain = []
    for call, name, arguments in calls:
        if form == "text" and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        plain.append({**call, "type": "function", "function": {"name": name, "arguments": arguments}})
    return {**message, "tool_calls": plain}


def _in_words(i: int, message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = [f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n</tool_call>"
             for _, name, arguments in _calls(i, message)]  # fmt: skip
    content = "\n".join([*([message["content"]] if message["content"] else []), *calls])
    return {"role": message["role"], "content": content} if calls else message
