"""A conversation on its way from somewhere else: what is kept of it, whatever it was."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

MOST_TITLE, MOST_TEXT, MOST_MESSAGES = 200, 1 << 20, 20_000
ROLES = ("user", "assistant")


@dataclass
class Said:
    """A message. ``parent``: a key of another one; ``more``: fields of a Message that only our own export has."""

    key: str
    parent: str | None
    role: str
    content: str
    thinking: str = ""
    model: str | None = None
    created_at: float | None = None
    attachments: list[dict[str, str]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Conversation:
    """``skipped``: kinds of things that were left out. ``current``: the key of the message that is shown."""

    title: str
    said: list[Said]
    current: str | None = None
    created_at: float | None = None
    updated_at: float | None = None
    system: str | None = None
    model: str | None = None
    is_pinned: bool = False
    folder: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def text_of(value: Any) -> str:
    """A text, cut to what a message may have; anything else is none."""
    return value[:MOST_TEXT].encode(errors="replace").decode() if isinstance(value, str) else ""


def time_of(value: Any) -> float | None:
    """Seconds since 1970, also from milliseconds; None for what is no time of this century."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    seconds = value / 1000 if value > 1e11 else value
    return float(seconds) if 0 < seconds < 4e9 else None


def joined(said: list[Said]) -> list[Said]:
    """Messages whose parents are there, parents first; what hangs on a message left out hangs on its parent's parent.

    The list may have the messages in any order, and circles.
    """
    of = {one.key: one for one in said[:MOST_MESSAGES]}
    ordered: dict[str, Said] = {}
    for one in of.values():
        line: dict[str, Said] = {}
        step: Said | None = one
        while step is not None and step.key not in ordered and step.key not in line:
            line[step.key] = step
            step = of.get(step.parent or "")
        for link in reversed(line.values()):
            if link.parent not in ordered:
                link.parent = None
            ordered[link.key] = link
    return list(ordered.values())


def left_out(said: list[Said], keep: list[bool]) -> list[Said]:
    """The messages to keep, each hanging on the nearest one above it that is kept."""
    parents = {one.key: one.parent for one in said}
    kept = {one.key for one, keeps in zip(said, keep, strict=True) if keeps}
    found = []
    for one in said:
        if one.key in kept:
            seen: set[str] = set()
            while one.parent is not None and one.parent not in kept and one.parent not in seen:
                seen.add(one.parent)
                one.parent = parents.get(one.parent)
            found.append(one)
    return found


_THOUGHTS = re.compile(r'<details type="reasoning"[^>]*>\s*(?:<summary>.*?</summary>)?(.*?)</details>'
                       r"|<think>(.*?)</think>", re.DOTALL)


def apart(content: str) -> tuple[str, str]:
    """(content, thinking) of a text that has both, in the marks of models or of Open WebUI."""
    thoughts = [re.sub(r"^> ?", "", (a or b).strip(), flags=re.MULTILINE) for a, b in _THOUGHTS.findall(content)]
    return (_THOUGHTS.sub("", content).lstrip(), "\n\n".join(thoughts)) if thoughts else (content, "")
