"""An answer while it is made: Stream for the reader, Feed for the engine, TokenReader from token ids to text.

The engine's thread pushes tokens into a Feed, which turns them into pieces of text, notices stop strings and the end
of a thinking budget, and wakes whoever reads. Readers may be plain iterators or asyncio tasks, many streams at a time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from tenth.engine.request import GO_ON, FinishReason, Reaction, Speculated, Token

Kind = Literal["content", "thinking"]


class Piece(str):
    """A piece of an answer: text that also says of which ``kind`` it is, "content" or "thinking"."""

    __slots__ = ("kind",)
    kind: Kind

    def __new__(cls, text: str, kind: Kind = "content") -> Piece:
        """The text as a piece of this kind."""
        piece = super().__new__(cls, text)
        piece.kind = kind
        return piece


@dataclass(frozen=True)
class Usage:
    """Tokens of a request. cached_tokens: those of the prompt whose keys and values were known already.

    completion_tokens counts every generated token, also the stop token and those that ended thinking; thinking_tokens
    those of them that the model thought with.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    thinking_tokens: int = 0


@dataclass(frozen=True)
class Speculation:
    """Tokens guessed from the request's own text, those that were right, and the steps that gave tokens.

    Without guesses every step gives one token; each that was right saved one step.
    """

    drafted: int
    accepted: int
    steps: int


@dataclass(frozen=True)
class Timings:
    """Seconds and rates of a request; None where nothing was measured (no token, or one only)."""

    load_s: float  # of the model, once
    first_token_s: float | None  # from the request to its first token, waiting included
    prompt_tokens_per_second: float | None  # tokens computed (not cached) by the time from the start to the first token
    generated_tokens_per_second: float | None  # tokens behind the first one


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token: its log-probability under the raw logits, and the likeliest (id, log-probability) pairs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    kind: Kind = "content"


class TextStreamLike(Protocol):
    """tenth.text's TextStream, and StopStrings' and DeltaStream's ends."""

    def push(self, token: int, /) -> str:
        """Text that is now certain."""

    def finish(self) -> str:
        """The rest."""


class DeltaStreamLike(Protocol):
    """tenth.text's DeltaStream."""

    thinking: bool  # whether the next text belongs to thinking

    def push(self, text: str, /) -> list[tuple[Kind, str]]:
        """Text split by kind."""

    def finish(self) -> list[tuple[Kind, str]]:
        """The rest."""


class StopStringsLike(Protocol):
    """tenth.text's StopStrings."""

    found: str | None

    def push(self, text: str, /) -> tuple[str, bool]:
        """(text that cannot be part of a stop string, whether one was found)."""

    def finish(self) -> str:
        """Text that was held back."""


class TokenReader:
    """Token ids in, pieces out. ``deltas`` None: everything is content. Stop strings are looked for in content."""

    def __init__(
        self, text: TextStreamLike, deltas: DeltaStreamLike | None = None, stops: StopStringsLike | None = None
    ) -> None:
        self._text, self._deltas, self._stops = text, deltas, stops
        self.hit_stop = False

    @property
    def in_thinking(self) -> bool:
        """Whether the model is thinking."""
        return self._deltas is not None and self._deltas.thinking

    @property
    def stop_string(self) -> str | None:
        """The stop string that was met."""
        return self._stops.found if self._stops is not None else None

    def push(self, token: int) -> list[Piece]:
        """What one more token makes certain."""
        return self._split(self._text.push(token))

    def finish(self) -> list[Piece]:
        """What was held back. After a stop string: nothing."""
        pieces = self._split(self._text.finish())
        if self._deltas is not None and not self.hit_stop:
            pieces += self._filter(self._deltas.finish())
        if self._stops is not None and not self.hit_stop and (held := self._stops.finish()):
            pieces.append(Piece(held))
        return pieces

    def _split(self, text: str) -> list[Piece]:
        if not text or self.hit_stop:
            return []
        return self._filter([("content", text)] if self._deltas is None else self._deltas.push(text))

    def _filter(self, parts: list[tuple[Kind, str]]) -> list[Piece]:
        pieces = []
        for kind, text in parts:
            if self.hit_stop:
                break
            if kind == "content" and self._stops is not None:
                text, self.hit_stop = self._stops.push(text)
            if text:
                pieces.append(Piece(text, kind))
        return pieces


@dataclass(frozen=True)
class ThinkingBudget:
    """After n_tokens of thinking the closing ids are forced, and the answer goes on."""

    n_tokens: int
    closing: tuple[int, ...]


class Feed:
    """The engine's side of a stream: listens, keeps everything, wakes readers."""

    def __init__(self, reader: TokenReader, n_prompt: int, budget: ThinkingBudget | None = None) -> None:
        self._reader, self._budget = reader, budget
        self.n_thinking = 0
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
        pieces = self._reader.push(token.id)
        kind: Kind = "thinking" if was_thinking or self._reader.in_thinking else "content"
        forced: tuple[int, ...] = ()
        if self._reader.in_thinking:
            self.n_thinking += 1
            if self._budget is not None and self.n_thinking >= self._budget.n_tokens:
                forced, self._budget = self._budget.closing, None
                pieces += [piece for id in forced for piece in self._reader.push(id)]
        with self.changed:
            self.logprobs.append(TokenLogprob(token.id, token.logprob, token.top, kind))
            self.pieces += pieces
            self._notify(bool(pieces))
        return Reaction(stop=self._reader.hit_stop, force=forced) if forced or self._reader.hit_stop else GO_ON

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


