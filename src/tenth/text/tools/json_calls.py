"""Formats whose calls are JSON between marks, as the models' own chat templates write them.

Hermes (Qwen 2.5 and 3, many others): <tool_call>{"name": ..., "arguments": {...}}</tool_call>. Llama 3.1 and later: the
bare object, with "parameters", perhaps behind <|python_tag|>. Mistral: [TOOL_CALLS] and a list of objects, later
name[ARGS]{...}. DeepSeek: marks of its own around a name and the arguments, which V3 and R1 put into a code block.
gpt-oss (harmony): a message in the commentary channel whose receiver is the function.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container

from tenth.text.tools.reading import NotACall, Reader, Reading

BEGIN, END = "<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581calls\u2581end\uff5c>"
CALL, SEPARATOR, CALL_END = (
    f"<\uff5ctool\u2581{name}\uff5c>" for name in ("call\u2581begin", "sep", "call\u2581end"))  # fmt: skip
DEEPSEEK = (BEGIN, END, CALL, SEPARATOR, CALL_END)


def hermes(reader: Reader) -> Reading[None]:
    """<tool_call>{...}</tool_call>, any number of times. Small models forget the marks: an answer may be bare."""
    yield from reader.space()
    if (yield from reader.next()) == "{":
        yield from attempt(reader, _known_object)
    while (yield from reader.content(("<tool_call>",))):
        yield from attempt(reader, _object)
        yield from reader.space()
        yield from reader.is_next("</tool_call>")


def llama(reader: Reader) -> Reading[None]:
    """{...} as the whole answer, or behind <|python_tag|>; several with semicolons between."""
    mark: str | None = ""
    while mark is not None:
        yield from reader.space()
        while (yield from reader.next()) == "{":
            if not (yield from attempt(reader, _object)):
                break
            yield from reader.space()
            yield from reader.is_next(";")
            yield from reader.space()
        mark = yield from reader.content(("<|python_tag|>",))


def mistral(reader: Reader) -> Reading[None]:
    """[TOOL_CALLS] and a list of objects, or a name, [ARGS] and the arguments."""
    while (yield from reader.content(("[TOOL_CALLS]",))):
        yield from reader.space()
        if not (yield from reader.is_next("[")):
            yield from attempt(reader, _named_mistral)
            continue
        while (yield from attempt(reader, _object)):
            yield from reader.space()
            if not (yield from reader.is_next(",")):
                yield from reader.is_next("]")
                break


def _named_mistral(reader: Reader) -> Reading[None]:
    name, mark = yield from reader.until("[CALL_ID]", "[ARGS]", "{")
    if mark == "[CALL_ID]":
        yield from reader.until("[ARGS]")
    yield from reader.is_next("[ARGS]")
    yield from named(reader, name)


def deepseek(reader: Reader) -> Reading[None]:
    """V3 and R1 (type, name, code block) and V3.1 (name, arguments)."""
    while mark := (yield from reader.content((BEGIN, CALL, END))):
        if mark == CALL:
            yield from attempt(reader, _deepseek_call)
            yield from reader.space()
            yield from reader.is_next("```")
            yield from reader.space()
            yield from reader.is_next(CALL_END)
        else:
            reader.structure()


def _deepseek_call(reader: Reader) -> Reading[None]:
    name, _ = yield from reader.until(SEPARATOR)
    yield from reader.expect(SEPARATOR)
    if (yield from reader.next()) not in "{ \n":
        name, _ = yield from reader.until("\n")
        yield from reader.space()
        yield from reader.expect("```json")
    yield from reader.space()
    yield from named(reader, name)


def harmony(reader: Reader) -> Reading[None]:
    """A message of the commentary channel to functions.NAME; <|call|>, which ends it, is a stop token."""
    while (yield from reader.content(("<|channel|>commentary to=", "<|channel|>analysis to=", " to=functions."))):
        yield from attempt(reader, _harmony_call)
        yield from reader.is_next("<|call|>")


def _harmony_call(reader: Reader) -> Reading[None]:
    header, _ = yield from reader.until("<|message|>")
    yield from reader.expect("<|message|>")
    receiver = header.split("<|", 1)[0].split()
    if not receiver:
        raise NotACall
    yield from reader.space()
    yield from named(reader, receiver[0].removeprefix("functions."))


def attempt(reader: Reader, read: Callable[[Reader], Reading[None]]) -> Reading[bool]:
    """Read a call, and say whether it was one; if not, what it began with is content."""
    try:
        yield from read(reader)
    except NotACall:
        reader.give_up()
        return False
    reader.give("end")
    return True


def named(reader: Reader, name: str) -> Reading[None]:
    """Arguments behind a name."""
    if not name.strip() or (yield from reader.next()) != "{":
        raise NotACall
    reader.give("start", name.strip())
    yield from reader.json(lambda text: reader.give("arguments", text))


def _object(reader: Reader) -> Reading[None]:
    """{"name": ..., "arguments": {...}}, in any order, perhaps with more, perhaps inside {"function": ...}."""
    yield from _read_object(reader, _Call(reader))


def _known_object(reader: Reader) -> Reading[None]:
    """The same, but only if there is a tool of that name."""
    yield from _read_object(reader, _Call(reader, reader.schemas))


def _read_object(reader: Reader, call: _Call) -> Reading[None]:
    yield from reader.space()
    yield from _members(reader, call)
    call.complete()


class _Call:
    """What is known of a call while its object is read."""

    def __init__(self, reader: Reader, known: Container[str] | None = None) -> None:
        self.reader, self.known = reader, known
        self.name: str | None = None
        self.arguments: str | None = None  # those that came before the name; "" once they were given

    def named(self, name: str) -> None:
        if self.name is not None or not name or (self.known is not None and name not in self.known):
            raise NotACall
        self.name = name
        self.reader.give("start", name)
        if self.arguments:
            self.reader.give("arguments", self.arguments)

    def complete(self) -> None:
        if self.name is None:
            raise NotACall
        if self.arguments is None:
            self.reader.give("arguments", "{}")


def _members(reader: Reader, call: _Call) -> Reading[None]:
    yield from reader.expect("{")
    while True:
        yield from reader.space()
        key = yield from reader.string()
        yield from reader.space()
        yield from reader.expect(":")
        yield from reader.space()
        if key == "name":
            call.named((yield from reader.string()))
        elif key in ("arguments", "parameters") and call.arguments is None:
            yield from _arguments(reader, call)
        elif key == "function" and (yield from reader.next()) == "{" and call.name is None:
            yield from _members(reader, call)
        else:
            yield from reader.json(lambda text: None)
        yield from reader.space()
        if not (yield from reader.is_next(",")):
            yield from reader.expect("}")
            return


def _arguments(reader: Reader, call: _Call) -> Reading[None]:
    """An object, handed on as it comes once the name is known; or a text that holds one."""
    first = yield from reader.next()
    if first == "{" and call.name is not None:
        call.arguments = ""
        yield from reader.json(lambda text: reader.give("arguments", text))
        return
    parts: list[str] = []
    yield from reader.json(parts.append)
    call.arguments = "".join(parts)
    if first == '"':
        try:
            call.arguments = json.loads(call.arguments)
        except ValueError:
            raise NotACall from None
    elif first != "{":
        call.arguments = "{}" if call.arguments == "null" else call.arguments
    if call.name is not None:
        reader.give("arguments", call.arguments)
