"""Token ids in, pieces out: text, split into thinking and content, ended by stop strings, searched for calls.

What does these four things is tenth.text's, which this layer does not import: it is given, and described here.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence as SequenceOf
from typing import Literal, Protocol

from tenth.feed.pieces import CallPart, Piece, TextKind


class TextStreamLike(Protocol):
    """tenth.text's TextStream."""

    @property
    def is_inside_character(self) -> bool:
        """Whether bytes of a character have come, and not its last."""

    def push(self, token: int, /) -> str:
        """Text that is now certain."""

    def finish(self) -> str:
        """The rest."""


class DeltaStreamLike(Protocol):
    """tenth.text's DeltaStream."""

    thinking: bool  # whether the next text belongs to thinking
    behind_mark: str  # what the last push brought behind the last mark in it

    @property
    def rest_of_mark(self) -> str:
        """What is missing of a mark that would end the open thought and has begun."""

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

    @property
    def rest_of_mark(self) -> str:
        """What is missing of a mark that would end thinking and whose beginning was pushed; "" when none was."""
        return self._deltas.rest_of_mark if self._deltas is not None and not self._text.is_inside_character else ""

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