class Stream:
    """An answer: iterate it, plainly or with ``async for``, to get its pieces as they are made.

    ``text`` and the other properties wait for the end. A stream that is dropped before its end is cancelled. A failed
    request raises its error, after the pieces that were made before.
    """

    def __init__(
        self, feed: Feed, cancel: Callable[[], None], load_s: float, seed: int | None = None,
        speculated: Speculated | None = None,
    ) -> None:
        self._feed, self._cancel, self._load_s = feed, cancel, load_s
        self._speculated = speculated or Speculated()
        self._next = 0
        self.seed = seed  # with it and the same settings the answer can be had again

    def __del__(self) -> None:
        feed = getattr(self, "_feed", None)
        if feed is not None and not feed.has_ended:
            self._cancel()

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        feed = self._feed
        with feed.changed:
            while not self._is_ready():
                feed.changed.wait()
        piece = self._take()
        if piece is None:
            raise StopIteration
        return piece

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        while not await self._changed():
            pass
        piece = self._take()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def ready(self) -> list[Piece]:
        """All pieces made since the last one was taken, waiting for the first; none at the end of the answer."""
        while not await self._changed():
            pass
        pieces = self._feed.pieces[self._next :]
        self._next += len(pieces)
        if not pieces and self._feed.error is not None:
            raise self._feed.error
        return pieces

    def logprobs_from(self, n: int) -> list[TokenLogprob]:
        """The sampled tokens behind the first n, as far as they are known now."""
        return self._feed.logprobs[n:]

    @property
    def has_begun(self) -> bool:
        """Whether the prompt was computed and a first token is there, or the end."""
        return self._feed.first_s is not None or self._feed.has_ended

    async def _changed(self) -> bool:
        """Whether there is something to take; waits for one change if not."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        with self._feed.changed:
            if self._is_ready():
                return True
            self._feed.wake_later(wake)
        await changed.wait()
        return False

    def _is_ready(self) -> bool:
        return self._next < len(self._feed.pieces) or self._feed.has_ended

    def _take(self) -> Piece | None:
        if self._next < len(self._feed.pieces):
            self._next += 1
            return self._feed.pieces[self._next - 1]
        if self._feed.error is not None:
            raise self._feed.error
        return None

    def cancel(self) -> None:
        """End the answer soon; what was made stays. Nothing happens when it has ended."""
        self._cancel()

    def wait(self) -> Stream:
        """Wait for the end, taking no pieces. Raises the error of a failed request."""
        with self._feed.changed:
            while not self._feed.has_ended:
                self._feed.changed.wait()
        if self._feed.error is not None:
            raise self._feed.error
        return self

    @property
    def text(self) -> str:
        """The whole content, without thinking."""
        return self._joined("content")

    @property
    def thinking(self) -> str:
        """The whole thinking."""
        return self._joined("thinking")

    def _joined(self, kind: Kind) -> str:
        return "".join(piece for piece in self.wait()._feed.pieces if piece.kind == kind)

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended: "stop" (stop token or string), "length" (max_tokens or end of the context), "cancelled"."""
        reason = self.wait()._feed.reason
        assert reason is not None, "a stream that ended without error has no reason"
        return reason

    @property
    def stop_string(self) -> str | None:
        """Which of the request's stop strings ended it; None when another reason did."""
        return self.wait()._feed.stop_string

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Every sampled token, in order; those that were forced or ended the answer are left out."""
        return list(self.wait()._feed.logprobs)

    @property
    def usage(self) -> Usage:
        """Tokens in, out, and known before."""
        feed = self.wait()._feed
        return Usage(feed.n_prompt, feed.n_generated, feed.n_cached, feed.n_thinking)

    @property
    def speculation(self) -> Speculation:
        """How guessing at tokens went."""
        self.wait()
        counts = self._speculated
        return Speculation(counts.n_drafted, counts.n_accepted, counts.n_steps)

    @property
    def timings(self) -> Timings:
        """How long it took."""
        feed = self.wait()._feed
        if feed.started_s is None or feed.first_s is None or feed.last_s is None:
            return Timings(self._load_s, None, None, None)
        return Timings(
            load_s=self._load_s,
            first_token_s=feed.first_s - feed.asked_s,
            prompt_tokens_per_second=_rate(feed.n_prompt - feed.n_cached, feed.first_s - feed.started_s),
            generated_tokens_per_second=_rate(feed.n_generated - 1, feed.last_s - feed.first_s),
        )


def _rate(n: int, seconds: float) -> float | None:
    return n / seconds if n > 0 and seconds > 0 else None
