"""Reading an answer that arrives in pieces: a format is one function that reads on, and waits where it needs more.

A format's function is a generator: it yields when the text so far does not decide, and goes on when there is more. What
it decides depends on the whole text only, never on where the pieces were cut. Nothing is read twice, nothing is lost:
the ``raw`` texts of all events, one after the other, are what was pushed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from tenth.text.stream import find_first, held_back

T = TypeVar("T")
Reading = Generator[None, None, T]
SPACE = " \t\r\n"
MAX_HEAD = 512  # characters of a name or a header: more is no call
MAX_DEPTH = 64


class Event(NamedTuple):
    """A piece of content, or a call: its start (the text is its name), parts of its arguments as JSON, its end."""

    kind: Literal["content", "start", "arguments", "end"]
    text: str
    raw: str  # what it stands for in the answer


class NotACall(Exception):
    """What looked like a call is none; its text is content."""


class Reader:
    """The text of an answer, from the place that was read on; and the events that came of what was read."""

    def __init__(self, schemas: dict[str, Any]) -> None:
        self.schemas = schemas  # of the tools' parameters, by name
        self.text = ""
        self.is_closed = False
        self.events: list[Event] = []
        self._raw = ""  # read since the last event
        self._behind_call = False  # white space here is not content

    def give(self, kind: Literal["content", "start", "arguments", "end"], text: str = "") -> None:
        """Add an event for what was read since the last one."""
        if text or self._raw or kind in ("start", "end"):
            self.events.append(Event(kind, text, self._raw))
            self._raw = ""
            self._behind_call = kind == "end" or (self._behind_call and not text)

    def give_up(self) -> None:
        """What was read since the last event is content."""
        self.give("content", self._raw)

    def structure(self) -> None:
        """What was read since the last event belongs to calls."""
        self.give("content")
        self._behind_call = True

    def skip(self, n: int) -> str:
        """Read n characters that are there."""
        read, self.text = self.text[:n], self.text[n:]
        self._raw += read
        return read

    def content(self, marks: Sequence[str]) -> Reading[str | None]:
        """Give content up to the next of the marks, and read it: which it is, None at the end.

        White space around marks belongs to them.
        """
        self.give("content", "" if self._behind_call else self._raw)
        while True:
            found = find_first(self.text, marks)
            n = found[0] if found else len(self.text) - (0 if self.is_closed else held_back(self.text, marks))
            body = self.text[:n]
            if found or not self.is_closed:
                body = body.rstrip(SPACE)
            if body:
                self.give("content", self.skip(len(body)).lstrip(SPACE if self._behind_call else ""))
            if found:
                self.skip(n - len(body) + len(found[1]))
                return found[1]
            if self.is_closed:
                return None
            yield

    def space(self) -> Reading[None]:
        """Read white space."""
        while True:
            self.skip(len(self.text) - len(self.text.lstrip(SPACE)))
            if self.text or self.is_closed:
                return
            yield

    def next(self) -> Reading[str]:
        """The next character, which stays; "" at the end."""
        while not self.text and not self.is_closed:
            yield
        return self.text[:1]

    def is_next(self, mark: str) -> Reading[bool]:
        """Whether a mark stands here; it is read if it does."""
        while len(self.text) < len(mark) and mark.startswith(self.text) and not self.is_closed:
            yield
        if not self.text.startswith(mark):
            return False
        self.skip(len(mark))
        return True

    def expect(self, mark: str) -> Reading[None]:
        """Read a mark. Raises NotACall when there is something else."""
        if not (yield from self.is_next(mark)):
            raise NotACall

    def until(self, *marks: str) -> Reading[tuple[str, str]]:
        """The text up to the first of the marks, read, and the mark, which stays. Raises NotACall when it is long."""
        while True:
            found = find_first(self.text, marks)
            if found and found[0] <= MAX_HEAD:
                return self.skip(found[0]), found[1]
            if found or self.is_closed or len(self.text) > MAX_HEAD + max(map(len, marks)):
                raise NotACall
            yield

    def pieces(self, mark: str) -> Reading[str | None]:
        """The next piece of the text before a mark, "" when there is none yet; None at the mark, which is read."""
        at = self.text.find(mark)
        if at == 0:
            self.skip(len(mark))
            return None
        n = at if at > 0 else len(self.text) - (0 if self.is_closed else held_back(self.text, (mark,)))
        if n:
            return self.skip(n)
        if self.is_closed:
            raise NotACall
        yield
        return ""

    # ---- JSON

    def json(self, take: Callable[[str], None]) -> Reading[None]:
        """Read one JSON value, handing on its text as it comes. Only strings and nesting are looked at."""
        depth, in_string, escaped, is_scalar, at_start = 0, False, False, False, True
        while True:
            n, done, is_wrong = 0, False, False
            for n, char in enumerate(self.text, 1):
                if in_string:
                    if escaped:
                        escaped = False
                    elif char == "\\":
                        escaped = True
                    elif char == '"':
                        in_string = False
                elif is_scalar and char in ",}] \t\r\n<`":
                    n, done = n - 1, True
                elif char == '"':
                    in_string = True
                elif char in "{[":
                    depth += 1
                elif char in "}]":
                    depth -= 1
                elif at_start and depth == 0:
                    is_scalar = True
                at_start = False
                done = done or (depth == 0 and not in_string and not is_scalar)
                is_wrong = depth > MAX_DEPTH or depth < 0
                if done or is_wrong:
                    n -= is_wrong
                    break
            if n:
                take(self.skip(n))
            if is_wrong:
                raise NotACall
            if done or (self.is_closed and is_scalar):
                return
            if self.is_closed:
                raise NotACall
            yield

    def string(self) -> Reading[str]:
        """Read one JSON string: what it says."""
        if (yield from self.next()) != '"':
            raise NotACall
        parts: list[str] = []
        yield from self.json(parts.append)
        try:
            return str(json.loads("".join(parts)))
        except ValueError:
            raise NotACall from None


class CallParser:
    """Content and calls of one answer, in a given format. ``schemas``: of the tools' parameters, by name."""

    def __init__(self, read: Callable[[Reader], Reading[None]], schemas: dict[str, Any]) -> None:
        self._reader = Reader(schemas)
        self._reading: Reading[None] | None = read(self._reader)

    def push(self, text: str) -> list[Event]:
        """The events that this text makes certain."""
        self._reader.text += text
        return self._go_on()

    def finish(self) -> list[Event]:
        """The events of what was held back. A call that is not complete has no end."""
        self._reader.is_closed = True
        events = self._go_on()
        if self._reader.text:
            self._reader.skip(len(self._reader.text))
        self._reader.give_up()
        rest, self._reader.events = self._reader.events, []
        return events + rest

    def _go_on(self) -> list[Event]:
        try:
            if self._reading is not None:
                next(self._reading)
        except StopIteration:
            self._reading = None
        events, self._reader.events = self._reader.events, []
        return events
