"""How much a model is to think: words, budgets in tokens, and what a template is told. One table."""

from __future__ import annotations

from typing import Any, NamedTuple

from tenth.errors import RequestError

MAX_BUDGET = 1 << 24


class Effort(NamedTuple):
    """``budget``: most tokens of thinking, None without end. ``word``: for templates that know three of them."""

    budget: int | None
    word: str


# Budgets of low to high as llama.cpp's chat page has them; the others go on in the same steps.
EFFORTS = {
    "none": Effort(0, "low"),
    "minimal": Effort(128, "low"),
    "low": Effort(512, "low"),
    "medium": Effort(2048, "medium"),
    "high": Effort(8192, "high"),
    "xhigh": Effort(32768, "high"),
    "max": Effort(None, "high"),
}


def read_effort(effort: str | None, think: bool | None, budget: Any) -> tuple[bool | None, int | None]:
    """(whether to ask for thinking, most tokens of it); a budget and ``think`` win over the word.

    Raises RequestError naming the field.
    """
    if budget is not None and (type(budget) is not int or not 0 <= budget <= MAX_BUDGET):
        raise RequestError(f"thinking_budget is {budget!r}, expected a whole number from 0 to {MAX_BUDGET}")
    if effort is None:
        return think, budget
    if not isinstance(effort, str) or effort not in EFFORTS:
        raise RequestError(f"reasoning_effort is {effort!r}, expected one of {', '.join(EFFORTS)}")
    asked = EFFORTS[effort].budget
    return (asked != 0 if think is None else think), (asked if budget is None else budget)


def effort_variables(effort: str | None) -> dict[str, Any]:
    """What templates read (gpt-oss: reasoning_effort)."""
    return {"reasoning_effort": EFFORTS[effort].word} if effort is not None else {}
