"""Our own export: an object with ``format`` "tenth-chats" and a list of chats; see tenth.server.chats.exporting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tenth.server.chats.imports.conversation import ROLES, Conversation, Said, joined, text_of, time_of

FORMAT = "tenth-chats"
STATUSES = ("done", "stopped", "interrupted", "error")
MARK = "is_tenth_chat"  # put into each, so that they are known apart from their file


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
    more |= {name: one[name] for name in ("usage", "timings", "cost") if isinstance(one.get(name), dict)}
    more |= {name: text_of(one[name]) for name in ("error", "finish_reason") if isinstance(one.get(name), str)}
    if (seconds := one.get("thinking_s")) is not None and isinstance(seconds, (int, float)):
        more["thinking_s"] = float(seconds)
    files = one.get("attachments")
    attachments = [{"name": text_of(file.get("name")), "kind": text_of(file.get("kind")) or "text",
                    "text": file["text"]} for file in (files if isinstance(files, list) else ())
                   if isinstance(file, dict) and isinstance(file.get("text"), str)]
    parent = one.get("parent_id")
    return Said(
        str(one.get("id")), parent if isinstance(parent, str) else None, one["role"], text_of(one.get("content")),
        text_of(one.get("thinking")), text_of(one.get("model")) or None, time_of(one.get("created_at")), attachments,
        more)
