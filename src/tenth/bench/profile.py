"""Where the time of a step goes: steps of a known shape, their instructions' times beside what each had to do.

Steps are made here and given to the runtime directly, so rows, positions and bytes are known exactly; what the engine
adds around a step is measured apart.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tenth.batch import Batch, Sampling, pages_for
from tenth.bench.costs import Cost, StepShape, costs
from tenth.errors import RequestError
from tenth.runtime import InstructionProfile, StepCounters

PHASES = ("generation", "prompt")
PROMPT_STEPS = 8
BLOCK = 4  # steps of generation that are timed together
DEFAULT_CONTEXT_TOKENS = 256
SLOT, KEPT_SLOT = 0, 1  # of a model with recurrent state: of the sequence, and a copy to go back to


class Steps(Protocol):
    """The part of a Runtime this needs."""

    @property
    def max_rows(self) -> int:
        """Most tokens in one step."""

    @property
    def n_slots(self) -> int:
        """Places for recurrent states; 0 for a model that keeps none."""

    def step(self, batch: Batch) -> Any:
        """Computes it."""

    def copy_slot(self, source: int, target: int) -> None:
        """Copies the state in one place to another."""

    def profile(self) -> list[InstructionProfile]:
        """Counters, one entry per instruction."""

    def step_counters(self) -> StepCounters:
        """Counters of whole steps."""

    def reset_profile(self) -> None:
        """Sets them to zero."""


@dataclass(frozen=True)
class LimitRates:
    """What the machine could do at most at that time: bytes read and int8 multiply-adds, per second."""

    read: float
    int8: float

    def share(self, cost: Cost, seconds: float) -> tuple[float, str]:
        """(share of the nearer limit that was reached, "read" or "int8"); (0, "") for what neither bounds."""
        if not cost.memory_bytes or not seconds:
            return 0.0, ""
        return max((cost.n_bytes / self.read / seconds, "read"), (cost.multiply_adds / self.int8 / seconds, "int8"))


@dataclass(frozen=True)
class Row:
    """One instruction, or a group of alike ones, in the average step."""

    cost: Cost
    n_instructions: int
    seconds: float


@dataclass(frozen=True)
class Rest:
    """Seconds of the average step that are no instruction's."""

    waking: float  # checking the batch, waking the workers
    sampling: float
    python: float  # crossing the border
    engine: float | None = None  # around a step, per generated token: scheduler, text, streams; not in step_seconds


@dataclass
class PhaseProfile:
    """All that was measured of one phase. ``rows``: one per instruction, in order of the program."""

    phase: str
    shape: StepShape  # of the average step: generation moves on one position a step
    n_steps: int
    step_seconds: float  # of the whole step: instructions and rest
    rows: list[Row]
    rest: Rest
    limits: LimitRates = field(default_factory=lambda: LimitRates(0, 0))

    @property
    def explained(self) -> float:
        """The share of a step that the instructions' times add up to."""
        return sum(row.seconds for row in self.rows) / self.step_seconds if self.step_seconds else 0.0

    def groups(self) -> list[Row]:
        """Instructions of the same op and kind of weights together, those that took most time first."""
        groups: dict[tuple[str, str, str], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.cost.op, row.cost.label, row.cost.formats), []).append(row)
        return sorted((_together(rows) for rows in groups.values()), key=lambda row: -row.seconds)


def _together(rows: Sequence[Row]) -> Row:
    first = rows[0].cost
    total = {name: sum(getattr(row.cost, name) for row in rows)
             for name in ("weight_bytes", "kv_bytes", "activation_bytes", "multiply_adds")}
    return Row(Cost(first.op, first.label, first.formats, **total), len(rows), sum(row.seconds for row in rows))


def profile_generation(runtime: Steps, loaded: Any, first: int, n_tokens: int) -> PhaseProfile:
    """One row a step, from position ``first`` on, ``n_tokens`` steps."""
    fill(runtime, first)
    shapes = [StepShape(1, first + i) for i in range(n_tokens)]
    return _measured("generation", runtime, loaded, [shapes[i : i + BLOCK] for i in range(0, n_tokens, BLOCK)])


def profile_prompt(runtime: Steps, loaded: Any, first: int, n_rows: int) -> PhaseProfile:
    """``n_rows`` rows a step, always the same ones behind ``first`` others."""
    fill(runtime, first)
    return _measured("prompt", runtime, loaded, [[StepShape(n_rows, first)]] * PROMPT_STEPS)


