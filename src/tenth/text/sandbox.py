"""Runs a chat template, which is a program from an untrusted file, within fixed limits of work, memory and time.

Base: Jinja's ``ImmutableSandboxedEnvironment`` (no loader: no include, import or extends), which keeps templates away
from Python but lets them run for ever and fill memory. Added here, all by the library's own extension points:

* every loop round, macro body and call is a step; steps and a deadline are checked there, which stops any loop;
* every value that an operator, call, filter or literal makes is weighed and charged to one allowance, counted through
  shared parts, so that neither doubling strings nor lists of the same list can grow (see allowance.py);
* only listed filters, functions and methods of strings, lists and dicts exist (no ``center``, no ``ljust``);
* the work runs in a thread of its own, and the caller stops waiting a little after the deadline whatever happens.

A worker process would bound memory too, but costs 50-100 ms at each request and a copy of the conversation; with the
allowance the most a template can hold is known (about 64 MB and 16 times what it was given).
"""

from __future__ import annotations

import contextlib
import datetime
import re
import threading
from collections.abc import Iterator, Mapping
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

from tenth.text.allowance import (
    OPERATORS,
    LimitReached,
    QuietNamespace,
    allowance,
    brace_format,
    charged,
    charged_filter,
    indent,
    join,
    metered,
    paid_text,
    percent_format,
    replace,
    tojson,
    weigh,
)

MAX_TEMPLATE_CHARS = 1 << 18  # the longest known has some 30 thousand; parsing these takes half a second
MAX_OUTPUT_CHARS = 4 << 20
MAX_SECONDS = 5.0


class TemplateRefused(Exception):
    """The template itself called raise_exception."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


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

    intercepted_binops = frozenset(OPERATORS)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, finalize=self._pay, cache_size=0,
                         extensions=[loopcontrols, _GenerationTag])
        self.filters = {name: charged_filter(self.filters[name]) for name in _KEPT_FILTERS}
        self.filters |= {"replace": replace, "join": jinja2.pass_environment(join), "tojson": tojson,
                         "indent": indent, "format": percent_format}
        self.globals = {"range": self._range, "dict": dict, "namespace": QuietNamespace, "joiner": Joiner,
                        "cycler": Cycler, "raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.metered, self.step, self.charged = metered, allowance.step, charged

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
        allowance.step()
        return charged(OPERATORS[operator](left, right))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call of a function, macro or method."""
        allowance.step()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            for name in ("_loop_vars", "_block_vars"):  # Jinja's own, for functions that ask for the context
                kwargs.pop(name, None)
            if obj.__name__ == "format":
                return brace_format(owner, args, kwargs)
            if obj.__name__ == "replace":
                return replace(owner, *args, **kwargs)
            if obj.__name__ == "join":
                return join(self, args[0], owner)
            allowance.charge(len(owner))
        return charged(super().call(context, obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> None:
        """Jinja's own guard for str.format is not needed: see call()."""
        return None

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only what ``_METHODS`` lists, and what is set on a namespace."""
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        if isinstance(obj, str) and attr == "format":
            return True  # call() runs brace_format in its place
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
    raise TemplateRefused(paid_text(message)[:500])


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
    allowance.begin(0, MAX_SECONDS)
    allowance.weight = 1 << 40  # the conversation is only measured here
    given = weigh(dict(variables))
    allowance.begin(given, MAX_SECONDS)
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
