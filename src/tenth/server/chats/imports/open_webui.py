"""Open WebUI's export: a list of objects whose ``chat`` has ``history``: messages by id, with parentId.

Thinking stands in the text, as details of type "reasoning". Facts: docs.openwebui.com (import-export, reasoning models)
and what its API is sent.
"""

from __future__ import annotations

from typing import Any

from tenth.server.chats.imports.conversation import (
    ROLES,
    Conversation,
    Said,
    apart,
    joined,
    left_out,
    text_of,
    time_of,
)


def holds(value: Any) -> bool:
    """Whether it is one of its conversations."""
    chat = value.get("chat") if isinstance(value, dict) else None
    return isinstance(chat, dict) and (isinstance(chat.get("history"), dict) or isinstance(chat.get("messages"), list))


def read(value: Any) -> Conversation:
    """The conversation."""
    chat = value["chat"]
    history = chat.get("history") if isinstance(chat.get("history"), dict) else {}
    tree = history.get("messages")
    if isinstance(tree, dict) and tree:
        nodes = [{"id": key, **node} for key, node in tree.items() if isinstance(node, dict)]
    else:  # old exports have only the branch that was shown
        nodes = [node for node in chat.get("messages") or () if isinstance(node, dict)]
        for before, node in zip([None, *nodes], nodes, strict=False):
            node.setdefault("parentId", before["id"] if before and "id" in before else None)
    said = [_said(node) for node in nodes]
    models = chat.get("models")
    params = chat.get("params") if isinstance(chat.get("params"), dict) else {}
    return Conversation(
        text_of(chat.get("title") or value.get("title")),
        joined(left_out(said, [one.role in ROLES for one in said])), current=history.get("currentId"),
        created_at=time_of(value.get("created_at")), updated_at=time_of(value.get("updated_at")),
        system=text_of(params.get("system") or chat.get("system")) or None,
        model=models[0] if isinstance(models, list) and models and isinstance(models[0], str) else None,
        is_pinned=value.get("pinned") is True,
        skipped=sorted({"files" for node in nodes if node.get("files")}
                       | {f"messages of {one.role[:20]}s" for one in said if one.role not in (*ROLES, "system")}))


def _said(node: dict[str, Any]) -> Said:
    content, thinking = apart(text_of(node.get("content")))
    parent, model = node.get("parentId"), node.get("model")
    return Said(str(node.get("id")), parent if isinstance(parent, str) else None, str(node.get("role")), content,
                thinking or text_of(node.get("reasoning_content")), model if isinstance(model, str) else None,
                time_of(node.get("timestamp")))
