"""Gemma's calls: <|tool_call>call:NAME{key:value,...}<tool_call|> (Gemma 4), <start_function_call> ... (FunctionGemma).

A text stands between two marks of its own, keys stand bare; numbers, true, false, null, objects and lists are as in
JSON. Source: ai.google.dev/gemma/docs, "Function calling with Gemma 4", "FunctionGemma formatting". Gemma 3 has no
format of its own.
"""

from __future__ import annotations

import json

from tenth.text.tools.json_calls import attempt
from tenth.text.tools.reading import MAX_DEPTH, NotACall, Reader, Reading

OPENINGS = ("<|tool_call>", "<start_function_call>")
CLOSINGS = ("<tool_call|>", "<end_function_call>")
QUOTES = ('<|"|>', "<escape>")
MARKS = (*OPENINGS, *CLOSINGS, *QUOTES)


def gemma(reader: Reader) -> Reading[None]:
    """Both kinds: they differ in their marks only."""
    while (yield from reader.content(OPENINGS)):
        yield from attempt(reader, _call)
        yield from reader.space()
        for mark in CLOSINGS:
            yield from reader.is_next(mark)


def _call(reader: Reader) -> Reading[None]:
    yield from reader.space()
    yield from reader.expect("call:")
    name, _ = yield from reader.until("{")
    if not name.strip():
        raise NotACall
    reader.give("start", name.strip())
    yield from _value(reader, 0)


def _value(reader: Reader, depth: int) -> Reading[None]:
    """One value, given as JSON."""
    if depth > MAX_DEPTH:
        raise NotACall
    yield from reader.space()
    for quote in QUOTES:
        if (yield from reader.is_next(quote)):
            yield from _text(reader, quote)
            return
    first = yield from reader.next()
    if first == "{":
        yield from _members(reader, depth)
    elif first == "[":
        yield from _items(reader, depth)
    elif first == '"':
        yield from reader.json(lambda text: reader.give("arguments", text))
    else:
        word, _ = yield from reader.until(",", "}", "]")
        reader.give("arguments", _word(word.strip()))


def _text(reader: Reader, quote: str) -> Reading[None]:
    reader.give("arguments", '"')
    while (piece := (yield from reader.pieces(quote))) is not None:
        if piece:
            reader.give("arguments", json.dumps(piece, ensure_ascii=False)[1:-1])
    reader.give("arguments", '"')


def _members(reader: Reader, depth: int) -> Reading[None]:
    yield from reader.expect("{")
    yield from reader.space()
    before = "{"
    while not (yield from reader.is_next("}")):
        if before != "{":
            yield from reader.expect(",")
            yield from reader.space()
        key, _ = yield from reader.until(":")
        yield from reader.expect(":")
        for quote in (*QUOTES, '"'):
            key = key.strip().removeprefix(quote).removesuffix(quote)
        reader.give("arguments", f"{before}{json.dumps(key, ensure_ascii=False)}: ")
        yield from _value(reader, depth + 1)
        yield from reader.space()
        before = ", "
    reader.give("arguments", "{}" if before == "{" else "}")


def _items(reader: Reader, depth: int) -> Reading[None]:
    yield from reader.expect("[")
    yield from reader.space()
    before = "["
    while not (yield from reader.is_next("]")):
        if before != "[":
            yield from reader.expect(",")
        reader.give("arguments", before)
        yield from _value(reader, depth + 1)
        yield from reader.space()
        before = ", "
    reader.give("arguments", "[]" if before == "[" else "]")


def _word(word: str) -> str:
    try:
        json.loads(word)
    except ValueError:
        return json.dumps(word, ensure_ascii=False)
    return word
