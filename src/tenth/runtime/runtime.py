"""A program with its weights in memory: runs steps, and says what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tenth.batch import F32, I32, Batch, Sampling, StepResult, StepStopped
from tenth.errors import ResourceError
from tenth.program.values import Program
from tenth.runtime.building import Limits, MatrixSource, PlanBuilder, Progress, Reading


@dataclass(frozen=True)
class InstructionProfile:
    """Counters of one instruction: calls, seconds (until all workers had met), bytes of weights read per call."""

    op: str
    calls: int
    seconds: float
    weight_bytes: int


@dataclass(frozen=True)
class StepCounters:
    """Whole steps since the last reset: their count, the seconds in them, and the seconds of sampling after them."""

    steps: int
    step_seconds: float
    sample_seconds: float


@dataclass(frozen=True)
class LoadCosts:
    """What reading the weights took: bytes of files, seconds, and processor seconds of all workers together."""

    n_bytes: int
    seconds: float
    read_seconds: float
    pack_seconds: float  # with the first touch of the memory that the panels lie in


@dataclass(frozen=True)
class ExpertCounters:
    """What streamed experts have cost. A slice is one expert's rows of one matrix.

    ``wanted``: slices that layers asked for; ``ready``: of these, in memory then; ``coming``: being read then.
    ``predicted``: slices read ahead; ``unused``: of these, replaced without being asked for. ``wait_seconds``: of all
    workers together, for slices. ``dropped``: experts that tokens did without (lossy_drop). ``direct``: whether reads
    go past the page cache.
    """

    wanted: int
    ready: int
    coming: int
    predicted: int
    unused: int
    reads: int
    read_bytes: int
    wait_seconds: float
    dropped: int
    slot_bytes: int
    buffer_bytes: int
    direct: bool


class Observer(Protocol):
    """Whoever wants to know of steps. What it does takes its time from the step; it must not raise."""

    def after_step(self, n_rows: int) -> None:
        """A step of so many rows has been computed."""
        ...

    def close(self) -> None:
        """The runtime is about to be closed."""
        ...


class Runtime:
    """A program with its weights in memory, ready to compute steps. Not thread-safe: one step at a time.

    ``matrices``: where each matrix lies, and the matrices of experts; ``vectors``: the other weights, as float32.
    Raises ModelFileError when a file ends early or holds scales that are not finite, ResourceError when memory or
    threads do not suffice. ``meanwhile`` is called once, while others read the weights; what it raises ends that.
    """

    def __init__(
        self, program: Program, matrices: Mapping[str, MatrixSource], vectors: Mapping[str, F32], limits: Limits,
        progress: Progress | None = None, meanwhile: Callable[[], None] | None = None, reading: Reading | None = None,
    ):
        self.program, self.limits = program, limits
        self.max_rows, self.max_outputs = limits.max_rows, limits.max_outputs
        self.n_pages, self.context_tokens = limits.n_pages, limits.context_tokens
        self.n_slots, self.n_spare_slots = limits.n_slots, limits.n_spare_slots
        self.vocab_size = program.vocab_size
        self.reads_whole, self.result_row = program.takes_whole_sequences, program.row
        self.writes_text = program.task == "generate"
        self.prompts_apart = program.prompts_apart
        self._observers: list[Observer] = []
        self.noted_experts: tuple[int, int] | None = None  # (layers, experts of each) for whoever takes the trace
        try:
            builder = PlanBuilder(program, limits)
            builder.load(matrices, vectors, reading or Reading(), progress, meanwhile)
        except MemoryError as error:
            raise ResourceError(
                "there is not enough memory for this model", "choose a smaller model or a smaller --context"
            ) from error
        self._plan = builder.plan
        # Whether ``run_ahead`` may be asked: what is computed too far can be computed again, and costs no reading.
        self.runs_ahead = (self.writes_text and not limits.n_slots and not self.has_drafter
                           and self.expert_counters() is None)

    # ---- running

    def step(self, batch: Batch) -> StepResult:
        """Compute one step. Without ``batch.sampling`` the result is empty and ``logits()`` has what was computed.

        A program that writes no text gives the vectors of the output rows. Raises StepStopped when ``stop`` ended it.
        """
        if not self._plan.step(
                batch.tokens, batch.positions, batch.row_starts, batch.pages, batch.outputs, batch.slots, batch.copies,
                batch.n_generated):
            raise StepStopped
        for observer in self._observers:
            observer.after_step(len(batch.tokens))
        if not self.writes_text:
            return StepResult.nothing(self.logits())
        return self._chosen(batch.sampling) if batch.sampling and len(batch.outputs) else StepResult.nothing()

    def stop(self) -> None:
        """End the step that runs in another thread behind its instruction; a model with recurrent states goes on."""
        self._plan.stop()

    def _chosen(self, how: Sampling) -> StepResult:
        tokens, logprobs, top_ids, top_logprobs = self._plan.sample(how.packed())
        n_top = how.n_top
        return StepResult(
            tokens, logprobs, [row[:n] for row, n in zip(top_ids, n_top, strict=True)],
            [row[:n] for row, n in zip(top_logprobs, n_top, strict=True)],
        )

    def run_ahead(self, batch: Batch, most: int, ends: I32) -> StepResult:
        """At most so many steps, each behind the tokens of the one before; none behind a token of ``ends`` (ascending).

        The batch has one row of each sequence, and its choices neither look back nor have masks. Raises as ``step``.
        """
        how, m = batch.sampling, len(batch.tokens)
        assert how is not None, "nothing says how tokens are chosen"
        n, tokens, logprobs, top_ids, top_logprobs = self._plan.run_ahead(
            batch.tokens, batch.positions, batch.row_starts, batch.pages, batch.outputs, how.packed(), most, ends)
        if not n:
            raise StepStopped
        for observer in self._observers * n:
            observer.after_step(m)
        rows = [step * m + sequence for sequence in range(m) for step in range(n)]
        n_top = how.n_top.tolist()
        return StepResult(
            tokens[rows], logprobs[rows], [top_ids[row, : n_top[row % m]] for row in rows],
            [top_logprobs[row, : n_top[row % m]] for row in rows], n_steps=n)

    def hurry(self) -> None:
        """Have ``run_ahead`` return behind its step: somebody has something to say. From any thread."""
        self._plan.hurry()

    @property
    def has_drafter(self) -> bool:
        """Whether ``draft`` can be asked."""
        return self.program.drafter is not None

    def draft(self, batch: Batch) -> StepResult:
        """Run the drafter behind the last step: for rows that go on from its ``sources``, the likeliest next tokens.

        Those of the output rows, with their log-probabilities. Afterwards these rows, and only these, are what a
        further draft can go on from; a draft without outputs leaves those of the step.
        """
        self._plan.draft(batch.tokens, batch.positions, batch.row_starts, batch.pages, batch.outputs, batch.sources)
        if not len(batch.outputs):
            return StepResult.nothing()
        return self._chosen(Sampling.greedy(len(batch.outputs)))

    def copy_slot(self, source: int, target: int) -> None:
        """Make what is kept in one slot a copy of what is kept in another."""
        self._plan.copy_slot(source, target)

    def logits(self) -> F32:
        """The logits [m, vocab] (or vectors) of the last step's output rows, copied."""
        logits: F32 = self._plan.logits()
        return logits

    # ---- looking inside

    def expert_counters(self) -> ExpertCounters | None:
        """What streamed experts have cost since the start or the last reset; None when nothing is streamed."""
        counts = self._plan.expert_counts()
        return ExpertCounters(**counts) if counts else None

    def expert_usage(self) -> list[float]:
        """How many tokens used each streamed expert since the start, layer by layer."""
        return list(self._plan.expert_usage())

    def restore_expert_usage(self, shares: list[float]) -> None:
        """Begin with what earlier runs of the model used, in any unit: the most used are read while nothing else is."""
        self._plan.restore_expert_usage(shares)

    @property
    def isa(self) -> str:
        """The instruction set of the kernels."""
        return str(self._plan.isa)

    @property
    def n_threads(self) -> int:
        """How many workers compute a step."""
        return int(self._plan.n_threads)

    @property
    def page_bytes(self) -> int:
        """Bytes of one page of keys and values over all layers."""
        return int(self._plan.page_bytes)

    def memory(self) -> dict[str, int]:
        """Bytes set aside, by kind. KV, state and workspace count as resident only once used."""
        state = {"state_bytes": int(self._plan.slot_bytes) * self.n_slots} if self.n_slots else {}
        return {
            "weights_bytes": int(self._plan.weight_bytes),
            "kv_bytes": self.page_bytes * self.n_pages,
            **state,
            "workspace_bytes": self.limits.arena_bytes,
            **({"expert_slot_bytes": experts.slot_bytes} if (experts := self.expert_counters()) else {}),
        }

    def load_costs(self) -> LoadCosts:
        """What reading and packing the weights took."""
        return LoadCosts(self._plan.read_bytes, *self._plan.read_seconds())

    def profile(self) -> list[InstructionProfile]:
        """Counters since the start or the last reset, one entry per instruction of the program."""
        return [InstructionProfile(*row) for row in self._plan.profile()]

    def step_counters(self) -> StepCounters:
        """Whole steps since the start or the last reset; beyond their instructions: checks, waking the workers."""
        return StepCounters(*self._plan.step_counters())

    def reset_profile(self) -> None:
        """Set all counters to zero."""
        self._plan.reset_counters()

    def observe(self, observer: Observer) -> None:
        """Tell it of every step from now on, and of the end."""
        self._observers.append(observer)

    def take_trace(self) -> list[list[int]]:
        """What expert_traces noted since this was asked last: by layer, k experts for each row of each step."""
        return list(self._plan.take_trace())

    def close(self) -> None:
        """Give the memory back. The runtime cannot be used afterwards."""
        for observer in self._observers:
            observer.close()
        del self._plan
