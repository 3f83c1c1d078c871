"""Where each temporary of a program lives: liveness -> offsets in one arena.

Two temporaries that are never alive together may share bytes. Largest first, each at the lowest offset that is free
while it lives (greedy by size; Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tenth.program.ops import expect
from tenth.program.values import Q8_ROW_STEP, ROUNDINGS, Program, Rows, Value

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register
# May be begun by the linear before them (native/plan/instruction.h, gates_next).
JOINS = tuple(f"{op}_{dtype}" for op in ("swiglu", "geglu") for dtype in ROUNDINGS)


def plan(program: Program, capacity: Mapping[Rows, int]) -> int:
    """Set ``offset`` of every temporary for steps of at most ``capacity`` rows of each kind; give the arena's bytes.

    A drafter has the same arena: it runs when the step is over, and nothing in the arena outlives that but logits.
    """
    drafter = plan(program.drafter, capacity) if program.drafter else 0
    return max(_plan(program, capacity), drafter)


def _plan(program: Program, capacity: Mapping[Rows, int]) -> int:
    lives = lifetimes(program)
    sizes = {value: size_bytes(value, capacity) for value in lives}
    placed: list[list[Value]] = [[] for _ in range(len(program.instructions) + 1)]  # by instruction, those alive then
    for value in sorted(lives, key=lambda v: (-sizes[v], lives[v])):
        start, end = lives[value]
        beside = {u for alive in placed[start : end + 1] for u in alive}
        value.offset = _lowest_gap([(u.offset, sizes[u]) for u in beside], sizes[value])
        for alive in placed[start : end + 1]:
            alive.append(value)
    for instruction in program.instructions:
        for value in instruction.inputs:
            value.offset = value.storage.offset
    program.output.offset = program.output.storage.offset
    return max((value.offset + sizes[value] for value in lives), default=0)


def lifetimes(program: Program) -> dict[Value, tuple[int, int]]:
    """(first, last) instruction that touches each temporary; the logits stay alive past the end."""
    lives: dict[Value, tuple[int, int]] = {}
    before: tuple[Value, ...] = ()
    for i, instruction in enumerate(program.instructions):
        if instruction.op in JOINS and instruction.inputs == before:
            lives[instruction.outputs[0]] = (i - 1, i)
        for value in (*instruction.outputs, *(v.storage for v in instruction.inputs)):
            if value.kind == "temp":
                lives[value] = (lives.get(value, (i, i))[0], i)
        before = instruction.outputs
    output = program.output.storage
    if output in lives:
        lives[output] = (lives[output][0], len(program.instructions))
    return lives


def size_bytes(value: Value, capacity: Mapping[Rows, int]) -> int:
    """Arena bytes of a temporary for ``capacity`` rows, rounded up to the alignment."""
    expect(value.rows is not None, f"{value.name} has no rows")
    assert value.rows is not None
    n_rows = capacity["tokens" if value.rows == "generated" else value.rows]  # all rows of a step may be generated ones
    if value.dtype != "q8":
        return _round_up(n_rows * value.row_bytes, ALIGNMENT)
    each = math.prod(value.shape[:-1])  # rows of a q8 buffer that stand for one row of the step
    return _round_up(_round_up(n_rows * each, Q8_ROW_STEP) * (value.row_bytes // each), ALIGNMENT)


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def _lowest_gap(taken: list[tuple[int, int]], size: int) -> int:
    at = 0
    for offset, length in sorted(taken):
        if at + size <= offset:
            break
        at = max(at, offset + length)
    return at
