"""An answer while it is made: Stream for the reader, Feed for the engine, TokenReader from token ids to text.

The engine's thread pushes tokens into a Feed, which turns them into pieces of text, notices stop strings and the end
of a thinking budget, and wakes whoever reads. Readers may be plain iterators or asyncio tasks, many streams at a time.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

from tenth.engine import waking
from tenth.engine.experts import ExpertUse
from tenth.engine.request import GO_ON, FinishReason, Guide, Reaction, Speculated, Token

TextKind = Literal["content", "thinking"]
Kind = Literal["content", "thinking", "call"]


class CallPart(NamedTuple):
    """What a piece of kind "call" belongs to: call ``number``, from 0. ``name``: only in the piece that begins it."""

    number: int
    id: str
    name: str | None = None
    ended: bool = False  # the call is complete; a call that never ends was cut off, or made wrongly


@dataclass(frozen=True)
class ToolCall:
    """A call that a model made. ``arguments``: JSON as the model wrote it, checked only if a grammar kept it."""

    id: str
    name: str
    arguments: str


class Piece(str):
    """A piece of an answer: text that also says of which ``kind`` it is, "content", "thinking" or "call".

    The text of a "call" is a part of the call's arguments, and ``call`` says of which.
    """

    __slots__ = ("call", "kind")
    kind: Kind
    call: CallPart | None

    def __new__(cls, text: str, kind: Kind = "content", call: CallPart | None = None) -> Piece:
        """The text as a piece of this kind."""
        piece = super().__new__(cls, text)
        piece.kind, piece.call = kind, call
        return piece


@dataclass(frozen=True)
class Usage:
    """Tokens of a request. cached_tokens: those of the prompt whose keys and values were known already.

    completion_tokens counts every generated token, also the stop token and those that ended thinking; thinking_tokens
    those of them after which the model was thinking.
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
    behind_mark: str  # what the last push brought behind the last mark in it

    def push(self, text: str, /) -> list[tuple[TextKind, str]]:
        """Text split by kind."""

    def settle(self) -> list[tuple[TextKind, str]]:
        """What was held back; all that follows is content."""

    def finish(self) -> list[tuple[TextKind, str]]:
        """The rest."""


class StopStringsLike(Protocol):
    """tenth.text's StopStrings."""

    found: str | None

    def push(self, text: str, /) -> tuple[str, bool]:
        """(text that cannot be part of a stop string, whether one was found)."""

    def finish(self) -> str:
        """Text that was held back."""


class CallEvent(Protocol):
    """tenth.text.tools' Event."""

    @property
    def kind(self) -> Literal["content", "start", "arguments", "end"]:
        """A call starts (the text is its name), its arguments go on, it is complete; or this is no call."""

    @property
    def text(self) -> str:
        """Content, a name, or a part of the arguments."""


class CallParserLike(Protocol):
    """tenth.text.tools' CallParser."""

    def push(self, text: str, /) -> SequenceOf[CallEvent]:
        """Content and calls, as far as they are certain."""

    def finish(self) -> SequenceOf[CallEvent]:
        """The rest."""


class TokenReader:
    """Token ids in, pieces out. ``deltas`` None: everything is content. ``calls``: finds calls of tools in content.

    Stop strings are looked for in content, calls included.
    """

    def __init__(
        self, text: TextStreamLike, deltas: DeltaStreamLike | None = None, stops: StopStringsLike | None = None,
        calls: CallParserLike | None = None,
    ) -> None:
        self._text, self._deltas, self._stops, self._calls = text, deltas, stops, calls
        self._call = CallPart(-1, "")  # the last one that started
        self.hit_stop = False

    @property
    def behind_mark(self) -> str:
        """What the last token brought behind the mark that ended thinking."""
        return self._deltas.behind_mark if self._deltas is not None else ""

    def settle(self) -> list[Piece]:
        """Take all that follows for content; what was held back. Not with tools: harmony marks answers and calls."""
        return self._filter(self._deltas.settle()) if self._deltas is not None and self._calls is None else []

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
            pieces += self._content(held)
        if self._calls is not None:
            pieces += self._called(self._calls.finish())
        return pieces

    def _split(self, text: str) -> list[Piece]:
        if not text or self.hit_stop:
            return []
        return self._filter([("content", text)] if self._deltas is None else self._deltas.push(text))

    def _filter(self, parts: list[tuple[TextKind, str]]) -> list[Piece]:
        pieces = []
        for kind, text in parts:
            if self.hit_stop:
                break
            if kind == "content" and self._stops is not None:
                text, self.hit_stop = self._stops.push(text)
            if text:
                pieces += self._content(text) if kind == "content" else [Piece(text, kind)]
        return pieces

    def _content(self, text: str) -> list[Piece]:
        return [Piece(text)] if self._calls is None else self._called(self._calls.push(text))

    def _called(self, events: SequenceOf[CallEvent]) -> list[Piece]:
        """Events as pieces; a call's first has its name, its last says that it has ended."""
        pieces = []
        for event in events:
            if event.kind == "content":
                if event.text:
                    pieces.append(Piece(event.text))
                continue
            if event.kind == "start":
                number = self._call.number + 1
                self._call = CallPart(number, secrets.token_hex(4) + str(number % 10))  # Mistral's templates want nine
            call = self._call._replace(name=event.text if event.kind == "start" else None, ended=event.kind == "end")
            pieces.append(Piece(event.text if event.kind == "arguments" else "", "call", call))
        return pieces


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
        """What ends thinking, when there is enough of it."""
        budget = self._budget
        if budget is None:
            return ()
        if not self._thinks_enough and (budget.n_tokens is None or self.n_thinking < budget.n_tokens):
            return ()
        self._budget = None
        return budget.closing

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


class Stream:
    """An answer: iterate it, plainly or with ``async for``, to get its pieces as they are made.

    ``text`` and the other properties wait for the end. A stream that is dropped before its end is cancelled. A failed
    request raises its error, after the pieces that were made before.
    """

    def __init__(
        self, feed: Feed, cancel: Callable[[], None], load_s: float, seed: int | None = None,
        speculated: Speculated | None = None, experts: ExpertUse | None = None,
    ) -> None:
        self._feed, self._cancel, self._load_s, self._experts = feed, cancel, load_s, experts
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

    async def _changed(self) -> bool:
        """Whether there is something to take; waits for one change if not."""
        import asyncio  # here, for it takes 3 MB that plain iterating does not need

        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        with self._feed.changed:
            if self._is_ready():
                return True
            self._feed.wake_later(lambda: waking.soon(loop, changed.set))
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

    def end_thinking(self) -> bool:
        """Have the model end its thinking now and go on to its answer. False: it does not think, or no longer."""
        return self._feed.end_thinking()

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

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls that the model made."""
        calls: list[ToolCall] = []
        for piece in self.wait()._feed.pieces:
            if piece.call is None:
                continue
            if piece.call.name is not None:
                calls.append(ToolCall(piece.call.id, piece.call.name, ""))
            else:
                calls[-1] = replace(calls[-1], arguments=calls[-1].arguments + piece)
        return calls

    def _joined(self, kind: Kind) -> str:
        return "".join(piece for piece in self.wait()._feed.pieces if piece.kind == kind)

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended: "stop" (stop token or string, end of a grammar), "length" (max_tokens or end of the context),
        "cancelled"."""
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
    def expert_counts(self) -> list[list[int]] | None:
        """How many of its tokens used each expert, by layer; None unless the model was loaded with note_experts."""
        self.wait()
        return [[int(n) for n in layer] for layer in self._experts.counts] if self._experts is not None else None

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
