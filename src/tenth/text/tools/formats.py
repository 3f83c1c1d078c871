"""How models write calls, one row per format, and which format a chat template speaks.

A row has what reads calls (a function of json_calls.py, parameters.py or gemma.py) and what a grammar needs to keep the
model to them. A new format is one more row, and a function if none fits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tenth.text.tools import gemma, json_calls, parameters
from tenth.text.tools.reading import Reader, Reading
from tenth.text.tools.request import Tool

Quote = Callable[[str], str]  # a text as Lark, control tokens in it as such


def arguments_of(tool: Tool) -> str:
    """The rule for a tool's arguments as JSON."""
    return _json(tool.parameters, tool.strict)


def _json(schema: Any, strict: bool) -> str:
    from tenth.text.grammar import Grammar

    return f" %json {Grammar.json_schema(schema if isinstance(schema, (dict, bool)) else {}, strict=strict).text} "


@dataclass(frozen=True)
class ToolFormat:
    """``found_by``: texts of a template that speaks it (all of them). ``read``: finds calls in an answer.

    ``marks``: those that may be control tokens of the vocabulary. A grammar puts ``opening`` before the first call,
    ``between`` before each further one, None where there is one only, and ``closing`` behind the last. ``arguments``:
    what the template wants of the calls in a conversation, an object or its text. ``behind_thought``: what stands
    between thinking and a call, where that is not what stands before an answer. ``plain``: what an answer begins with
    that is no call, where that has a mark. ``text_end``: what ends a bare text among the arguments, with its mark.
    """

    name: str
    found_by: tuple[str, ...]
    read: Callable[[Reader], Reading[None]]
    call: Callable[[Tool, Quote], str]
    opening: str
    between: str | None
    closing: str = ""
    marks: tuple[str, ...] = ()
    arguments: Literal["object", "text"] = "object"
    behind_thought: str | None = None
    plain: str = ""
    text_end: str = ""


def _object(key: str, before: str = "", after: str = "") -> Callable[[Tool, Quote], str]:
    """{"name": ..., KEY: {...}} between two texts."""
    return lambda tool, quote: (quote(f'{before}{{"name": {json.dumps(tool.name)}, "{key}": ') + arguments_of(tool)
                                + quote("}" + after))


def _named(between: str, after: str, before: str = "") -> Callable[[Tool, Quote], str]:
    """A name, a text, the arguments."""
    return lambda tool, quote: quote(f"{before}{tool.name}{between}") + arguments_of(tool) + quote(after)


def _by_parameter(before: str, key: tuple[str, str], value_end: str, after: str) -> Callable[[Tool, Quote], str]:
    """Each parameter between marks, in the schema's order: texts as they are (text_value), everything else as JSON."""

    def call(tool: Tool, quote: Quote) -> str:
        parts = [quote(before.format(tool.name))]
        for name, schema, required in _properties(tool):
            choice, is_text = _choice(schema, quote), isinstance(schema, dict) and schema.get("type") == "string"
            value = (choice or _json(schema, tool.strict)) + quote(value_end)
            body = quote(f"{key[0]}{name}{key[1]}") + (" text_value " if is_text and not choice else value)
            parts.append(f" ({body}) " if required else f" ({body})? ")
        return "".join(parts) + quote(after)

    return call


def _properties(tool: Tool) -> list[tuple[str, Any, bool]]:
    """(name, schema, whether it is required) of each parameter."""
    properties = tool.parameters.get("properties")
    required = tool.parameters.get("required")
    return [(name, schema, isinstance(required, list) and name in required)
            for name, schema in (properties.items() if isinstance(properties, dict) else ())]


def _choice(schema: Any, quote: Quote, mark: str = "") -> str:
    """One of the texts of an enum, between marks; "" where the schema is something else."""
    values = schema.get("enum") if isinstance(schema, dict) else None
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        return ""
    return " (" + " | ".join(quote(mark + value + mark) for value in values) + ") "


def _gemma(opening: str, closing: str, mark: str) -> Callable[[Tool, Quote], str]:
    """Gemma's notation, the parameters in the schema's order; what an object inside has is left to the model."""

    def call(tool: Tool, quote: Quote) -> str:
        required = [(name, schema) for name, schema, needed in _properties(tool) if needed]
        others = [(name, schema) for name, schema, needed in _properties(tool) if not needed]
        parts = [quote(("," if i else "") + name + ":") + _gemma_value(schema, mark, quote)
                 for i, (name, schema) in enumerate(required)]
        # Without one that is required the comma before an optional one would depend on those before it: one at most.
        one_of = [quote(("," if required else "") + name + ":") + _gemma_value(schema, mark, quote)
                  for name, schema in others]
        optional = "".join(f" ({part})? " for part in one_of) if required else f" ({' | '.join(one_of)})? "
        return quote(f"call:{tool.name}{{") + "".join(parts) + (optional if others else "") + quote("}" + closing)

    return call


