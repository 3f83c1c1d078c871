"""Token ids become text, and text becomes deltas, piece by piece: the same as decoding at the end, without waiting.

Three steps that follow each other: TextStream (ids -> text), DeltaStream (text -> thinking and content), StopStrings.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Literal

from tenth.text.families import ThinkingFamily
from tenth.text.tokenizer import Tokenizer

Kind = Literal["thinking", "content"]


class TextStream:
    """Decodes one id at a time, in constant time. A character appears when its last byte has arrived.

    ``shown``: control tokens that are shown as text although others are not.
    ``"".join(pushes) + finish()`` equals ``tokenizer.decode(ids)`` with the same ``special`` and ``continuing``.
    """

    def __init__(self, tokenizer: Tokenizer, *, special: bool = False, continuing: bool = False,
                 shown: frozenset[int] = frozenset()):
        self._tokenizer = tokenizer
        self._hidden = frozenset[int]() if special else tokenizer.vocabulary.hidden - shown
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip_space = tokenizer.space_prefix and not continuing

    def push(self, token: int) -> str:
        """The text that ``token`` completes; often empty inside a character."""
        data = self._tokenizer.token_bytes(token) if token not in self._hidden else b""
        if self._strip_space and data:
            data = data.removeprefix(b" ")
            self._strip_space = False
        return self._decoder.decode(data)

    @property
    def is_inside_character(self) -> bool:
        """Whether bytes of a character have come, and not its last."""
        return bool(self._decoder.getstate()[0])

    def finish(self) -> str:
        """What was held back: U+FFFD for an unfinished character. Afterwards the stream is empty."""
        return self._decoder.decode(b"", final=True)


def held_back(text: str, marks: Iterable[str]) -> int:
    """How many characters at the end of ``text`` may be the beginning of a mark."""
    longest = max(map(len, marks), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0


def find_first(text: str, marks: Sequence[str]) -> tuple[int, str] | None:
    """Where the first mark in ``text`` stands, and which; the longest of those at the same place."""
    found = [(at, -len(mark), mark) for mark in marks if (at := text.find(mark)) >= 0]
    return (min(found)[0], min(found)[2]) if found else None


class DeltaStream:
    """Separates thinking from content while text arrives, however the marks are split over pieces.

    ``prompt``: the rendered prompt; a thought that it leaves open is where the answer starts. The marks themselves and
    the line breaks next to them belong to neither kind. Without a family everything is content. ``continuing``: a part
    of that thought was told before, so line breaks are its own.
    """

    def __init__(self, family: ThinkingFamily | None, prompt: str = "", *, continuing: bool = False):
        self._family = family
        self._waiting = ""
        self.behind_mark = ""  # what the last push brought behind the last mark in it
        self._trim = False  # drop line breaks: just after a mark
        self.thinking = family is not None and _ends_open(family, prompt)
        self._trim = self.thinking and not continuing

    @property
    def closing_text(self) -> str:
        """What to feed the model to end an open thought in good order; "" when none is open."""
        return self._family.closing_text if self._family and self.thinking else ""

    @property
    def rest_of_mark(self) -> str:
        """What is missing of a mark that would end the open thought and has begun; "" when none has."""
        if self._family is None or not self.thinking:
            return ""
        begun = held_back(self._waiting, self._marks())
        return self._family.closing[begun:] if begun else ""

    def push(self, text: str) -> list[tuple[Kind, str]]:
        """The deltas that ``text`` completes."""
        if self._family is None:
            return [("content", text)] if text else []
        self._waiting += text
        self.behind_mark = ""
        out: list[tuple[Kind, str]] = []
        while (found := find_first(self._waiting, self._marks())) is not None:
            at, mark = found
            self._give(self._waiting[:at], out, last=True)
            self._waiting = self.behind_mark = self._waiting[at + len(mark) :]
            self.thinking = not self.thinking and mark == self._family.opening
            self._trim = True
        keep = held_back(self._waiting, self._marks())
        if self.thinking:  # a line break may still turn out to stand before the closing mark
            body = self._waiting[: len(self._waiting) - keep]
            keep += len(body) - len(body.rstrip("\n"))
        self._give(self._waiting[: len(self._waiting) - keep], out)
        self._waiting = self._waiting[len(self._waiting) - keep :]
        return out

    def settle(self) -> list[tuple[Kind, str]]:
        """What was held back; whatever comes from now on is content, also if it looks like a mark."""
        out = self.finish()
        self._family, self.thinking = None, False
        return out

    def finish(self) -> list[tuple[Kind, str]]:
        """The deltas of what was held back."""
        out: list[tuple[Kind, str]] = []
        self._give(self._waiting, out)
        self._waiting = ""
        return out

    def _marks(self) -> tuple[str, ...]:
        assert self._family is not None, "marks are only asked for with a family"
        return (self._family.closing,) if self.thinking else (self._family.opening, *self._family.skipped)

    def _give(self, text: str, out: list[tuple[Kind, str]], *, last: bool = False) -> None:
        if self._trim:
            text = text.lstrip("\n")
        if self.thinking and last:
            text = text.rstrip("\n")
        if text:
            self._trim = False
            out.append(("thinking" if self.thinking else "content", text))


def _ends_open(family: ThinkingFamily, prompt: str) -> bool:
    """Whether the prompt's last opening mark has nothing but line breaks after it."""
    return prompt.rstrip("\n ").endswith(family.opening.rstrip("\n "))


class StopStrings:
    """Ends text before the first of ``stops``; text that may begin one is held back until that is known."""

    def __init__(self, stops: Sequence[str] = ()):
        self._stops = tuple(stop for stop in stops if stop)
        self._waiting = ""
        self.found: str | None = None  # the stop string that was met

    def push(self, text: str) -> tuple[str, bool]:
        """The text that is safe to show, and whether a stop string has been met (nothing after it counts)."""
        self._waiting += text
        found = find_first(self._waiting, self._stops)
        if found is not None:
            safe, self._waiting, self.found = self._waiting[: found[0]], "", found[1]
            return safe, True
        keep = held_back(self._waiting, self._stops)
        safe, self._waiting = self._waiting[: len(self._waiting) - keep], self._waiting[len(self._waiting) - keep :]
        return safe, False

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        safe, self._waiting = self._waiting, ""
        return safe
