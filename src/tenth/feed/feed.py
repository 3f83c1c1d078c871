"""The engine's side of an answer: it listens, keeps everything, and wakes who reads.

It also decides where thinking ends: when the model says so, when its budget is spent, or when somebody asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Protocol

from tenth.engine.request import GO_ON, FinishReason, Guide, Reaction, Token
from tenth.feed.pieces import Kind, Piece, TokenLogprob
from tenth.feed.reader import TokenReader


@dataclass(frozen=True)
class ThinkingBudget:
    """After n_tokens of thinking (None: never) the closing ids are forced, and the answer goes on.

    ``opening``: ids that begin a thought, if the model may still begin one. ``behind``: the part of closing that comes
    after the mark, which is put there before a grammar begins.
    """

    n_tokens: int | None
    closing: tuple[int, ...]
    opening: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()


class GuideLike(Guide, Protocol):
    """tenth.text's Guide."""

    def begin(self, opening: int | None = None) -> None:
        """Have the grammar decide from now on."""

    def opens_thought(self, token: int) -> bool:
        """Whether the first token begins a thought instead."""

    def take(self, tokens: SequenceOf[int]) -> None:
        """Go on behind these tokens; raises when they are not allowed."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing can follow."""


class Feed:
    """The engine's side of a stream: listens, keeps everything, wakes readers.

    It also says where thinking ends, and with that where the request's ``guide`` begins. ``encode``: a text behind
    other text to ids, for what a token that ended thinking brought of the answer.
    """

    def __init__(
        self, reader: TokenReader, n_prompt: int, budget: ThinkingBudget | None = None,
        guide: GuideLike | None = None, encode: Callable[[str], list[int]] = lambda text: [],
    ) -> None:
        self._reader, self._budget, self._guide, self._encode = reader, budget, guide, encode
        self.n_thinking = 0
        self._thinks_enough = False
        if guide is not None and not reader.in_thinking:
            guide.begin(budget.opening[0] if budget is not None and budget.opening else None)
        self._wake: list[Callable[[], None]] = []  # of asyncio readers that wait
        self.changed = threading.Condition()
        self.pieces: list[Piece] = []
        self.logprobs: list[TokenLogprob] = []
        self.n_prompt, self.n_cached, self.n_generated = n_prompt, 0, 0
        self.reason: FinishReason | None = None
        self.error: Exception | None = None
        self.asked_s = time.perf_counter()
        self.started_s: float | None = None
        self.first_s: float | None = None
        self.last_s: float | None = None

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer, if one did."""
        return self._reader.stop_string

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        return self.reason is not None or self.error is not None

    def started(self, n_cached_tokens: int) -> None:
        """See Listener."""
        self.n_cached = n_cached_tokens
        self.started_s = time.perf_counter()

    def token(self, token: Token) -> Reaction:
        """See Listener."""
        self.last_s = time.perf_counter()
        if self.first_s is None:
            self.first_s = self.last_s
        was_thinking = self._reader.in_thinking
        pieces, forced = self._read(token.id)
        kind: Kind = "thinking" if was_thinking or self._reader.in_thinking else "content"
        stop = self._reader.hit_stop or (self._guide is not None and self._guide.has_ended)
        with self.changed:
            self.logprobs.append(TokenLogprob(token.id, token.logprob, token.top, kind))
            self.pieces += pieces
            self._notify(bool(pieces))
        return Reaction(stop=stop, force=forced) if forced or stop else GO_ON

    def _read(self, id: int) -> tuple[list[Piece], tuple[int, ...]]:
        """The pieces of a token, with those of the ids that have to follow it, and these."""
        was_thinking, guide = self._reader.in_thinking, self._guide
        pieces: list[Piece] = []
        forced: tuple[int, ...] = ()
        if guide is not None and guide.is_on and self._budget is not None and guide.opens_thought(id):
            forced = self._budget.opening[1:]
        elif guide is not None and guide.is_on:
            pieces += self._reader.settle()
            guide.take([id])
        pieces += self._reader.push(id)
        if self._reader.in_thinking:
            self.n_thinking += 1
            forced = forced or self._spent()
        elif was_thinking and guide is not None:
            forced = self._begin_behind_thought(guide)
        for follower in forced:
            pieces += self._reader.push(follower)
        if guide is not None and not guide.is_on and was_thinking and not self._reader.in_thinking:
            pieces += self._reader.settle()
            guide.begin()
        return pieces, forced

    def _spent(self) -> tuple[int, ...]:
        """What ends thinking, when there is enough of it: of a mark that the model itself has begun, the rest."""
        budget = self._budget
        if budget is None:
            return ()
        if not self._thinks_enough and (budget.n_tokens is None or self.n_thinking < budget.n_tokens):
            return ()
        self._budget = None
        rest = self._reader.rest_of_mark
        return (*self._encode(rest), *budget.behind) if rest else budget.closing

    def _begin_behind_thought(self, guide: GuideLike) -> tuple[int, ...]:
        """The model has ended its thought: what is still missing before the answer.

        A token may also bring the answer's first characters (only where the mark is no token of its own).
        """
        behind = self._reader.behind_mark
        if not behind:
            return self._budget.behind if self._budget is not None else ()
        if text := behind.lstrip("\n"):
            guide.take(self._encode(text))
        return ()

    def end_thinking(self) -> bool:
        """Close the thought at its next token, or the one to come soon after it begins. False: there will be none."""
        self._thinks_enough = True
        if self._budget is None or self.has_ended:
            return False
        return self._reader.in_thinking or (self.first_s is None and bool(self._budget.opening))

    def finished(self, reason: FinishReason, n_generated: int) -> None:
        """See Listener."""
        pieces = self._reader.finish()
        with self.changed:
            self.pieces += pieces
            self.n_generated = n_generated
            if n_generated:
                self.last_s = time.perf_counter()
                self.first_s = self.first_s or self.last_s  # the only token may be one that ends the answer
            self.reason = reason
            self._notify(True)

    def failed(self, error: Exception) -> None:
        """See Listener."""
        with self.changed:
            self.error = error
            self._notify(True)

    def wake_later(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called once at the next change. Call it with ``changed`` held."""
        self._wake.append(wake)

    def _notify(self, something: bool) -> None:
        if something:
            self.changed.notify_all()
            wakers, self._wake = self._wake, []
            for wake in wakers:
                wake()
