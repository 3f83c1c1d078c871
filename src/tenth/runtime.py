"""The border to the native core: a planned program becomes a native plan, a Batch becomes a step.

The only module that imports ``tenth._core``. It knows programs, not models; weights come as places in files.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tenth import _core
from tenth.batch import F32, Batch, StepResult
from tenth.errors import ModelFileError, RequestError, ResourceError
from tenth.program.streaming import expert_layers, guessing
from tenth.program.values import Instruction, Program, Recurrence, Value

KV_FORMATS = {"f16": 0, "q8_0": 1, "f32": 2}  # native/kernels/ops_table.h, KvFormat
ARENA, MATRIX, VECTOR, TOKENS, POSITIONS, EXPERTS = range(6)  # native/plan/plan.h, Operand::Kind
DTYPES = {"f32": 0, "q8": 1, "i32": 2}  # Operand::Dtype
SCORES = {"softmax": 0, "sigmoid": 1, "softmax_selected": 2}  # Score
READ_MODES = {"automatic": 0, "direct": 1, "dropped": 2, "kept": 3}  # native/base/model_file.h, ReadMode
Progress = Callable[[str, int, int], None]
PROGRESS_S = 0.05  # between two reports of how much is read


@dataclass(frozen=True)
class MatrixSource:
    """Where the rows of a weight lie: ``n_bytes`` from byte ``offset`` of ``path``, in GGUF type ``gguf_id``.

    A matrix, or the matrices of all experts one after the other. ``make``: for a matrix that is not in the file as
    such; gives its float32 rows, and ``gguf_id`` is that of F32.
    """

    path: Path
    offset: int
    n_bytes: int
    gguf_id: int
    make: Callable[[], F32] | None = None


@dataclass(frozen=True)
class Limits:
    """What a runtime is laid out for. ``arena_bytes`` is what ``program.memory.plan`` gave for the two row counts."""

    n_threads: int
    max_rows: int
    max_outputs: int
    context_tokens: int
    n_pages: int
    kv_format: str
    arena_bytes: int
    n_slots: int = 0  # sequences whose recurrences are kept at a time; 0 for programs that have none


@dataclass(frozen=True)
class Streaming:
    """What the experts that the program's expert_reads name may have: slots by their bytes, and see native/experts."""

    n_slots: Mapping[int, int]
    passing_slots: int
    half_life_steps: float


@dataclass(frozen=True)
class Reading:
    """How weights are read. ``streaming`` is for a program with expert_reads.

    ``mode``: "kept" reads through the page cache and leaves pages there; "direct", "dropped" and "automatic", which is
    the faster of the two on this disk, leave none.
    """

    mode: str = "kept"
    streaming: Streaming | None = None


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
    workers together, for slices. ``direct``: whether reads go past the page cache.
    """

    wanted: int
    ready: int
    coming: int
    predicted: int
    unused: int
    reads: int
    read_bytes: int
    wait_seconds: float
    slot_bytes: int
    buffer_bytes: int
    direct: bool


def replay_experts(
    experts: np.ndarray[Any, np.dtype[np.int32]], n_experts: int, n_slots: int, half_life: float, passing_slots: int
) -> tuple[int, int]:
    """(ready, wanted) of a trace [tokens, layers, k] through the cache of experts, one token a step."""
    ready, wanted = _core.replay_experts(experts, n_experts, n_slots, half_life, passing_slots)
    return int(ready), int(wanted)


def physical_processors() -> list[int]:
    """Processors this process may use, one per physical core."""
    return list(_core.physical_processors())


def kernel_isa() -> str:
    """The instruction set that the kernels use. ResourceError when TENTH_ISA asks for one this CPU lacks."""
    return str(_core.kernel_isa())


def kernel_isas() -> list[str]:
    """Instruction sets this CPU can run, slowest first."""
    return list(_core.kernel_isas())


def kernel_formats() -> list[dict[str, Any]]:
    """Weight formats that have kernels: name, weights and bytes of a block, whether activations are rounded to int8."""
    return [
        {"format": name, "block_weights": weights, "block_bytes": n_bytes, "q8_input": q8_input}
        for name, _, weights, n_bytes, _, q8_input in _core.formats()
    ]


def read_bandwidth(threads: int, seconds: float, n_bytes: int) -> list[float]:
    """Bytes per second of each pass over a buffer of ``n_bytes`` by ``threads`` workers."""
    return list(_core.read_bandwidth(threads, seconds, n_bytes))


def int8_rate(threads: int, seconds: float, isa: str = "") -> list[float]:
    """Byte multiply-adds per second of each pass; ``isa`` "" is the one the kernels use."""
    return list(_core.int8_rate(threads, seconds, isa))


def kv_page_bytes(program: Program, kv_format: str) -> int:
    """Bytes of one page of keys and values over all layers."""
    layers = [(layer.n_kv_heads, layer.head_dim, layer.latent) for layer in program.state]
    return int(_core.page_bytes(layers, KV_FORMATS[kv_format]))


def partial_sums_bytes(program: Program, context_tokens: int) -> int:
    """Bytes of the sums that workers of one long sequence's attention share."""
    queries = {i.inputs[0].shape for i in program.instructions if i.op == "attention"}  # [n_heads, head_dim]
    return max((int(_core.partial_sums_bytes(n, dim, context_tokens)) for n, dim in queries), default=0)


