"""Prints a program: one line per instruction, with what it reads, writes and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenth.program.values import Attr, Instruction, Program, Value


@dataclass(frozen=True)
class Cost:
    """What one instruction cost, summed over its calls."""

    calls: int
    time_ns: int
    n_bytes: int


def listing(program: Program, costs: Sequence[Cost] | None = None) -> str:
    """The program as text; with ``costs`` (one per instruction) also its calls, time, share and read rate."""
    if costs is not None and len(costs) != len(program.instructions):
        raise ValueError(f"{len(costs)} costs for {len(program.instructions)} instructions")
    total_ns = sum(cost.time_ns for cost in costs) if costs else 0
    lines = [_heading(program)]
    for i, instruction in enumerate(program.instructions):
        cost = _cost(costs[i], total_ns) if costs else ""
        lines.append(f"{i:4d} {cost} {_line(instruction)}".rstrip())
    if costs:
        lines.append(f"total {total_ns / 1e6:.3f} ms, {sum(cost.n_bytes for cost in costs) / 1e6:.1f} MB")
    return "\n".join(lines)


def _heading(program: Program) -> str:
    counts = f"{len(program.instructions)} instructions, {len(program.weights)} weights, {len(program.state)} KV layers"
    return f"{program.architecture or 'program'}: {counts}, {program.vocab_size} logits"


def _line(instruction: Instruction) -> str:
    outputs = ", ".join(_written(value) for value in instruction.outputs) or "-"
    inputs = " ".join(_name(value) for value in instruction.inputs)
    attrs = " ".join(f"{name}={_short(value)}" for name, value in instruction.attrs.items())
    return f"{instruction.op:14s} {outputs} <- {inputs}  {attrs}"


def _cost(cost: Cost, total_ns: int) -> str:
    share = 100 * cost.time_ns / total_ns if total_ns else 0.0
    rate = cost.n_bytes / cost.time_ns if cost.time_ns else 0.0  # bytes per nanosecond = GB per second
    time = f"{cost.calls:7d}x {cost.time_ns / 1e6:10.3f} ms {share:5.1f}%"
    return f"{time} {cost.n_bytes / 1e6:10.2f} MB {rate:7.2f} GB/s "


def _written(value: Value) -> str:
    place = f"@{value.offset}" if value.offset >= 0 else ""
    dtype = "" if value.dtype == "f32" else f" {value.dtype}"
    return f"{value.name}{_shape(value)}{dtype}{place}"


def _name(value: Value) -> str:
    return value.name + (_shape(value) if value.base is not None else "")


def _shape(value: Value) -> str:
    dims = [str(d) for d in value.shape]
    if value.rows:
        dims.insert(0, "n" if value.rows == "tokens" else "m")
    return f"[{', '.join(dims)}]"


def _short(value: Attr) -> str:
    if isinstance(value, tuple):
        shown = ", ".join(_short(v) for v in value[:3])
        return f"({shown}, … {len(value)})" if len(value) > 3 else f"({shown})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
