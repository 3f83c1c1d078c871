"""llama-server's page: ``{conv, messages}``, one or a list of them; its "root" messages hold nothing.

Facts: ggml-org/llama.cpp, tools/ui/src/lib/types/database.d.ts. Texts and extracted PDFs become attachments; pictures
and sounds are left out.
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

TEXTS = ("TEXT", "PDF", "context", "MCP_PROMPT", "MCP_RESOURCE")


def holds(value: Any) -> bool:
    """Whether it is one of its conversations."""
    return isinstance(value, dict) and isinstance(value.get("conv"), dict) and isinstance(value.get("messages"), list)


def read(value: Any) -> Conversation:
    """The conversation."""
    conv, nodes = value["conv"], [node for node in value["messages"] if isinstance(node, dict)]
    said = [_said(node) for node in nodes]
    keep = [one.role in ROLES and node.get("type") != "root" for one, node in zip(said, nodes, strict=True)]
    systems = [one.content for one in said if one.role == "system" and one.content]
    skipped = {f"messages of {one.role[:20]}s" for one, kept in zip(said, keep, strict=True)
               if not kept and one.role not in (*ROLES, "system")}
    skipped |= {f"attachments of kind {str(extra.get('type'))[:20]}" for node in nodes for extra in _extras(node)
                if extra.get("type") not in TEXTS}
    models = [one.model for one in said if one.model]
    times = [one.created_at for one in said if one.created_at]
    return Conversation(text_of(conv.get("name")), joined(left_out(said, keep)), current=conv.get("currNode"),
                        created_at=min(times, default=None), updated_at=time_of(conv.get("lastModified")),
                        system=systems[0] if systems else None, model=models[-1] if models else None,
                        skipped=sorted(skipped))


def _extras(node: dict[str, Any]) -> list[dict[str, Any]]:
    extra = node.get("extra")
    return [one for one in extra if isinstance(one, dict)] if isinstance(extra, list) else []


def _said(node: dict[str, Any]) -> Said:
    content, thinking = apart(text_of(node.get("content")))
    thinking = text_of(node.get("reasoningContent") or node.get("thinking")) or thinking
    attachments = [{"name": text_of(extra.get("name")) or "text", "kind": "pdf" if extra["type"] == "PDF" else "text",
                    "text": text_of(extra["content"])} for extra in _extras(node)
                   if extra.get("type") in TEXTS and isinstance(extra.get("content"), str)]
    parent, model = node.get("parent"), node.get("model")
    return Said(str(node.get("id")), str(parent) if parent is not None else None, str(node.get("role")), content,
                thinking, model if isinstance(model, str) else None, time_of(node.get("timestamp")), attachments)
