"""The one request that every dialect means, and what reasoning efforts stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tenth.server.failures import Refused

MAX_CHOICES = 8

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

# Most tokens of thinking; "max" has no bound but the context.
BUDGETS: dict[str, int | None] = {
    "none": 0, "minimal": 128, "low": 512, "medium": 2048, "high": 8192, "xhigh": 32768, "max": None,
}  # fmt: skip


@dataclass(frozen=True)
class Thinking:
    """Whether to think, and for how many tokens. None: as the model does, without a bound."""

    wanted: bool | None = None
    budget: int | None = None


@dataclass(frozen=True)
class Ask:
    """What a request asks for. ``messages``: a conversation; else ``prompt``: text or token ids to go on from.

    ``settings``: SamplingParams by name. ``n``: so many answers to the same prompt.
    """

    model: str
    messages: Sequence[Mapping[str, Any]] | None = None
    prompt: str | list[int] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    thinking: Thinking = Thinking()
    n: int = 1


def thinking_of(effort: str | None, budget: int | None, wanted: bool | None = None) -> Thinking:
    """Thinking from an effort, a budget in tokens, or a plain yes or no. Refuses those that contradict each other."""
    if budget is not None and effort is not None:
        raise Refused(400, "a thinking budget and an effort were given", "give one of them", param="thinking_budget")
    if effort is not None:
        budget = BUDGETS[effort]
        says = effort != "none"
    elif budget is not None:
        says = budget > 0
    else:
        return Thinking(wanted)
    if wanted is not None and wanted != says:
        raise Refused(400, "thinking was asked for and forbidden in one request", param="thinking")
    return Thinking(says, budget)
