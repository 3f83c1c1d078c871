"""A branch of a chat as what a model is asked: instructions, questions with their attachments, earlier answers.

Thinking of earlier answers is not sent again. Attachments stand before the question, between marks that DeepSeek's
published prompts use (DeepSeek-R1's README); they are material, and the instructions do not come from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenth.server.asking import Ask, Thinking
from tenth.text.begun import Begun

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
            "max_tokens", "seed")
TOP_LOGPROBS = 5  # alternatives that are kept of every token

Message = dict[str, Any]


def branch(messages: Sequence[Message], leaf: str | None) -> list[Message]:
    """The messages from the first one to a leaf."""
    of = {message["id"]: message for message in messages}
    found = []
    while leaf is not None and leaf in of:
        found.append(of[leaf])
        leaf = of[leaf].get("parent_id")
    return found[::-1]


def ask(model: str, settings: Mapping[str, Any], asked: Sequence[Message], texts: Mapping[str, str],
        begun: Begun | None = None) -> Ask:
    """What answers a branch. ``texts``: of attachments, by id."""
    system = [{"role": "system", "content": settings["system"]}] if settings.get("system") else []
    messages = system + [{"role": message["role"], "content": with_attachments(message, texts)} for message in asked]
    sampling = {name: settings[name] for name in SAMPLING if settings.get(name) is not None}
    thinking = Thinking(None, settings.get("thinking_budget"), settings.get("effort"))
    return Ask(model, messages, settings=sampling | {"top_logprobs": TOP_LOGPROBS}, thinking=thinking, begun=begun)


def with_attachments(message: Message, texts: Mapping[str, str]) -> str:
    """A message's text behind those of its attachments."""
    parts = [attached_text(one["name"], texts[one["id"]]) for one in message.get("attachments", ())
             if one["id"] in texts]
    return "\n\n".join([*parts, message["content"]]) if parts else str(message["content"])


def attached_text(name: str, text: str) -> str:
    """An attachment as models see it."""
    return f"[file name]: {name}\n[file content begin]\n{text}\n[file content end]"
