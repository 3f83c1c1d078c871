"""A grammar by which a model calls tools as it was asked to: one of them, one of some, or none but then correctly.

Where the model may answer in words, the grammar lets all text pass up to the mark that begins a call.
"""

from __future__ import annotations

import json
import re

from tenth.errors import RequestError
from tenth.text.grammar import Grammar
from tenth.text.tokenizer import Tokenizer
from tenth.text.tools.formats import Quote, ToolFormat
from tenth.text.tools.request import ToolRequest
from tenth.text.vocabulary import CONTROL


def quoting(tokenizer: Tokenizer, format: ToolFormat) -> Quote:
    """Texts as Lark: the format's marks that are control tokens by their ids, the rest as strings."""
    vocabulary = tokenizer.vocabulary
    tokens = {mark: vocabulary.special[mark] for mark in format.marks
              if mark in vocabulary.special and vocabulary.types[vocabulary.special[mark]] == CONTROL}  # fmt: skip
    cut = re.compile("(" + "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) + ")") if tokens else None

    def quote(text: str) -> str:
        parts = cut.split(text) if cut else [text]
        return "".join(f" <[{tokens[part]}]> " if part in tokens else f" {json.dumps(part, ensure_ascii=False)} "
                       for part in parts if part)  # fmt: skip

    return quote


def call_grammar(
    format: ToolFormat, request: ToolRequest, quote: Quote, answer: Grammar | None = None
) -> Grammar | None:
    """What keeps a model to a request's tools; ``answer``: to be matched by an answer that is no call.

    None when nothing has to be kept. Raises RequestError for a schema that cannot be used.
    """
    if not request.is_guided and answer is None:
        return None
    rules = ["one: " + " | ".join(f"call{i}" for i in range(len(request.callable)))]
    rules += [f"call{i}: {format.call(tool, quote)}" for i, tool in enumerate(request.callable)]
    more = f" ({quote(format.between)} one)*" if request.parallel and format.between is not None else ""
    rules.append(f"calls: one{more} {quote(format.closing)}")
    if format.text_end:
        rules.append(_up_to("text_value", *_cut(quote(format.text_end))))
    return Grammar.lark("\n".join(["%llguidance {}", *_start(format, request, quote, answer), *rules]))


def _start(format: ToolFormat, request: ToolRequest, quote: Quote, answer: Grammar | None) -> list[str]:
    opening = quote(format.opening)
    if request.must_call:
        return [f"start: {opening} calls"]
    if answer is not None:
        return [f"start: {quote(format.plain)} answer | {opening} calls", f"answer: {_inside(answer)}"]
    if format.plain:
        return [f"start: {quote(format.plain)} TEXT | {opening} calls", r"TEXT: /(.|\n)*/"]
    if not opening:  # a call is known by its brace
        return ["start: TEXT | calls", r"TEXT: /([^{\s](.|\n)*)?/"]
    first, rest = _cut(opening)
    return [f"start: TEXT | head {rest} calls", _up_to("head", first), r"TEXT: /(.|\n)*/"]


def _up_to(name: str, first: str, rest: str = "") -> str:
    """A rule for the shortest text that ends with a mark."""
    lazy = "" if first.startswith("<[") else "[lazy]"  # no text goes past a control token
    return f"{name}{lazy}: /(.|\\n)*/ {first} {rest}"


def _cut(quoted: str) -> tuple[str, str]:
    """The first token or string of a quoted text, and the rest."""
    first = re.match(r'\s*(<\[\d+\]>|"(?:[^"\\]|\\.)*")', quoted)
    assert first, "an opening is quoted text"
    return first[1], quoted[first.end():]


def _inside(answer: Grammar) -> str:
    """A grammar as a rule of another."""
    if answer.is_json:
        return f"%json {answer.text}"
    if answer.kind == "regex":
        import llguidance  # here, for it takes 5 MB

        return f"/{llguidance.regex_to_lark(answer.text, '')}/"
    raise RequestError("a Lark grammar cannot be combined with tools", "put it into a tool's parameters as a schema")
