"""Our own export: an object with ``format`` "tenth-chats" and a list of chats; see tenth.server.chats.exporting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tenth.server.chats.imports.conversation import ROLES, Conversation, Said, joined, text_of, time_of

FORMAT = "tenth-chats"
STATUSES = ("done", "stopped", "interrupted", "error")
MARK = "is_tenth_chat"  # put into each, so that they are known apart from their file


NUMBERS = {  # what a message tells beside its text
    "usage": ("prompt_tokens", "cached_tokens", "completion_tokens", "thinking_tokens"),
    "timings": ("first_token_s", "prompt_tokens_per_second", "generated_tokens_per_second"),
    "cost": ("seconds", "joules"),
}
JOULES_ARE = ("measured", "estimated")


def inside(value: Any) -> Iterator[Any]:
    """The chats of an export."""
    if isinstance(value, dict) and value.get("format") == FORMAT and isinstance(value.get("chats"), list):
        yield from ({**chat, MARK: True} for chat in value["chats"] if isinstance(chat, dict))


def holds(value: Any) -> bool:
    """Whether it is a chat of ours."""
    return isinstance(value, dict) and value.get(MARK) is True and isinstance(value.get("messages"), list)


def read(value: Any) -> Conversation:
    """The chat."""
    said = [_said(one) for one in value["messages"] if isinstance(one, dict) and one.get("role") in ROLES]
    settings = value.get("settings")
    return Conversation(
        text_of(value.get("title")), joined(said), current=value.get("current_id"),
        created_at=time_of(value.get("created_at")), updated_at=time_of(value.get("updated_at")),
        model=text_of(value.get("model")) or None, is_pinned=value.get("is_pinned") is True,
        folder=text_of(value.get("folder")) or None, settings=settings if isinstance(settings, dict) else {})


def _said(one: dict[str, Any]) -> Said:
    more: dict[str, Any] = {}
    if one.get("status") in STATUSES:
        more["status"] = one["status"]
    if one.get("rating") in (-1, 0, 1):
        more["rating"] = one["rating"]
    more |= {name: _facts(one[name], NUMBERS[name]) for name in NUMBERS if isinstance(one.get(name), dict)}
    more |= {name: text_of(one[name]) for name in ("error", "finish_reason") if isinstance(one.get(name), str)}
    if _is_number(one.get("thinking_s")):
        more["thinking_s"] = float(one["thinking_s"])
    files = one.get("attachments")
    attachments = [{"name": text_of(file.get("name")), "kind": text_of(file.get("kind")) or "text",
                    "text": file["text"]} for file in (files if isinstance(files, list) else ())
                   if isinstance(file, dict) and isinstance(file.get("text"), str)]
    parent = one.get("parent_id")
    return Said(
        str(one.get("id")), parent if isinstance(parent, str) else None, one["role"], text_of(one.get("content")),
        text_of(one.get("thinking")), text_of(one.get("model")) or None, time_of(one.get("created_at")), attachments,
        more)


def _facts(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The numbers of these names, or none; anything else is left out."""
    found = {name: given[name] for name in names if name in given and (given[name] is None or _is_number(given[name]))}
    return found | ({"joules_are": given["joules_are"]} if given.get("joules_are") in JOULES_ARE else {})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15
