"""The op table: every op a program may contain, once. One file per family, as in ``meanings/``.

A row's docstring is its specification, its function the shape rule: from inputs and attrs to the (rows, shape, dtype)
of each output; it raises AssertionError where they do not fit, because a wrong program is our bug, never the user's.
``meanings/`` gives each op its meaning in NumPy under the same name, the native plan gives it speed. All arithmetic is
float32 unless said.

Shapes in the docstrings are per row with the row count n in front. Input names ending in "*" stand for any number of
values, in "?" for none or one; ":i32" or ":f32/q8/bf16" behind a name says what it holds where that is not f32 alone.
"""

from __future__ import annotations

from tenth.program.ops import arithmetic, attention, experts, of_passes, recurrent  # noqa: F401 — they fill the table
from tenth.program.ops.recurrent import MOST_TAPS, recurrence_shape
from tenth.program.ops.table import OPS, Op, expect

__all__ = ["MOST_TAPS", "OPS", "Op", "expect", "recurrence_shape"]
