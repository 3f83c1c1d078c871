"""Values of official request types: one for each field, each word and each branch that a package's TypedDicts allow.

A value varies one place of a request that is otherwise as small as it may be, and says by which names it got there.
"""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple, NotRequired, Required

from typing_extensions import is_typeddict

MOST_DEPTH = 7  # of fields inside fields: types may hold themselves


class Sample(NamedTuple):
    """``names``: fields and words on the way to the place that is varied, the outermost first."""

    value: Any
    names: tuple[str, ...]


def samples(kind: Any, names: tuple[str, ...] = ()) -> Iterator[Sample]:
    """Values of a type, at least one."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Required, NotRequired, typing.Annotated):
        yield from samples(inner[0], names)
    elif origin is typing.Literal:
        yield from (Sample(word, (*names, str(word))) for word in inner)
    elif origin in (typing.Union, types.UnionType):
        for branch in inner:
            yield from samples(branch, names)
    elif is_typeddict(kind):
        yield from _fields(kind, names)
    elif origin in (dict, collections.abc.Mapping):
        yield from (Sample({"1": one.value}, one.names) for one in samples(inner[1], names))
    elif origin is not None and origin is not type:  # List, Iterable, SequenceNotStr
        yield from (Sample([one.value], one.names) for one in samples(inner[0], names))
    elif kind is type(None):
        yield Sample(None, names)
    elif kind is bool:
        yield from (Sample(value, names) for value in (True, False))
    else:
        yield Sample({int: 1, float: 0.5, str: "x"}.get(kind, {"x": 1}), names)


def _fields(kind: Any, names: tuple[str, ...]) -> Iterator[Sample]:
    if len(names) > MOST_DEPTH:
        return
    hints, least = typing.get_type_hints(kind, include_extras=True), least_of(kind)
    # Words by which the branches of a union are told apart.
    tags = {name: value for name, value in least.items() if names and _is_one_word(hints[name])}
    here = (*names, *tags.values()) if "type" in tags or "type" not in least else (*names, least["type"])
    for name, hint in hints.items():
        if name not in tags:
            yield from (Sample({**least, name: one.value}, one.names) for one in samples(hint, (*here, name)))
    if set(hints) == set(tags):
        yield Sample(least, here)


def _is_one_word(hint: Any) -> bool:
    return typing.get_origin(hint) is Required and len(list(samples(hint))) == 1 and (
        typing.get_origin(typing.get_args(hint)[0]) is typing.Literal)


def least_of(kind: Any) -> Any:
    """The smallest value of a type, as far as that is easy to say."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Required, NotRequired, typing.Annotated):
        return least_of(inner[0])
    if origin is typing.Literal:
        return inner[0]
    if origin in (typing.Union, types.UnionType):
        return least_of(next((branch for branch in inner if branch is str), inner[0]))
    if is_typeddict(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {name: least_of(hint) for name, hint in hints.items() if typing.get_origin(hint) is Required}
    if origin in (dict, collections.abc.Mapping):
        return {}
    if origin is not None and origin is not type:
        return [least_of(inner[0])]
    return {int: 1, float: 0.5, str: "x", bool: True, type(None): None}.get(kind, {"x": 1})
