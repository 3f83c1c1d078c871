"""A request that was checked, and how its settings and its answer look to the engine."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from tenth.engine.request import TokenChoice
from tenth.feed import ThinkingBudget, TokenReader
from tenth.sampling import SamplingParams

if TYPE_CHECKING:
    from tenth.text.asking import Ask
    from tenth.text.grammar import Grammar
    from tenth.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prepared:
    """A request that was checked. ``asked``: a conversation and how to read its answer; None for plain text."""

    ids: list[int]
    params: SamplingParams
    grammar: Grammar | None = None
    asked: Ask | None = None


def answer_reader(
    tokenizer: Tokenizer, asked: Ask | None, params: SamplingParams
) -> tuple[TokenReader, ThinkingBudget | None]:
    """How to read an answer, and what bounds its thinking; ``asked`` None: it is plain text."""
    from tenth.text.stream import StopStrings, TextStream

    stops = StopStrings(tuple(params.stop)) if params.stop else None
    if asked is None:
        return TokenReader(TextStream(tokenizer), None, stops), None
    text = TextStream(tokenizer, shown=asked.shown, continuing=asked.opening is not None)
    reader = TokenReader(text, asked.deltas(), stops, asked.calls())
    if asked.thinking is None:
        return reader, None
    opening, closing, behind = (
        tuple(tokenizer.encode(text, special=False, parse_special=True, continuing=True))
        for text in (asked.thinking.opening, asked.thinking.closing, asked.thinking.behind)
    )
    return reader, ThinkingBudget(asked.budget, closing, opening, behind)


def token_choice(params: SamplingParams) -> TokenChoice:
    """Complete settings as the engine takes them."""
    bias = dict(params.logit_bias or {})
    values: dict[str, Any] = {f.name: getattr(params, f.name) for f in fields(params)}
    return TokenChoice(
        temperature=values["temperature"], top_k=values["top_k"], top_p=values["top_p"], min_p=values["min_p"],
        repetition=values["repetition_penalty"], presence=values["presence_penalty"],
        frequency=values["frequency_penalty"], seed=values["seed"], n_top=values["top_logprobs"],
        bias=(np.array(list(bias), np.int32), np.array(list(bias.values()), np.float32)),
    )
