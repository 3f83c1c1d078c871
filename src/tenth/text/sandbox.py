"""Runs a chat template, which is a program from an untrusted file, within fixed limits of work, memory and time.

Base: Jinja's ``ImmutableSandboxedEnvironment`` (no loader: no include, import or extends), which keeps templates away
from Python but lets them run for ever and fill memory. Added here, all by the library's own extension points:

* every loop round, macro body and call is a step; steps and a deadline are checked there, which stops any loop;
* every value that an operator, call, filter or literal makes is weighed and charged to one allowance, counted through
  shared parts, so that neither doubling strings nor lists of the same list can grow; what could grow within a single
  step (``*``, ``**``, ``%``, ``replace``, ``join``, ``indent``) is weighed before it is made;
* only listed filters, functions and methods of strings, lists and dicts exist (no ``center``, no ``ljust``);
* the work runs in a thread of its own, and the caller stops waiting a little after the deadline whatever happens.

A worker process would bound memory too, but costs 50-100 ms at each request and a copy of the conversation; with the
allowance the most a template can hold is known (about 64 MB and 16 times what it was given).
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import string
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
from jinja2 import nodes
from jinja2.ext import loopcontrols
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

MAX_TEMPLATE_CHARS = 1 << 18  # the longest known has some 30 thousand; parsing these takes half a second
MAX_OUTPUT_CHARS = 4 << 20
MAX_SECONDS = 5.0
MAX_STEPS = 1_000_000
_ALLOWANCE = 64 << 20  # weight of everything made in one run: characters, and more for each item
_INTEGER_BITS = 4096
_ITEM_WEIGHT = 64  # about what an item costs in memory


class TemplateRefused(Exception):
    """The template itself called raise_exception."""


class LimitReached(Exception):
    """The template asked for more than it may use."""


class _Allowance(threading.local):
    """What the render of this thread has left."""

    def __init__(self) -> None:
        self.weight = self.steps = 0
        self.deadline = 0.0

    def begin(self, given: int) -> None:
        self.weight = _ALLOWANCE + 16 * given
        self.steps = MAX_STEPS
        self.deadline = time.monotonic() + MAX_SECONDS

    def charge(self, weight: int) -> None:
        self.weight -= weight
        if self.weight < 0:
            raise LimitReached("it makes more text or data than a chat needs")

    def step(self, weight: int = 0) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise LimitReached(f"it takes more than {MAX_STEPS} steps")
        if self.steps % 64 == 0 and time.monotonic() > self.deadline:
            raise LimitReached(f"it runs for more than {MAX_SECONDS:g} seconds")
        self.charge(weight)


_left = _Allowance()


class _Namespace(Namespace):
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
            waiting.extend(part if len(part) * _ITEM_WEIGHT <= _left.weight else ())
        elif isinstance(part, dict):
            total += 2 * _ITEM_WEIGHT * len(part)
            waiting.extend(part.keys())
            waiting.extend(part.values())
        elif isinstance(part, int):
            total += part.bit_length() >> 3
        elif isinstance(part, Namespace):  # its text shows all it holds, shared parts again and again
            raise LimitReached("a namespace used as a value")
        if total > _left.weight:
            raise LimitReached("it makes more text or data than a chat needs")
    return total


def charged(value: Any) -> Any:
    """``value``, paid for."""
    if isinstance(value, (str, list, tuple, dict, int)):
        _left.charge(weigh(value))
    return value


def _metered(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _left.step()
        yield value


def _charged_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        _left.step()
        if any(isinstance(value, Namespace) for value in args):
            raise LimitReached("a namespace used as a value")
        return charged(function(*args, **kwargs))

    # The marks by which Jinja knows what to pass (environment, context) live in the function's attributes.
    wrapped.__dict__.update(getattr(function, "__dict__", {}))
    return wrapped


def _text(value: Any) -> str:
    _left.charge(weigh(value))
    return str(value)


def _replace(text: Any, old: str, new: str, count: int | None = None) -> str:
    whole, old, new = _text(text), _text(old), _text(new)
    found = whole.count(old) if count is None or count < 0 else min(whole.count(old), count)
    _left.charge(len(whole) + found * len(new))
    return whole.replace(old, new, -1 if count is None else count)


def _join(environment: jinja2.Environment, values: Iterable[Any], d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        pick = jinja2.filters.make_attrgetter(environment, attribute)
        values = map(pick, values)
    d = _text(d)
    parts = [_text(value) for value in _metered(values)]
    _left.charge(max(len(parts) - 1, 0) * len(d))
    return d.join(parts)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
            sort_keys: bool = False) -> str:
    """As transformers renders it: plain JSON, no HTML escapes."""
    if indent is not None and not 0 <= int(indent) <= 16:
        raise LimitReached("tojson with an indent above 16")
    _left.charge(weigh(value) * (1 + (indent or 0)))
    text: str = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    _left.charge(len(text))
    return text


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    width = len(width) if isinstance(width, str) else width
    if not 0 <= width <= 64:
        raise LimitReached("indent by more than 64")
    text = _text(text)
    _left.charge((text.count("\n") + 2) * (width + 1))
    return str(jinja2.filters.do_indent(text, width, first, blank))


def _format(text: str, *args: Any, **kwargs: Any) -> str:
    """printf-style, for plain values and widths of at most two digits."""
    if args and kwargs:
        raise jinja2.TemplateRuntimeError("format takes either positional or named values")
    return str(_remainder(_text(text), kwargs or args))


def _format_braces(form: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """``str.format`` for plain fields: no attributes or items of values, no nested fields, widths of two digits."""
    parts, position = [], 0
    for text, field, spec, conversion in string.Formatter().parse(form):
        _left.charge(len(text) + 100)
        parts.append(text)
        if field is None:
            continue
        if not re.fullmatch(r"\w*", field) or re.search(r"\d{3}|[{}]", spec or "") or conversion not in (None, "s"):
            raise LimitReached("a format with more than plain fields")
        key = field or str(position)
        position += 1
        value = args[int(key)] if key.isdecimal() else kwargs[key]
        plain = value if isinstance(value, (int, float)) and conversion is None else _text(value)
        parts.append(charged(format(plain, spec or "")))
    return "".join(parts)


def _remainder(left: Any, right: Any) -> Any:
    if not isinstance(left, str):
        return left % right
    values = right if isinstance(right, tuple) else tuple(right.values()) if isinstance(right, dict) else (right,)
    if "*" in left or re.search(r"\d{3}", left):
        raise LimitReached("a format with a width above 99")
    _left.charge(len(left) + left.count("%") * (100 + sum(map(weigh, values))))
    return left % right


def _multiply(left: Any, right: Any) -> Any:
    for text, count in ((left, right), (right, left)):
        if isinstance(text, (str, list, tuple)) and isinstance(count, int):
            _left.charge(max(weigh(text), 1) * max(count, 0))
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _INTEGER_BITS:
        raise LimitReached(f"a number of more than {_INTEGER_BITS} bits")
    return left * right


def _power(left: Any, right: Any) -> Any:
    if abs(right) > 64 or abs(left) > 1 << 64:
        raise LimitReached("a power above 64")
    return left**right


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_binop = ImmutableSandboxedEnvironment.default_binop_table
_OPERATORS = {**_binop, "*": _multiply, "**": _power, "%": _remainder}
_KEPT_FILTERS = _words("""abs capitalize count d default dictsort e escape first float int items last length list lower
                 map max min reject rejectattr reverse safe select selectattr sort string title trim unique upper""")
_METHODS: dict[type, frozenset[str]] = {
    str: _words("""strip lstrip rstrip split rsplit splitlines startswith endswith replace upper lower title capitalize
                find rfind index rindex count join removeprefix removesuffix partition rpartition isdigit isalpha
                isalnum isspace isupper islower isnumeric isdecimal istitle format"""),
    dict: _words("get items keys values"),
    list: _words("index count"),
    tuple: _words("index count"),
    LoopContext: _words("""index index0 revindex revindex0 first last length depth depth0 previtem nextitem cycle
                        changed"""),
    Macro: _words("name arguments caller catch_kwargs catch_varargs"),
    Cycler: _words("next current reset"),
}


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """See the module docstring."""

    intercepted_binops = frozenset(_OPERATORS)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, finalize=self._pay, cache_size=0,
                         extensions=[loopcontrols, _GenerationTag])
        self.filters = {name: _charged_filter(self.filters[name]) for name in _KEPT_FILTERS}
        self.filters |= {"replace": _replace, "join": jinja2.pass_environment(_join), "tojson": _tojson,
                         "indent": _indent, "format": _format}
        self.globals = {"range": self._range, "dict": dict, "namespace": _Namespace, "joiner": Joiner, "cycler": Cycler,
                        "raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.metered, self.step, self.charged = _metered, _left.step, charged

    @staticmethod
    def _range(*args: int) -> range:
        values = range(*args)
        if len(values) > 100_000:
            raise LimitReached("a range of more than 100000 numbers")
        return values

    def _pay(self, value: Any) -> Any:
        """Every value about to be printed."""
        if isinstance(value, (str, int, float, list, tuple, dict, Undefined, type(None))):
            return charged(value)
        raise jinja2.TemplateRuntimeError(f"a {type(value).__name__} cannot be printed")

    def concat_paid(self, *values: Any) -> str:
        """The ``~`` operator."""
        return "".join([str(self._pay(value)) for value in values])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Every arithmetic operator."""
        _left.step()
        return charged(_OPERATORS[operator](left, right))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call of a function, macro or method."""
        _left.step()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            for name in ("_loop_vars", "_block_vars"):  # Jinja's own, for functions that ask for the context
                kwargs.pop(name, None)
            if obj.__name__ == "format":
                return _format_braces(owner, args, kwargs)
            if obj.__name__ == "replace":
                return _replace(owner, *args, **kwargs)
            if obj.__name__ == "join":
                return _join(self, args[0], owner)
            _left.charge(len(owner))
        return charged(super().call(context, obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> None:
        """Jinja's own guard for str.format is not needed: see call()."""
        return None

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only what ``_METHODS`` lists, and what is set on a namespace."""
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        if isinstance(obj, str) and attr == "format":
            return True  # call() runs _format_braces in its place
        allowed = next((names for kind, names in _METHODS.items() if isinstance(obj, kind)), frozenset())
        return attr in allowed and super().is_safe_attribute(obj, attr, value)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for node in list(_repeated(tree)):
            if isinstance(node, nodes.For):
                node.iter = _call("metered", node.iter)
            printed = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
            node.body.insert(0, nodes.ExprStmt(_call("step", nodes.Const(printed))))
        return _Rewrite().visit(tree)  # type: ignore[no-any-return]


def _repeated(tree: nodes.Template) -> Iterator[nodes.For | nodes.Macro | nodes.CallBlock | nodes.Block]:
    """Every body that can run more than once."""
    for node in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)):
        if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)):
            yield node


class _Rewrite(jinja2.visitor.NodeTransformer):
    """Puts the price on what Jinja computes without asking the environment: literals and ``~``."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("concat_paid", *node.nodes)

    def _literal(self, node: nodes.Node) -> nodes.Node:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") == "store" else _call("charged", node)

    visit_List = visit_Dict = visit_Tuple = _literal


