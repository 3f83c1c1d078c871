"""Prints a program: one line per instruction, with what it reads and writes."""

from __future__ import annotations

from tenth.program.values import Attr, Instruction, Program, Value


def listing(program: Program) -> str:
    """The program as text, and its drafter behind it."""
    lines = [f"{i:4d}  {_line(instruction)}".rstrip() for i, instruction in enumerate(program.instructions)]
    drafter = ["", f"drafter of {listing(program.drafter)}"] if program.drafter else []
    return "\n".join([_heading(program), *lines, *drafter])


def _heading(program: Program) -> str:
    counts = f"{len(program.instructions)} instructions, {len(program.weights)} weights, {len(program.state)} KV layers"
    counts += f", {len(program.recurrences)} recurrences" if program.recurrences else ""
    what = {"generate": "logits", "embed": "numbers in a vector", "rerank": "scores"}[program.task]
    return f"{program.architecture or 'program'}: {counts}, {program.output_width} {what}"


def _line(instruction: Instruction) -> str:
    outputs = ", ".join(_written(value) for value in instruction.outputs) or "-"
    inputs = " ".join(_name(value) for value in instruction.inputs)
    attrs = " ".join(f"{name}={_short(value)}" for name, value in instruction.attrs.items())
    return f"{instruction.op:14s} {outputs} <- {inputs}  {attrs}"


def _written(value: Value) -> str:
    place = f"@{value.offset}" if value.offset >= 0 else ""
    dtype = "" if value.dtype == "f32" else f" {value.dtype}"
    return f"{value.name}{_shape(value)}{dtype}{place}"


def _name(value: Value) -> str:
    return value.name + (_shape(value) if value.base is not None else "")


def _shape(value: Value) -> str:
    dims = [str(d) for d in value.shape]
    if value.rows:
        dims.insert(0, {"tokens": "n", "outputs": "m", "generated": "g"}[value.rows])
    return f"[{', '.join(dims)}]"


def _short(value: Attr) -> str:
    if isinstance(value, tuple):
        shown = ", ".join(_short(v) for v in value[:3])
        return f"({shown}, … {len(value)})" if len(value) > 3 else f"({shown})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
