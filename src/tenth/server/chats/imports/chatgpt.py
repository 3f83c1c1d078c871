"""ChatGPT's data export: ``conversations.json``, a list of trees in ``mapping``.

Facts: mitkury/chatgpt-export-parser, docs/chatgpt-data-export-format.md. Messages of tools, of the system and pictures
are left out; what hung on them hangs on what they hung on.
"""

from __future__ import annotations

from typing import Any

from tenth.server.chats.imports.conversation import ROLES, Conversation, Said, joined, left_out, text_of, time_of

TEXTS = ("text", "multimodal_text", "code", "execution_output")


def holds(value: Any) -> bool:
    """Whether it is one of its conversations."""
    return isinstance(value, dict) and isinstance(value.get("mapping"), dict)


def read(value: Any) -> Conversation:
    """The conversation."""
    said, keep, skipped = [], [], []
    for key, node in value["mapping"].items():
        if not isinstance(node, dict):
            continue
        one, why = _said(str(key), node)
        said.append(one)
        keep.append(not why)
        skipped += [why] if why and why != "empty" else []
    current = value.get("current_node")
    model = value.get("default_model_slug")
    return Conversation(text_of(value.get("title")), joined(left_out(said, keep)), current=current,
                        created_at=time_of(value.get("create_time")), updated_at=time_of(value.get("update_time")),
                        model=model if isinstance(model, str) else None, is_pinned=bool(value.get("is_starred")),
                        skipped=skipped)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _said(key: str, node: dict[str, Any]) -> tuple[Said, str]:
    """A node as a message, and why it is left out, if it is."""
    message, parent = node.get("message"), node.get("parent")
    one = Said(key, parent if isinstance(parent, str) else None, "", "")
    if not isinstance(message, dict):
        return one, "empty"
    author, content, meta = (_object(message.get(name)) for name in ("author", "content", "metadata"))
    one.role, one.created_at = str(author.get("role")), time_of(message.get("create_time"))
    one.model = meta.get("model_slug") if isinstance(meta.get("model_slug"), str) else None
    kind = content.get("content_type")
    if one.role not in ROLES:
        return one, "empty" if one.role == "system" else f"messages of {one.role[:20]}s"
    if message.get("recipient") not in (None, "all") or meta.get("is_visually_hidden_from_conversation"):
        return one, "calls of tools"
    if kind not in TEXTS:
        return one, f"{str(kind)[:40]}"
    parts = content.get("parts") if isinstance(content.get("parts"), list) else [content.get("text")]
    texts = [part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
             for part in parts or ()]
    one.content = text_of("\n\n".join(text for text in texts if isinstance(text, str)))
    return one, "" if one.content.strip() else "pictures and sounds" if any(parts or ()) else "empty"
