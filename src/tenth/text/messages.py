"""The messages of a conversation, checked, in the plain form that chat templates expect: contents are texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenth.errors import RequestError

MAX_MESSAGES = 4096
_TEXT_PARTS = ("text", "input_text", "output_text")  # how OpenAI's two interfaces name them


def plain_messages(messages: Any) -> list[dict[str, Any]]:
    """Copies whose content is a text; the parts of one are joined, None stands for "" beside tool calls.

    Raises RequestError naming the message and what is wrong with it.
    """
    if not isinstance(messages, (list, tuple)) or not 1 <= len(messages) <= MAX_MESSAGES:
        raise RequestError(f"messages must be a list of 1 to {MAX_MESSAGES} messages")
    return [_plain(i, message) for i, message in enumerate(messages)]


def _plain(i: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise RequestError(f'message {i} is {message!r}, expected a dict with "role" and "content"')
    calls = message.get("tool_calls")
    content = message.get("content")
    if content is None and (calls or ("content" in message and message["role"] == "tool")):
        content = ""
    if "content" not in message and not calls:
        raise RequestError(f'message {i} is {message!r}, expected a dict with "role" and "content"')
    return {**message, "content": _text(f"the content of message {i}", content)}


def _text(what: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise RequestError(f"{what} is {content!r}, expected a text or a list of text parts")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else part
        if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            raise RequestError(f"{what} has a part of type {kind!r}, expected parts like "
                               '{"type": "text", "text": "..."}', "this model takes text only")
        texts.append(part["text"])
    return "".join(texts)
