"""Seconds of a step: what it must read and multiply, by the rates of the machine. Pure arithmetic.

An instruction takes what its nearer limit takes, reading or multiplying, and what any instruction takes. Instructions
follow each other, so their times add up. Reading experts from the disk goes on beside all that, as far as it can.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tenth.bench.costs import Cost, StepShape, Stored, costs
from tenth.forecast.kernels import program_bytes
from tenth.forecast.probe import Probe
from tenth.program.values import Instruction, Program

READ_SHARE = 0.85  # of the read bandwidth, which products of real models reach (docs/plan.md)
ALIKE = 1.5
SAMPLE_COLD = 3.0  # choosing a token, against the probe's: its logits lie in a cache
ENGINE_S = 350e-6  # around a step, per token: scheduler, text, streams (docs/plan.md)
HIDDEN = 0.8  # the share of the shorter one of reading and computing that the longer one hides (docs/plan.md)
SPREAD = 0.15  # how far a figure without experts on the disk may be off: docs/plan.md


@dataclass(frozen=True)
class StepTime:
    """Seconds by what bounds them: reading memory, computing, and what instructions and steps take at least."""

    memory_s: float = 0.0
    compute_s: float = 0.0
    overhead_s: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.memory_s + self.compute_s + self.overhead_s

    def __add__(self, other: StepTime) -> StepTime:
        return StepTime(self.memory_s + other.memory_s, self.compute_s + other.compute_s,
                        self.overhead_s + other.overhead_s)


def step_time(program: Program, stored: Mapping[str, Stored], kv_format: str, shape: StepShape,
              probe: Probe) -> StepTime:
    """What a step of this shape takes with everything in memory."""
    each = zip(program.instructions, costs(program, stored, kv_format, shape), strict=True)
    # A model not much larger than the probe's own program lies in the caches as that one did: its rates say all.
    is_cached = sum(stored[name].n_bytes for name in program.weights) <= ALIKE * program_bytes()
    read = math.inf if is_cached else READ_SHARE * probe.read
    times = [instruction_time(instruction, cost, shape, probe, read) for instruction, cost in each]
    sampling = SAMPLE_COLD * probe.kernels.sample_s * program.vocab_size * shape.outputs
    return sum(times, StepTime(overhead_s=probe.kernels.step_s + sampling))


def instruction_time(instruction: Instruction, cost: Cost, shape: StepShape, probe: Probe, read: float) -> StepTime:
    """What one instruction takes, reading so many bytes per second."""
    overhead, memory_s = probe.kernels.instruction_s, cost.memory_bytes / read
    if not cost.multiply_adds:
        return StepTime(memory_s, cost.activation_bytes / probe.kernels.activation_bytes_per_s, overhead)
    if cost.formats:
        rows = rows_each(instruction, shape)
        rate = min(probe.product_rate(name, rows) for name in cost.formats.split("+"))
    else:
        rate = probe.attention_rate(shape.rows)
    compute_s = cost.multiply_adds / rate
    if memory_s >= compute_s:
        return StepTime(memory_s=memory_s, overhead_s=overhead)
    return StepTime(compute_s=compute_s, overhead_s=overhead)


def rows_each(instruction: Instruction, shape: StepShape) -> float:
    """How many rows a product multiplies by the same weights; of experts, the mean of those that are used."""
    rows = shape.outputs if instruction.inputs[0].rows == "outputs" else shape.rows
    if instruction.op != "expert_linear":
        return rows
    weight = next(v for v in instruction.inputs if v.kind == "weight")
    each = instruction.inputs[1].shape[0] / weight.shape[0]
    return max(1.0, rows * each / (1 - (1 - each) ** rows))


def prompt_time(program: Program, stored: Mapping[str, Stored], kv_format: str, n_tokens: int, chunk: int,
                probe: Probe) -> StepTime:
    """What computing a prompt takes, in steps of at most ``chunk`` rows, with everything in memory."""
    shapes = (StepShape(min(chunk, n_tokens - at), at) for at in range(0, n_tokens, chunk))
    return sum((step_time(program, stored, kv_format, shape, probe) for shape in shapes), StepTime())


def with_disk(compute_s: float, disk_s: float) -> float:
    """Seconds of computing and of reading beside it."""
    return max(compute_s, disk_s) + (1 - HIDDEN) * min(compute_s, disk_s)


def touched(k: int, n_experts: int, rows: int) -> float:
    """The share of a layer's experts that so many rows use, if all are equally likely."""
    return float(1 - (1 - k / n_experts) ** rows)


def expert_bytes(program: Program, stored: Mapping[str, Stored], rows: int) -> float:
    """Bytes of the file that hold the experts which so many rows use."""
    total = 0.0
    for instruction, weight, info in _expert_weights(program, stored):
        total += info.n_bytes * touched(instruction.inputs[1].shape[0], weight, rows)
    return total


def slice_bytes(program: Program, stored: Mapping[str, Stored]) -> float:
    """Mean size of a read: one expert's rows of one matrix. 0 without experts."""
    sizes = [info.n_bytes / n_experts for _, n_experts, info in _expert_weights(program, stored)]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _expert_weights(program: Program, stored: Mapping[str, Stored]) -> Iterable[tuple[Instruction, int, Stored]]:
    """(product, number of experts, what is stored) of every matrix of experts."""
    for instruction in program.instructions:
        if instruction.op == "expert_linear":
            for value in instruction.inputs:
                if value.kind == "weight" and len(value.shape) == 3:
                    yield instruction, value.shape[0], stored[value.name]
