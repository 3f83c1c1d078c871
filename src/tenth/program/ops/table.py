"""What a row of the op table is, and how a rule becomes one. The rows stand in the files beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tenth.program.values import Attr, Dtype, Rows, Value

PANEL_ROWS = 16  # rows of a weight that lie interleaved (native/kernels/table.h): a head begins with a new panel


class Result(NamedTuple):
    """What the shape rule says of one output."""

    rows: Rows | None
    shape: tuple[int, ...]
    dtype: Dtype = "f32"


Rule = Callable[[tuple[Value, ...], Mapping[str, Attr]], tuple[Result, ...]]


@dataclass(frozen=True)
class Op:
    """One row: name, names of inputs, types of attrs (all of them present in every instruction), shape rule.

    ``dtypes``: what each of the leading inputs may hold, one tuple each; all behind them are f32.
    """

    name: str
    inputs: tuple[str, ...]
    dtypes: tuple[tuple[str, ...], ...]
    attrs: dict[str, type]
    rule: Rule

    @property
    def doc(self) -> str:
        """The specification."""
        return self.rule.__doc__ or ""


OPS: dict[str, Op] = {}


def op(inputs: str, **attrs: type) -> Callable[[Rule], Rule]:
    """Decorate a shape rule: it becomes the row of its own name, with these inputs and types of attrs."""

    def register(rule: Rule) -> Rule:
        name = rule.__name__.strip("_")
        expect(name not in OPS, f"two ops are named {name}")
        split = [part.partition(":") for part in inputs.split()]
        dtypes = tuple(tuple(dtype.split("/")) if dtype else ("f32",) for _, _, dtype in split)
        OPS[name] = Op(name, tuple(part for part, _, _ in split), dtypes, attrs, rule)
        return rule

    return register


def expect(condition: bool, message: str) -> None:
    """Raise AssertionError unless the condition holds (an ``assert`` that python -O keeps)."""
    if not condition:
        raise AssertionError(message)


def same(a: Value, b: Value) -> Result:
    """What both are; AssertionError where their rows or shapes differ."""
    same = a.rows == b.rows and a.shape == b.shape
    expect(same, f"{a.name} ({a.rows}, {a.shape}) and {b.name} ({b.rows}, {b.shape}) differ")
    return Result(a.rows, a.shape)
