"""Conversations that other programs exported: one file per format, one line in the table.

A format says whether a JSON value is one of its conversations, and makes ours of it: a ``Conversation``. It runs in a
process of its own (``__main__.py``), which prints a conversation a line; the server stores them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tenth.server.chats.imports import chatgpt, llama_server, open_webui, ours
from tenth.server.chats.imports.conversation import Conversation


@dataclass(frozen=True)
class Format:
    """``holds``: whether a value is a conversation of this format; ``read``: it as ours; ``inside``: what of a file's
    whole value the conversations are, where that is not a list of them."""

    name: str
    holds: Callable[[Any], bool]
    read: Callable[[Any], Conversation]
    inside: Callable[[Any], Iterator[Any]] | None = None


FORMATS = (
    Format("tenth", ours.holds, ours.read, ours.inside),
    Format("ChatGPT", chatgpt.holds, chatgpt.read),
    Format("Open WebUI", open_webui.holds, open_webui.read),
    Format("llama-server", llama_server.holds, llama_server.read),
)
