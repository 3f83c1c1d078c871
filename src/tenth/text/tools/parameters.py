"""Formats that write every argument between marks of its own: Qwen3-Coder's and GLM's. The arguments become JSON.

Qwen3-Coder: <tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>. GLM 4.5: <tool_call>NAME
<arg_key>KEY</arg_key><arg_value>value</arg_value></tool_call>. A value is a text where the tool's schema says so, and
else whatever it is as JSON.
"""

from __future__ import annotations

import json
from typing import Any

from tenth.text.tools.json_calls import attempt
from tenth.text.tools.reading import NotACall, Reader, Reading


def qwen_coder(reader: Reader) -> Reading[None]:
    """Qwen3-Coder's."""
    while mark := (yield from reader.content(("<tool_call>", "<function="))):
        yield from attempt(reader, _qwen_block if mark == "<tool_call>" else _qwen_call)
        yield from reader.space()
        yield from reader.is_next("</tool_call>")


def _qwen_block(reader: Reader) -> Reading[None]:
    yield from reader.space()
    yield from reader.expect("<function=")
    yield from _qwen_call(reader)


def _qwen_call(reader: Reader) -> Reading[None]:
    name, _ = yield from reader.until(">")
    yield from reader.expect(">")
    if name not in reader.schemas:  # the mark is short: it may be any text
        raise NotACall
    reader.give("start", name)
    before = "{"
    while True:
        yield from reader.space()
        if not (yield from reader.is_next("<parameter=")):
            break
        key, _ = yield from reader.until(">")
        yield from reader.expect(">")
        yield from reader.is_next("\n")
        reader.give("arguments", f"{before}{json.dumps(key, ensure_ascii=False)}: ")
        yield from _value(reader, _kind(reader, name, key), "</parameter>", trim=True)
        before = ", "
    yield from reader.expect("</function>")
    reader.give("arguments", "{}" if before == "{" else "}")


def glm(reader: Reader) -> Reading[None]:
    """GLM's."""
    while (yield from reader.content(("<tool_call>",))):
        yield from attempt(reader, _glm_call)


def _glm_call(reader: Reader) -> Reading[None]:
    yield from reader.space()
    name, _ = yield from reader.until("\n", "<arg_key>", "</tool_call>")
    name = name.strip()
    if not name:
        raise NotACall
    yield from reader.space()
    reader.give("start", name)
    before = "{"
    while (yield from reader.is_next("<arg_key>")):
        key, _ = yield from reader.until("</arg_key>")
        yield from reader.expect("</arg_key>")
        yield from reader.space()
        yield from reader.expect("<arg_value>")
        reader.give("arguments", f"{before}{json.dumps(key, ensure_ascii=False)}: ")
        yield from _value(reader, _kind(reader, name, key), "</arg_value>", trim=False)
        before = ", "
        yield from reader.space()
    yield from reader.expect("</tool_call>")
    reader.give("arguments", "{}" if before == "{" else "}")


def _kind(reader: Reader, name: str, key: str) -> Any:
    """The type that a tool's schema gives a parameter, None where it says nothing simple."""
    schema = reader.schemas.get(name)
    properties = schema.get("properties") if isinstance(schema, dict) else None
    parameter = properties.get(key) if isinstance(properties, dict) else None
    if not isinstance(parameter, dict):
        return None
    if "enum" in parameter and all(isinstance(value, str) for value in parameter["enum"]):
        return "string"
    return parameter.get("type")


def _value(reader: Reader, kind: Any, mark: str, *, trim: bool) -> Reading[None]:
    """A value up to its closing mark, as JSON. ``trim``: a line break before the mark is not part of it."""
    parts: list[str] = []
    if kind == "string":
        reader.give("arguments", '"')
    line_break = ""  # held back: it may stand before the mark
    while (piece := (yield from reader.pieces(mark))) is not None:
        piece = line_break + piece
        line_break = "\n" if trim and piece.endswith("\n") else ""
        piece = piece[: len(piece) - len(line_break)]
        if kind == "string":
            if piece:
                reader.give("arguments", json.dumps(piece, ensure_ascii=False)[1:-1])
        else:
            parts.append(piece)
    reader.give("arguments", '"' if kind == "string" else _as_json("".join(parts)))


def _as_json(text: str) -> str:
    """A value without a type: JSON if it is some, Python's words for it, else a text."""
    text = {"True": "true", "False": "false", "None": "null"}.get(text.strip(), text)
    try:
        json.loads(text, parse_constant=_refuse)
        return text.strip()
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)


def _refuse(word: str) -> Any:
    raise ValueError(word)
