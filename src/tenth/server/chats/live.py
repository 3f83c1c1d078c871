"""An answer of a chat while it is made: what it has so far, told as deltas and saved now and then."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from tenth.server.answers import Delta, End
from tenth.server.chats.events import Hub
from tenth.server.chats.revs import next_rev
from tenth.server.service import Answer
from tenth.stream import TokenLogprob
from tenth.text.begun import Begun

TOLD_S = 0.03  # deltas are gathered for so long: nobody sees more than 30 changes a second
Message = dict[str, Any]


@dataclass(eq=False)
class Live:
    """``message`` is what the database will have, and what is shown instead of it meanwhile."""

    owner: str
    message: Message
    hub: Hub
    answer: Answer | None = None  # once it was accepted
    task: asyncio.Task[None] | None = None
    is_stopped: bool = False
    is_ending: bool = False  # nothing more comes; its end is being saved
    is_dirty: bool = False  # has more than the database
    ends_thinking: bool = False
    tokens: list[TokenLogprob] = field(default_factory=list)
    begun: Begun | None = None  # what it said before it was gone on with
    experts: list[list[int]] | None = None  # of the model, once it has ended: how often each was used, by layer
    started_s: float | None = None
    joules: float = 0.0
    are_joules_measured: bool = False
    _texts: dict[str, list[str]] = field(default_factory=lambda: {"content": [], "thinking": []})
    _told: dict[str, int] = field(default_factory=lambda: {"content": 0, "thinking": 0})
    _timer: asyncio.TimerHandle | None = None
    _thinking_since_s: float | None = None

    def __post_init__(self) -> None:
        for kind in self._told:
            self._told[kind] = units(self.message[kind])

    @property
    def id(self) -> str:
        """The message's."""
        return str(self.message["id"])

    def add(self, delta: Delta) -> None:
        """New text."""
        if delta.kind == "call":
            return  # no tools are offered
        now = time.monotonic()
        if delta.kind == "thinking":
            self._thinking_since_s = self._thinking_since_s or now
        self._clock(now)
        if delta.kind == "content":
            self._thinking_since_s = None
        self.message[delta.kind] += delta.text
        self._texts[delta.kind].append(delta.text)
        self.tokens += delta.logprobs
        self.is_dirty = True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOLD_S, self.tell)

    def _clock(self, now: float) -> None:
        if self._thinking_since_s is not None:
            spent = (self.message["thinking_s"] or 0.0) + now - self._thinking_since_s
            self.message["thinking_s"], self._thinking_since_s = round(spent, 3), now

    def tell(self) -> None:
        """Tell of what came since the last time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for kind, parts in self._texts.items():
            text = "".join(parts)
            parts.clear()
            if text:
                self.hub.tell(self.owner, "delta", {
                    "chat_id": self.message["chat_id"], "message_id": self.id, "kind": kind, "from": self._told[kind],
                    "text": text, "rev": self.message["rev"]})
                self._told[kind] += units(text)

    def become(self, status: str, **facts: Any) -> None:
        """Have another status, and tell of it."""
        self.tell()
        self.change({"status": status, **facts})
        self.hub.tell(self.owner, "message", {"message": shown(self.message)})

    def change(self, changes: dict[str, Any]) -> None:
        """Have other values than text that is added."""
        self.message |= {**changes, "rev": next_rev(self.message["rev"])}
        self.is_dirty = True

    def end(self, end: End) -> dict[str, Any]:
        """What an ended answer is told with; of one that was gone on with, tokens of all its parts."""
        self.tokens += end.logprobs
        usage, before = end.usage, self.message.get("usage") or {}
        timings = end.timings
        return {
            "finish_reason": end.reason,
            "usage": {"prompt_tokens": usage.prompt_tokens, "cached_tokens": usage.cached_tokens,
                      "completion_tokens": usage.completion_tokens + before.get("completion_tokens", 0),
                      "thinking_tokens": usage.thinking_tokens + before.get("thinking_tokens", 0)},
            "timings": {"first_token_s": timings.first_token_s,
                        "prompt_tokens_per_second": timings.prompt_tokens_per_second,
                        "generated_tokens_per_second": timings.generated_tokens_per_second},
        }

    def saved(self) -> dict[str, Any]:
        """The columns to save now."""
        self.is_dirty = False
        names = ("content", "thinking", "thinking_s", "status", "error", "finish_reason", "usage", "timings", "cost",
                 "cause", "rev")
        return {name: self.message[name] for name in names}


def units(text: str) -> int:
    """The length of a text in UTF-16 code units, which is how JavaScript counts."""
    return len(text) + sum(character > "\uffff" for character in text)


def shown(message: Message) -> Message:
    """A message as it is told: a copy without what the server keeps for itself."""
    return {name: value for name, value in message.items() if name not in ("settings", "client_id", "server")}
