"""The one request that every dialect means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenth.text.begun import Begun

MAX_CHOICES = 8

@dataclass(frozen=True)
class Thinking:
    """Whether to think, for how many tokens, and a word for the two (tenth.text.effort). None: as the model does."""

    wanted: bool | None = None
    budget: int | None = None
    effort: str | None = None


@dataclass(frozen=True)
class Ask:
    """What a request asks for. ``messages``: a conversation; else ``prompt``: text or token ids to go on from.

    ``settings``: SamplingParams by name. ``n``: so many answers to the same prompt. ``response_format``: what they have
    to match, as OpenAI writes it (tenth.text.grammar). ``tools``: tools, tool_choice and parallel_tool_calls, likewise.
    ``context``: so many tokens the model's context has to have, if it was said.
    ``begun``: an answer that was broken off, to go on with.
    """

    model: str
    messages: Sequence[Mapping[str, Any]] | None = None
    prompt: str | list[int] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    thinking: Thinking = Thinking()
    n: int = 1
    response_format: Mapping[str, Any] | None = None
    tools: Mapping[str, Any] = field(default_factory=dict)
    context: int | None = None
    begun: Begun | None = None


def asked_tools(tools: Any, choice: Any, parallel: bool | None) -> dict[str, Any]:
    """Tools as Model.chat takes them."""
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel is not False}