def _gemma_value(schema: Any, mark: str, quote: Quote) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if choice := _choice(schema, quote, mark):
        return choice
    if kind in ("integer", "number", "boolean", "null"):
        return _json({"type": kind}, True)
    if kind == "array":
        item = _gemma_value(schema.get("items"), mark, quote)
        return f' "[" ({item} ("," {item})*)? "]" '
    text = quote(mark) + " /[^<]*/ " + quote(mark)
    if kind == "object":
        return r' "{" /[^<{}]*/ "}" '
    return text if kind == "string" else f" ({text} | /[^<{{}},\\[\\]]+/) "


_GEMMA4, _FUNCTION_GEMMA = (tuple(marks[i] for marks in (gemma.OPENINGS, gemma.CLOSINGS, gemma.QUOTES)) for i in (0, 1))
_DEEPSEEK_CALL = json_calls.CALL

GENERIC = ToolFormat("generic", (), json_calls.hermes, _object("arguments", "\n", "\n</tool_call>"), "<tool_call>",
                     "\n<tool_call>", marks=("<tool_call>", "</tool_call>"))

FORMATS: tuple[ToolFormat, ...] = (
    ToolFormat("qwen3-coder", ("<function=", "<parameter="), parameters.qwen_coder,
               _by_parameter("\n<function={}>\n", ("<parameter=", ">\n"), "\n</parameter>\n",
                             "</function>\n</tool_call>"),
               "<tool_call>", "\n<tool_call>", marks=("<tool_call>", "</tool_call>"), text_end="\n</parameter>\n"),
    ToolFormat("glm", ("<arg_key>", "<arg_value>"), parameters.glm,
               _by_parameter("{}\n", ("<arg_key>", "</arg_key>\n<arg_value>"), "</arg_value>\n", "</tool_call>"),
               "<tool_call>", "\n<tool_call>",
               marks=("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
               text_end="</arg_value>\n"),
    ToolFormat("hermes", ("<tool_call>",), json_calls.hermes, _object("arguments", "\n", "\n</tool_call>"),
               "<tool_call>", "\n<tool_call>", marks=("<tool_call>", "</tool_call>")),
    ToolFormat("deepseek-v3", (json_calls.CALL, "```json"), json_calls.deepseek,
               _named("\n```json\n", f"\n```{json_calls.CALL_END}", f"{_DEEPSEEK_CALL}function{json_calls.SEPARATOR}"),
               json_calls.BEGIN, "\n", json_calls.END, json_calls.DEEPSEEK, "text"),
    ToolFormat("deepseek-v3.1", (json_calls.CALL,), json_calls.deepseek,
               _named(json_calls.SEPARATOR, json_calls.CALL_END, _DEEPSEEK_CALL),
               json_calls.BEGIN, "", json_calls.END, json_calls.DEEPSEEK, "text"),
    ToolFormat("harmony", ("<|channel|>", "functions."), json_calls.harmony,
               _named(" <|constrain|>json<|message|>", ""), "<|channel|>commentary to=functions.", None,
               marks=("<|channel|>", "<|constrain|>", "<|message|>", "<|call|>"),
               behind_thought="<|start|>assistant", plain="<|channel|>final<|message|>"),
    ToolFormat("mistral-named", ("[TOOL_CALLS]", "[ARGS]"), json_calls.mistral, _named("[ARGS]", ""), "[TOOL_CALLS]",
               "[TOOL_CALLS]", marks=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")),
    ToolFormat("mistral", ("[TOOL_CALLS]",), json_calls.mistral, _object("arguments"), "[TOOL_CALLS][", ", ", "]",
               ("[TOOL_CALLS]",)),
    ToolFormat("gemma4", ("<|tool_call>",), gemma.gemma, _gemma(*_GEMMA4), _GEMMA4[0], _GEMMA4[0],
               marks=gemma.MARKS),
    ToolFormat("functiongemma", ("<start_function_call>",), gemma.gemma, _gemma(*_FUNCTION_GEMMA),
               _FUNCTION_GEMMA[0], _FUNCTION_GEMMA[0], marks=gemma.MARKS),
    ToolFormat("llama", ("<|python_tag|>",), json_calls.llama, _object("parameters"), "", "; ",
               marks=("<|python_tag|>",)),
    ToolFormat("llama", ('"parameters":', "tools"), json_calls.llama, _object("parameters"), "", "; "),
)


def format_of(template: str) -> ToolFormat:
    """The format whose marks a template's source mentions, GENERIC when it mentions none or knows no tools."""
    if "tools" not in template:
        return GENERIC
    return next((row for row in FORMATS if all(mark in template for mark in row.found_by)), GENERIC)
