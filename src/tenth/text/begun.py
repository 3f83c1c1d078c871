"""Going on with an answer that was broken off: what was made of it stands at the end of the prompt."""

from __future__ import annotations

from typing import NamedTuple

from tenth.text.families import ThinkingFamily
from tenth.text.stream import DeltaStream


class Begun(NamedTuple):
    """What an answer has so far."""

    thinking: str = ""
    content: str = ""


def go_on(prompt: str, family: ThinkingFamily | None, begun: Begun) -> tuple[str, str]:
    """(The prompt with the answer's beginning, what tells whether a thought is open at its end: see DeltaStream)."""
    in_thought = DeltaStream(family, prompt).thinking
    if family is None:
        return prompt + begun.content, prompt
    if begun.thinking:
        if not in_thought:
            prompt += family.opening
        if family.closing_text.startswith("\n") and not prompt.endswith("\n"):
            prompt += "\n"  # such families write the thought between line breaks
        if not begun.content:
            return prompt + begun.thinking, prompt
        prompt += begun.thinking + family.closing_text
    elif begun.content and in_thought:
        prompt += family.closing_text
    elif begun.content and not prompt.rstrip("\n ").endswith((family.closing, family.empty.rstrip("\n "))):
        prompt += family.empty
    return prompt + begun.content, prompt + begun.content
