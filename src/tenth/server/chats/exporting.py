"""Chats as a file: JSON, which can be imported again, or Markdown for reading. Made chat by chat, never whole."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

import tenth
from tenth.server.chats.imports.ours import FORMAT
from tenth.server.chats.parts import ChatServer
from tenth.server.chats.prompts import branch
from tenth.server.failures import Refused

Kind = Literal["json", "markdown"]
LEFT_OUT = ("chat_id", "attachments", "rev")  # of a message


async def export(desk: ChatServer, owner: str, ids: list[str], kind: Kind) -> AsyncIterator[str]:
    """The file in parts."""
    if kind == "json":
        yield json.dumps({"format": FORMAT, "version": 1, "made_by": f"tenth {tenth.__version__}",
                          "made_at": time.time()})[:-1] + ', "chats": [\n'
    names = {one["id"]: one["name"] for one in await desk.state.run(desk.shelves.all, "folder", owner)}
    between = ""
    for id in ids:
        try:
            yield between + await desk.state.run(_told, desk, owner, id, names, kind)
        except Refused as error:
            if error.status != 404:  # it was deleted meanwhile
                raise
            continue
        between = ",\n" if kind == "json" else "\n---\n\n"
    if kind == "json":
        yield "\n]}\n"


def _told(desk: ChatServer, owner: str, id: str, folders: dict[str, str], kind: Kind) -> str:
    chat = _whole(desk, owner, id, folders)
    return json.dumps(chat, ensure_ascii=False) if kind == "json" else markdown(chat)


def _whole(desk: ChatServer, owner: str, id: str, folders: dict[str, str]) -> dict[str, Any]:
    chat = desk.chats.get(owner, id)
    messages = []
    for message in desk.chats.messages(owner, id):
        files = [{"name": one["name"], "kind": one["kind"], "text": desk.attachments.text(owner, one["id"])}
                 for one in message["attachments"]]
        shown = {name: value for name, value in desk.answering.message(message).items()
                 if name not in LEFT_OUT and value is not None}
        messages.append({**shown, **({"attachments": files} if files else {})})
    folder = folders.get(chat.pop("folder_id") or "")
    return {**chat, **({"folder": folder} if folder else {}), "messages": messages}


def markdown(chat: dict[str, Any]) -> str:
    """The branch of a chat that is shown, for reading."""
    parts = [f"# {chat['title'] or 'Chat'}\n"]
    if system := chat["settings"].get("system"):
        parts.append(f"> {_quoted(system)}\n")
    for message in branch(chat["messages"], chat["current_id"]):
        name = "User" if message["role"] == "user" else message.get("model") or "Assistant"
        parts.append(f"## {name}\n")
        parts += [f"*{file['name']}*\n" for file in message.get("attachments", ())]
        if thinking := message["thinking"].strip():
            parts.append(f"> {_quoted(thinking)}\n")
        parts.append(f"{message['content'].strip()}\n")
    return "\n".join(parts)


def _quoted(text: str) -> str:
    return text.strip().replace("\n", "\n> ")
