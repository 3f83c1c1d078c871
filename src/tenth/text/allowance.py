"""What a chat template may use up, and the operators, filters and methods that pay before they make anything.

One allowance for each run: steps, a deadline, and the weight of everything made, in characters and a fixed amount per
item. What could grow within a single step (``*``, ``**``, ``%``, ``replace``, ``join``, ``indent``) is weighed before
it is made. sandbox.py puts these in the place of Jinja's own.
"""

from __future__ import annotations

import json
import re
import string
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_STEPS = 500_000
_WEIGHT = 64 << 20  # of everything made in one run: characters, and more for each item
_INTEGER_BITS = 4096
_ITEM_WEIGHT = 64  # about what an item costs in memory


class LimitReached(Exception):
    """The template asked for more than it may use."""


class Allowance(threading.local):
    """What the render of this thread has left."""

    def __init__(self) -> None:
        self.weight = self.steps = 0
        self.seconds = self.deadline = 0.0

    def begin(self, given: int, seconds: float) -> None:
        """A new run, which was given a conversation of that weight and so many seconds."""
        self.weight = _WEIGHT + 16 * given
        self.steps = MAX_STEPS
        self.seconds, self.deadline = seconds, time.monotonic() + seconds

    def charge(self, weight: int) -> None:
        """Take a weight off. Raises LimitReached when there is not so much left."""
        self.weight -= weight
        if self.weight < 0:
            raise LimitReached("it makes more text or data than a chat needs")

    def step(self, weight: int = 0) -> None:
        """Count a step that makes a weight. Raises LimitReached after the last, or behind the deadline."""
        self.steps -= 1
        if self.steps < 0:
            raise LimitReached(f"it takes more than {MAX_STEPS} steps")
        if self.steps % 64 == 0 and time.monotonic() > self.deadline:
            raise LimitReached(f"it runs for more than {self.seconds:g} seconds")
        self.charge(weight)


allowance = Allowance()


class QuietNamespace(Namespace):
    """Jinja's, with a short name in messages: its own shows everything it holds, shared parts again and again."""

    def __repr__(self) -> str:
        return "<namespace>"


def weigh(value: Any) -> int:
    """Characters in ``value``, plus a fixed weight per item, with shared parts counted each time they appear."""
    total, waiting = 0, [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            total += len(part)
        elif isinstance(part, (list, tuple)):
            total += _ITEM_WEIGHT * len(part)
            waiting.extend(part if len(part) * _ITEM_WEIGHT <= allowance.weight else ())
        elif isinstance(part, dict):
            total += 2 * _ITEM_WEIGHT * len(part)
            waiting.extend(part.keys())
            waiting.extend(part.values())
        elif isinstance(part, int):
            total += part.bit_length() >> 3
        elif isinstance(part, Namespace):  # its text shows all it holds, shared parts again and again
            raise LimitReached("a namespace used as a value")
        if total > allowance.weight:
            raise LimitReached("it makes more text or data than a chat needs")
    return total


def charged(value: Any) -> Any:
    """``value``, paid for."""
    if isinstance(value, (str, list, tuple, dict, int)):
        allowance.charge(weigh(value))
    return value


def metered(values: Iterable[Any]) -> Iterator[Any]:
    """The values, each of them a step."""
    for value in values:
        allowance.step()
        yield value


def charged_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is a step and pays for what it gives."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        allowance.step()
        if any(isinstance(value, Namespace) for value in args):
            raise LimitReached("a namespace used as a value")
        return charged(function(*args, **kwargs))

    # The marks by which Jinja knows what to pass (environment, context) live in the function's attributes.
    wrapped.__dict__.update(getattr(function, "__dict__", {}))
    return wrapped


def paid_text(value: Any) -> str:
    """``str(value)``, paid for beforehand."""
    allowance.charge(weigh(value))
    return str(value)


def replace(text: Any, old: str, new: str, count: int | None = None) -> str:
    """The filter and method ``replace``."""
    whole, old, new = paid_text(text), paid_text(old), paid_text(new)
    found = whole.count(old) if count is None or count < 0 else min(whole.count(old), count)
    allowance.charge(len(whole) + found * len(new))
    return whole.replace(old, new, -1 if count is None else count)


def join(environment: jinja2.Environment, values: Iterable[Any], d: str = "", attribute: Any = None) -> str:
    """The filter and method ``join``."""
    if attribute is not None:
        pick = jinja2.filters.make_attrgetter(environment, attribute)
        values = map(pick, values)
    d = paid_text(d)
    parts = [paid_text(value) for value in metered(values)]
    allowance.charge(max(len(parts) - 1, 0) * len(d))
    return d.join(parts)


def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
            sort_keys: bool = False) -> str:
    """As transformers renders it: plain JSON, no HTML escapes."""
    if indent is not None and not 0 <= int(indent) <= 16:
        raise LimitReached("tojson with an indent above 16")
    allowance.charge(weigh(value) * (1 + (indent or 0)))
    text: str = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    allowance.charge(len(text))
    return text


def indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """The filter ``indent``."""
    width = len(width) if isinstance(width, str) else width
    if not 0 <= width <= 64:
        raise LimitReached("indent by more than 64")
    text = paid_text(text)
    allowance.charge((text.count("\n") + 2) * (width + 1))
    return str(jinja2.filters.do_indent(text, width, first, blank))


def percent_format(text: str, *args: Any, **kwargs: Any) -> str:
    """printf-style, for plain values and widths of at most two digits."""
    if args and kwargs:
        raise jinja2.TemplateRuntimeError("format takes either positional or named values")
    return str(remainder(paid_text(text), kwargs or args))


def brace_format(form: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """``str.format`` for plain fields: no attributes or items of values, no nested fields, widths of two digits."""
    parts, position = [], 0
    for text, field, spec, conversion in string.Formatter().parse(form):
        allowance.charge(len(text) + 100)
        parts.append(text)
        if field is None:
            continue
        if not re.fullmatch(r"\w*", field) or re.search(r"\d{3}|[{}]", spec or "") or conversion not in (None, "s"):
            raise LimitReached("a format with more than plain fields")
        key = field or str(position)
        position += 1
        value = args[int(key)] if key.isdecimal() else kwargs[key]
        plain = value if isinstance(value, (int, float)) and conversion is None else paid_text(value)
        parts.append(charged(format(plain, spec or "")))
    return "".join(parts)


def remainder(left: Any, right: Any) -> Any:
    """The operator ``%``."""
    if not isinstance(left, str):
        return left % right
    values = right if isinstance(right, tuple) else tuple(right.values()) if isinstance(right, dict) else (right,)
    if "*" in left or re.search(r"\d{3}", left):
        raise LimitReached("a format with a width above 99")
    allowance.charge(len(left) + left.count("%") * (100 + sum(map(weigh, values))))
    return left % right


def multiply(left: Any, right: Any) -> Any:
    """The operator ``*``."""
    for text, count in ((left, right), (right, left)):
        if isinstance(text, (str, list, tuple)) and isinstance(count, int):
            allowance.charge(max(weigh(text), 1) * max(count, 0))
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _INTEGER_BITS:
        raise LimitReached(f"a number of more than {_INTEGER_BITS} bits")
    return left * right


def power(left: Any, right: Any) -> Any:
    """The operator ``**``."""
    if abs(right) > 64 or abs(left) > 1 << 64:
        raise LimitReached("a power above 64")
    return left**right


_binop = ImmutableSandboxedEnvironment.default_binop_table
OPERATORS = {**_binop, "*": multiply, "**": power, "%": remainder}