def slot_bytes(program: Program) -> int:
    """Bytes that the recurrences of one sequence take."""
    return sum(-(-4 * _n_floats(recurrence) // 64) * 64 for recurrence in program.recurrences)


def _n_floats(recurrence: Recurrence) -> int:
    """How many numbers the native side needs room for: it works on groups of 16, so the last dimension is padded."""
    return math.prod(recurrence.shape[:-1]) * (-(-recurrence.shape[-1] // 16) * 16)


def panel_bytes(gguf_id: int, out_rows: int, columns: int) -> int:
    """Bytes of a matrix in memory, in panels of 16 rows; of an expert's, what its slot takes."""
    for _, number, block_weights, _, block_bytes, _ in _core.formats():
        if number == gguf_id:
            return int(-(-out_rows // 16) * (columns // block_weights) * block_bytes)
    raise AssertionError(f"no kernels for format number {gguf_id}")


def streamed_places(program: Program) -> dict[str, tuple[int, int]]:
    """(layer of experts, stage) of every weight that the program's expert_reads name, both counted from 0."""
    return {
        name: (number, stage)
        for number, layer in enumerate(expert_layers(program))
        for stage, names in enumerate(layer)
        for name in names
    }


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
        self.n_pages, self.context_tokens, self.n_slots = limits.n_pages, limits.context_tokens, limits.n_slots
        self.vocab_size = program.vocab_size
        self._places: dict[str, tuple[int, int]] = {}
        self._observers: list[Observer] = []
        try:
            self._plan = self._new_plan()
            self._load(matrices, vectors, reading or Reading(), progress, meanwhile)
        except MemoryError as error:
            raise ResourceError(
                "there is not enough memory for this model", "choose a smaller model or a smaller --context"
            ) from error

    # ---- building

    def _new_plan(self) -> _core.Plan:
        limits = self.limits
        try:
            return _core.Plan(
                limits.n_threads, limits.max_rows, limits.max_outputs, self.vocab_size, limits.context_tokens,
                limits.arena_bytes, limits.n_pages, KV_FORMATS[limits.kv_format], limits.n_slots,
            )
        except RuntimeError as error:  # std::system_error
            what = f"{limits.n_threads} workers cannot be started: {error}"
            raise ResourceError(what, "use fewer --threads") from error

    def _load(
        self, matrices: Mapping[str, MatrixSource], vectors: Mapping[str, F32], how: Reading,
        progress: Progress | None, meanwhile: Callable[[], None] | None,
    ) -> None:
        # A convolution [d, taps] is handed over as [taps, d], so that neighbours share a register.
        convolutions = {i.inputs[1].name for i in self.program.instructions if i.op == "short_conv"}
        for name, vector in vectors.items():
            flat = (vector.T if name in convolutions else vector).ravel()
            self._places[name] = VECTOR, self._plan.add_vector(np.ascontiguousarray(flat))
        streamed = streamed_places(self.program)
        # In file order: a cold disk is read once from front to back.
        resident = matrices.keys() - streamed.keys()
        names = sorted(resident, key=lambda name: (str(matrices[name].path), matrices[name].offset))
        with self._opened(matrices, how.mode) as places:
            for name in names:
                shape = self.program.weights[name].shape
                kind, add = (EXPERTS, self._plan.add_experts) if len(shape) == 3 else (MATRIX, self._plan.add_matrix)
                self._places[name] = kind, add(matrices[name].gguf_id, *places[name], *shape)
            for name, place in streamed.items():
                shape = self.program.weights[name].shape
                n_experts, rows, columns = shape
                add_streamed = partial(self._plan.add_streamed, matrices[name].gguf_id, *places[name])
                self._places[name] = EXPERTS, add_streamed(n_experts, rows, columns, *place)
            if how.streaming:
                slots = how.streaming
                self._plan.finish_store(dict(slots.n_slots), slots.passing_slots, slots.half_life_steps)
            with _Reading(self._plan) as reading:
                self._build()
                if meanwhile:
                    meanwhile()
                self._wait(reading, sum(matrices[name].n_bytes for name in names), progress)
        self._read_s = reading.seconds
        if reading.failure:
            number, what = reading.failure
            raise ModelFileError(
                f"tensor {names[number]} of {matrices[names[number]].path}: {what}",
                "the file is damaged, made wrongly or still being written: pull it again",
            )
        self._plan.close_files()

    @contextmanager
    def _opened(self, matrices: Mapping[str, MatrixSource], mode: str) -> Iterator[dict[str, tuple[int, int]]]:
        """(The plan's file, offset) of every matrix; one that has to be made lies in a file in memory.

        Raises ModelFileError.
        """
        files: dict[Path, int] = {}
        places: dict[str, tuple[int, int]] = {}
        with ExitStack() as stack:
            for name, source in matrices.items():
                if source.make:
                    made = stack.enter_context(open(os.memfd_create(name, os.MFD_CLOEXEC), "w+b"))
                    made.write(np.ascontiguousarray(source.make()).data)
                    made.flush()
                    places[name] = self._add_file(f"/proc/self/fd/{made.fileno()}", "kept"), 0
                    continue
                if source.path not in files:
                    files[source.path] = self._add_file(os.fspath(source.path), mode)
                places[name] = files[source.path], source.offset
            yield places

    def _add_file(self, path: str, mode: str) -> int:
        try:
            return int(self._plan.add_file(path, READ_MODES[mode]))
        except RuntimeError as error:
            raise ModelFileError(f"cannot read {error}") from None

    def _wait(self, reading: _Reading, n_bytes: int, progress: Progress | None) -> None:
        while not reading.is_over():
            if progress:
                progress("loading", self._plan.read_bytes, n_bytes)
        if progress:
            progress("loading", self._plan.read_bytes, n_bytes)

    def _build(self) -> None:
        for layer in self.program.state:
            self._plan.add_layer(layer.layer, layer.n_kv_heads, layer.head_dim, layer.latent)
        for recurrence in self.program.recurrences:
            self._plan.add_recurrence(_n_floats(recurrence))
        guesses = guessing(self.program)
        for instruction in self.program.instructions:
            self._plan.add_instruction(
                instruction.op, self._operands(instruction.inputs), self._operands(instruction.outputs),
                _attributes(instruction), instruction in guesses,
            )
        self._plan.finish(self._operand(self.program.output))

    def _operands(self, values: Iterable[Value]) -> list[tuple[int, int, int, int, int, int]]:
        return [self._operand(value) for value in values]

    def _operand(self, value: Value) -> tuple[int, int, int, int, int, int]:
        """(kind, place, numbers per row, row count, dtype, last dimension): native/plan/plan.h, Operand."""
        rows = int(value.rows == "outputs")
        if value.kind == "weight":
            kind, place = self._places[value.name]
            return kind, place, math.prod(value.shape), 0, 0, value.shape[-1]
        if value.kind == "input":
            return (TOKENS if value.name == "tokens" else POSITIONS), 0, 1, rows, 0, 1
        return ARENA, value.storage.offset, math.prod(value.shape), rows, DTYPES[value.dtype], value.shape[-1]

    # ---- running

    def step(self, batch: Batch) -> StepResult:
        """Compute one step. Without ``batch.sampling`` the result is empty and ``logits()`` has what was computed."""
        self._plan.step(batch.tokens, batch.positions, batch.row_starts, batch.pages, batch.outputs, batch.slots)
        for observer in self._observers:
            observer.after_step(len(batch.tokens))
        if batch.sampling is None or not len(batch.outputs):
            return StepResult(np.zeros(0, np.int32), np.zeros(0, np.float32), [], [])
        tokens, logprobs, top_ids, top_logprobs = self._plan.sample(batch.sampling.packed())
        n_top = batch.sampling.n_top
        return StepResult(
            tokens, logprobs, [row[:n] for row, n in zip(top_ids, n_top, strict=True)],
            [row[:n] for row, n in zip(top_logprobs, n_top, strict=True)],
        )

    def copy_slot(self, source: int, target: int) -> None:
        """Make what is kept in one slot a copy of what is kept in another."""
        self._plan.copy_slot(source, target)

    def logits(self) -> F32:
        """The logits [m, vocab] of the last step's output rows, copied."""
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
        return LoadCosts(self._plan.read_bytes, self._read_s, *self._plan.read_seconds())

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


class _Reading:
    """All weights of a plan being read by threads of their own, until the end of the ``with``."""

    def __init__(self, plan: _core.Plan):
        self.failure: tuple[int, str] | None = None  # number of the matrix and why
        self.seconds = 0.0
        self._plan = plan
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="tenth-weights")

    def __enter__(self) -> _Reading:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind:
            self._plan.stop_reading()
        self._thread.join()
        if self._error and not kind:
            raise self._error

    def is_over(self) -> bool:
        """Waits a moment for the end, no longer: whoever asks can be interrupted."""
        self._thread.join(PROGRESS_S)
        return not self._thread.is_alive()

    def _read(self) -> None:
        # This thread is one of the workers, and ends with the reading. What the caller does meanwhile cannot be divided
        # and takes longer than one worker's share, so it goes first: loading took a sixth less.
        os.setpriority(os.PRIO_PROCESS, 0, min(os.getpriority(os.PRIO_PROCESS, 0) + 10, 19))  # 0: this thread
        started = time.perf_counter()
        try:
            self.failure = self._plan.read_weights()
            self.seconds = time.perf_counter() - started
        except BaseException as error:  # raised in the thread that waits
            self._error = error


def _attributes(instruction: Instruction) -> dict[str, Any]:
    """The attrs of an instruction under the names of native/plan/plan.h, Attributes."""
    attributes: dict[str, Any] = dict(instruction.attrs)
    if instruction.op == "rope":
        attributes["half_pairing"] = attributes.pop("pairing") == "half"
        attributes["head_dim"] = instruction.inputs[0].shape[1]
    if instruction.op == "l2_norm":
        attributes["head_dim"] = instruction.inputs[0].shape[-1]
    if instruction.op == "delta_net":
        attributes["n_heads"] = instruction.inputs[0].shape[0]
    if instruction.op == "route":
        attributes["score"] = SCORES[attributes["score"]]
        attributes["group_top2"] = attributes.pop("group_score") == "top2"
    for name in ("biases", "inv_freq", "sizes"):
        if name in attributes:
            attributes[name] = list(attributes[name])
    return attributes


def check_kv_format(program: Program, kv_format: str) -> None:
    """Refuse a KV format that the model's heads do not fit. Raises RequestError."""
    for layer in program.state:
        if kv_format == "q8_0" and layer.head_dim % 32:
            raise RequestError(
                f"kv format q8_0 needs heads of a multiple of 32, this model's have {layer.head_dim}",
                "use --kv f16",
            )
