"""How models mark their thinking, one row per family, and how to ask a template for thinking or for none.

Sources: the chat templates in llama.cpp (``models/templates``, read at llama-cpp-python 0.3.36) and, for gpt-oss, the
harmony format that its template writes. A new family is one more row.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ThinkingFamily:
    """``opening`` … ``closing`` surround thinking; ``skipped`` texts are structure, part of neither kind.

    ``closing_text``: what ends thinking in good order when its budget is spent. ``empty``: a thought of nothing, put
    into the prompt when no thinking is wanted and the template has no switch for it; "" where the family has none.
    """

    name: str
    opening: str
    closing: str
    closing_text: str
    empty: str
    skipped: tuple[str, ...] = ()


_ASSISTANT, _HARMONY_FINAL = "<|start|>assistant", "<|channel|>final<|message|>"

FAMILIES: tuple[ThinkingFamily, ...] = (
    ThinkingFamily("harmony", "<|channel|>analysis<|message|>", "<|end|>", "<|end|>" + _ASSISTANT + _HARMONY_FINAL,
                   _HARMONY_FINAL, (_ASSISTANT, _HARMONY_FINAL, "<|channel|>commentary<|message|>", "<|end|>")),
    ThinkingFamily("seed", "<seed:think>", "</seed:think>", "\n</seed:think>", "<seed:think>\n</seed:think>"),
    ThinkingFamily("mistral", "[THINK]", "[/THINK]", "[/THINK]", "[THINK][/THINK]"),
    ThinkingFamily("cohere", "<|START_THINKING|>", "<|END_THINKING|>", "<|END_THINKING|>",
                   "<|START_THINKING|><|END_THINKING|>"),
    ThinkingFamily("gemma4", "<|channel>thought\n", "<channel|>", "\n<channel|>", "<|channel>thought\n<channel|>"),
    ThinkingFamily("minimax", "<mm:think>", "</mm:think>", "\n</mm:think>\n\n", "<mm:think>\n</mm:think>\n\n"),
    ThinkingFamily("think", "<think>", "</think>", "\n</think>\n\n", "<think>\n\n</think>\n\n"),
    ThinkingFamily("thinking", "<thinking>", "</thinking>", "\n</thinking>\n\n", "<thinking>\n\n</thinking>\n\n"),
)

# Variables by which templates switch thinking. All get the same value; a template reads the one it knows.
SWITCHES = ("enable_thinking", "thinking")


def family_of(template: str) -> ThinkingFamily | None:
    """The family whose marks the template's source mentions, or None for a model that does not think."""
    return next((family for family in FAMILIES if family.opening.strip() in template), None)