def fitted(context_tokens: int, n_first: int | None, n_tokens: int, n_rows: int) -> tuple[int, int, int]:
    """(first, tokens, rows) that fit the context: the default first position gives way, then both counts do.

    Raises RequestError when an explicit first position leaves no room.
    """
    room = context_tokens - max(n_tokens, n_rows)
    if n_first is None:
        n_first = max(0, min(DEFAULT_CONTEXT_TOKENS, room))
    elif n_first > room:
        raise RequestError(f"a profile behind {n_first} tokens needs a context of "
                           f"{n_first + max(n_tokens, n_rows)}, there are {context_tokens}", "give a longer --context")
    return n_first, min(n_tokens, context_tokens), min(n_rows, context_tokens)


def _measured(phase: str, runtime: Steps, loaded: Any, blocks: list[list[StepShape]]) -> PhaseProfile:
    """Averages the faster half of the blocks: a slower one was disturbed by something else on the machine."""
    timed = sorted((_block(runtime, block) for block in blocks), key=lambda block: block.wall_s)
    kept = timed[: (len(timed) + 1) // 2]
    wall_s, step_s, sample_s = (statistics.fmean(getattr(block, name) for block in kept)
                                for name in ("wall_s", "step_s", "sample_s"))
    seconds = [statistics.fmean(column) for column in zip(*(block.instructions_s for block in kept), strict=True)]
    shape = StepShape(blocks[0][0].rows, round(statistics.fmean(block.first for block in kept)))
    each = costs(loaded.program, loaded.stored, loaded.config.kv_format, shape)
    rows = [Row(cost, 1, s) for cost, s in zip(each, seconds, strict=True)]
    rest = Rest(max(0.0, step_s - sum(seconds)), sample_s, max(0.0, wall_s - step_s - sample_s))
    return PhaseProfile(phase, shape, sum(block.n_steps for block in kept), wall_s, rows, rest)


@dataclass(frozen=True)
class _Block:
    """Means over a few steps. ``first``: position of the average step."""

    n_steps: int
    first: float
    wall_s: float
    step_s: float
    sample_s: float
    instructions_s: list[float]


def _block(runtime: Steps, shapes: list[StepShape]) -> _Block:
    batches = [batch_of(shape) for shape in shapes]
    _copy_state(runtime, SLOT, KEPT_SLOT)
    runtime.step(batches[0])  # wakes the workers, who fell asleep while the last counters were read
    _copy_state(runtime, KEPT_SLOT, SLOT)
    runtime.reset_profile()
    start = time.perf_counter()
    for batch in batches:
        runtime.step(batch)
    wall_s, n = time.perf_counter() - start, len(shapes)
    counters = runtime.step_counters()
    if len(shapes) == 1:  # a prompt's step, which the next block computes again
        _copy_state(runtime, KEPT_SLOT, SLOT)
    return _Block(n, statistics.fmean(shape.first for shape in shapes), wall_s / n, counters.step_seconds / n,
                  counters.sample_seconds / n, [row.seconds / n for row in runtime.profile()])


def _copy_state(runtime: Steps, source: int, target: int) -> None:
    if runtime.n_slots:
        runtime.copy_slot(source, target)


def fill(runtime: Steps, n_tokens: int) -> None:
    """Puts keys and values at positions 0 .. n_tokens - 1."""
    for at in range(0, n_tokens, runtime.max_rows):
        runtime.step(batch_of(StepShape(min(runtime.max_rows, n_tokens - at), at)))


def batch_of(shape: StepShape) -> Batch:
    """A step of this shape, greedy."""
    end = shape.first + shape.rows
    return Batch(
        tokens=np.arange(shape.first, end, dtype=np.int32) % 7 + 1,  # small ids, that every vocabulary has
        positions=np.arange(shape.first, end, dtype=np.int32), row_starts=np.array([0, shape.rows], np.int32),
        pages=[np.arange(pages_for(end), dtype=np.int32)], outputs=np.array([shape.rows - 1], np.int32),
        sampling=Sampling.greedy(1), slots=np.array([SLOT], np.int32),
        n_generated=shape.n_generated)


def engine_seconds(model: Any, runtime: Steps, n_tokens: int) -> float:
    """Seconds that the engine adds to each generated token around the step: scheduler, text, streams, threads."""
    for _ in range(2):  # the first one warms up
        runtime.reset_profile()
        start = time.perf_counter()
        for _piece in model.generate([1], max_tokens=n_tokens, ignore_eos=True, temperature=0.0):
            pass
        wall_s = time.perf_counter() - start
    counters = runtime.step_counters()
    return max(0.0, wall_s - counters.step_seconds - counters.sample_seconds) / max(1, counters.steps)


def measure_phases(phases: Sequence[str], run: Callable[[str], PhaseProfile],
                   limits: Callable[[], LimitRates]) -> list[PhaseProfile]:
    """Runs the phases with the limits measured before and after each; the higher counts, a slower one was disturbed."""
    result, before = [], limits()
    for phase in phases:
        profile = run(phase)
        after = limits()
        profile.limits = LimitRates(max(before.read, after.read), max(before.int8, after.int8))
        result.append(profile)
        before = after
    return result