def _call(name: str, *args: Any) -> nodes.Call:
    call = nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None)
    return call.set_lineno(args[0].lineno or 1) if args else call  # type: ignore[return-value]


class _GenerationTag(jinja2.ext.Extension):
    """``{% generation %}…{% endgeneration %}`` marks what the assistant wrote, for training; here it is plain text."""

    tags = {"generation"}  # noqa: RUF012 — as the base class has it

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: Any = "") -> None:
    raise TemplateRefused(_text(message)[:500])


def _strftime_now(form: str) -> str:
    if len(form) > 100 or re.search(r"\d", form):
        raise LimitReached("strftime_now with a long format")
    return datetime.datetime.now().strftime(form)


def run(source: str, variables: Mapping[str, Any]) -> str:
    """The text that template ``source`` gives for ``variables``.

    Raises TemplateRefused, LimitReached, jinja2.TemplateError, or whatever Python error its expressions cause.
    """
    result: list[str] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            result.append(_render(source, variables))
        except (Exception, RecursionError, MemoryError) as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="chat-template", daemon=True)
    thread.start()
    thread.join(MAX_SECONDS + 2)
    if thread.is_alive():
        raise LimitReached(f"it runs for more than {MAX_SECONDS:g} seconds")
    if failure:
        with contextlib.suppress(AttributeError):
            failure[0].__traceback__ = None
        raise failure[0]
    return result[0]


def _render(source: str, variables: Mapping[str, Any]) -> str:
    if len(source) > MAX_TEMPLATE_CHARS:
        raise LimitReached(f"it is longer than {MAX_TEMPLATE_CHARS} characters")
    _left.begin(0)
    _left.weight = 1 << 40  # the conversation is only measured here
    given = weigh(dict(variables))
    _left.begin(given)
    parts, length = [], 0
    for part in _compiled(source).generate(dict(variables)):
        parts.append(part)
        length += len(part)
        if length > MAX_OUTPUT_CHARS:
            raise LimitReached(f"it prints more than {MAX_OUTPUT_CHARS} characters")
    return "".join(parts)


_ENVIRONMENT = ChatEnvironment()


@lru_cache(8)
def _compiled(source: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(source)


def variables_of(source: str) -> set[str]:
    """The variables that a template reads; none when it cannot be parsed or is too long."""
    if len(source) > MAX_TEMPLATE_CHARS:
        return set()
    try:
        return jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(source))
    except (jinja2.TemplateError, RecursionError):
        return set()
