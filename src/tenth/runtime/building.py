"""Builds a native plan: the weights, which threads of their own read, and the instructions of a program."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenth import _core
from tenth.batch import F32
from tenth.errors import ModelFileError, ResourceError
from tenth.program.streaming import expert_layers, guessing
from tenth.program.values import Instruction, Program, Value
from tenth.runtime.kernels import KV_FORMATS, n_floats
from tenth.runtime.levels import key_levels

ARENA, MATRIX, VECTOR, TOKENS, POSITIONS, EXPERTS, SOURCES = range(7)  # native/plan/instruction.h, Operand::Kind
INPUTS = {"tokens": TOKENS, "positions": POSITIONS, "sources": SOURCES}
ROWS = {"tokens": 0, "outputs": 1, "generated": 2}  # native/plan/instruction.h, Rows
DTYPES = {"f32": 0, "q8": 1, "i32": 2, "bf16": 3}  # native/kernels/table.h, Dtype
SCORES = {"softmax": 0, "sigmoid": 1, "softmax_selected": 2}  # Score
READ_MODES = {"automatic": 0, "direct": 1, "dropped": 2, "kept": 3}  # native/base/model_file.h, ReadMode
Progress = Callable[[str, int, int], None]
PROGRESS_S = 0.05  # between two reports of how much is read


@dataclass(frozen=True)
class MatrixSource:
    """Where the rows of a weight lie: ``n_bytes`` from byte ``offset`` of ``path``, in GGUF type ``gguf_id``.

    A matrix, or the matrices of all experts, each ``expert_bytes`` after the one before. ``make``: for a matrix that is
    not in the file as such; gives its rows as ``gguf_id`` has them.
    """

    path: Path
    offset: int
    n_bytes: int
    gguf_id: int
    make: Callable[[], NDArray[Any]] | None = None
    expert_bytes: int = 0


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
    n_spare_slots: int = 0  # of these, for the states behind guesses


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


def streamed_places(program: Program) -> dict[str, tuple[int, int]]:
    """(layer of experts, stage) of every weight that the program's expert_reads name, both counted from 0."""
    return {
        name: (number, stage)
        for number, layer in enumerate(expert_layers(program))
        for stage, names in enumerate(layer)
        for name in names
    }


def _unreadable(name: str, source: MatrixSource, what: str) -> ModelFileError:
    hint = "the file is damaged, made wrongly or still being written: pull it again"
    return ModelFileError(f"tensor {name} of {source.path}: {what}", hint)


class PlanBuilder:
    """A native plan for a program: its weights, then its instructions."""

    def __init__(self, program: Program, limits: Limits):
        self.plan = _new_plan(program, limits)
        self._program = program
        self._rounds_keys = limits.kv_format == "q8_0"
        self._levels: dict[int, F32] = {}
        self._places: dict[str, tuple[int, int]] = {}  # of a weight: Operand::Kind and number

    def load(
        self, matrices: Mapping[str, MatrixSource], vectors: Mapping[str, F32], how: Reading,
        progress: Progress | None, meanwhile: Callable[[], None] | None,
    ) -> None:
        """Add everything and read the weights. Raises as Runtime does."""
        self._add_vectors(vectors)
        self._levels = key_levels(self._program, vectors) if self._rounds_keys else {}
        streamed = streamed_places(self._program)
        # In file order: a cold disk is read once from front to back. What has to be made is made and packed before.
        resident = matrices.keys() - streamed.keys()
        order = {name: (not source.make, str(source.path), source.offset) for name, source in matrices.items()}
        names = sorted(resident, key=order.__getitem__)
        for name in names:
            if make := matrices[name].make:
                self._add_made(name, matrices[name], make)
        places = self._opened({name: source for name, source in matrices.items() if not source.make}, how.mode)
        for name in names:
            if name in places:
                self._add_resident(name, matrices[name], places[name])
        for name, place in streamed.items():
            self._add_streamed(name, matrices[name], places[name], place)
        if how.streaming:
            slots = how.streaming
            self.plan.finish_store(dict(slots.n_slots), slots.passing_slots, slots.half_life_steps)
        self._add_instructions()
        if self.plan.spans_nodes:
            self.plan.place_weights()
        processor = self.plan.first_processor if meanwhile else -1
        if processor >= 0:
            self.plan.hold_first()
        with _WeightThread(self.plan) as thread:
            if meanwhile:
                with _on_processor(processor):
                    meanwhile()
            self.plan.let_first()
            thread.wait(sum(matrices[name].n_bytes for name in names), progress)
        if thread.failure:
            number, what = thread.failure
            raise _unreadable(names[number], matrices[names[number]], what)
        self.plan.close_files()

    def _add_made(self, name: str, source: MatrixSource, make: Callable[[], NDArray[Any]]) -> None:
        """Make a matrix in a file in memory and pack it; nothing of the file is left when this returns."""
        with open(os.memfd_create(name, os.MFD_CLOEXEC), "w+b") as made:
            made.write(np.ascontiguousarray(make()).data)
            made.flush()
            self._add_resident(name, source, (self._add_file(f"/proc/self/fd/{made.fileno()}", "kept"), 0))
            failure = self.plan.read_weights()
            made.truncate(0)  # the plan has it open until all weights are read
        if failure:
            raise _unreadable(name, source, failure[1])

    def _add_vectors(self, vectors: Mapping[str, F32]) -> None:
        # A convolution [d, taps] is handed over as [taps, d], so that neighbours share a register.
        convolutions = {i.inputs[1].name for i in self._program.instructions if i.op == "short_conv"}
        for name, vector in vectors.items():
            flat = (vector.T if name in convolutions else vector).ravel()
            self._places[name] = VECTOR, self.plan.add_vector(np.ascontiguousarray(flat))

    def _add_resident(self, name: str, source: MatrixSource, place: tuple[int, int]) -> None:
        shape = self._program.weights[name].shape
        if len(shape) == 3:
            number = self.plan.add_experts(source.gguf_id, *place, source.expert_bytes, *shape)
            self._places[name] = EXPERTS, number
        else:
            self._places[name] = MATRIX, self.plan.add_matrix(source.gguf_id, *place, *shape)

    def _add_streamed(
        self, name: str, source: MatrixSource, place: tuple[int, int], layer: tuple[int, int]
    ) -> None:
        n_experts, rows, columns = self._program.weights[name].shape
        add = partial(self.plan.add_streamed, source.gguf_id, *place, source.expert_bytes)
        self._places[name] = EXPERTS, add(n_experts, rows, columns, *layer)

    def _opened(self, matrices: Mapping[str, MatrixSource], mode: str) -> dict[str, tuple[int, int]]:
        """(The plan's file, offset) of every matrix. Raises ModelFileError."""
        files: dict[Path, int] = {}
        places: dict[str, tuple[int, int]] = {}
        for name, source in matrices.items():
            if source.path not in files:
                files[source.path] = self._add_file(os.fspath(source.path), mode)
            places[name] = files[source.path], source.offset
        return places

    def _add_file(self, path: str, mode: str) -> int:
        try:
            return int(self.plan.add_file(path, READ_MODES[mode]))
        except RuntimeError as error:
            raise ModelFileError(f"cannot read {error}") from None

    def _add_instructions(self) -> None:
        for layer in self._program.state:
            levels = self._levels.get(layer.layer, np.zeros(0, np.float32))
            self.plan.add_layer(layer.layer, layer.n_kv_heads, layer.head_dim, layer.latent, levels)
        for recurrence in self._program.recurrences:
            self.plan.add_recurrence(n_floats(recurrence))
        if self._program.hidden:
            self.plan.set_hidden(self._program.hidden)
        guesses, drafter = guessing(self._program), self._program.drafter
        for instruction in self._program.every_instruction:
            self.plan.add_instruction(
                instruction.op, self._operands(instruction.inputs), self._operands(instruction.outputs),
                _attributes(instruction), instruction in guesses,
                drafter is not None and instruction in drafter.instructions,
            )
        self.plan.finish(self._operand(self._program.output), self._operand(drafter.output) if drafter else None)

    def _operands(self, values: Iterable[Value]) -> list[tuple[int, int, int, int, int, int]]:
        return [self._operand(value) for value in values]

    def _operand(self, value: Value) -> tuple[int, int, int, int, int, int]:
        """(kind, place, numbers per row, row count, dtype, last dimension): native/plan/instruction.h, Operand."""
        rows = ROWS[value.rows or "tokens"]
        if value.kind == "weight":
            kind, place = self._places[value.name]
            return kind, place, math.prod(value.shape), 0, 0, value.shape[-1]
        if value.kind == "input":
            return INPUTS[value.name], 0, 1, rows, 0, 1
        return ARENA, value.storage.offset, math.prod(value.shape), rows, DTYPES[value.dtype], value.shape[-1]

def _new_plan(program: Program, limits: Limits) -> _core.Plan:
    try:
        return _core.Plan(
            limits.n_threads, limits.max_rows, limits.max_outputs, program.vocab_size, limits.context_tokens,
            limits.arena_bytes, limits.n_pages, KV_FORMATS[limits.kv_format], limits.n_slots,
        )
    except RuntimeError as error:  # std::system_error
        what = f"{limits.n_threads} workers cannot be started: {error}"
        raise ResourceError(what, "use fewer --threads") from error


@contextmanager
def _on_processor(processor: int) -> Iterator[None]:
    """This thread where worker 0 is pinned, which waits meanwhile; -1: where it was.

    The kernel may take a tenth of a second to move it there by itself; until then another worker has half of its time.
    """
    before = os.sched_getaffinity(0)
    if processor not in before:
        yield
        return
    try:
        with suppress(OSError):  # best effort, as the pool's own: elsewhere it takes longer
            os.sched_setaffinity(0, {processor})
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)


class _WeightThread:
    """All weights of a plan being read by threads of their own, until the end of the ``with``."""

    def __init__(self, plan: _core.Plan):
        self.failure: tuple[int, str] | None = None  # number of the matrix, and why
        self._plan = plan
        self._error: BaseException | None = None
        self._over = threading.Event()  # waited for before join, which Ctrl-C makes take the thread for ended
        self._thread = threading.Thread(target=self._read, name="tenth-weights")

    def __enter__(self) -> _WeightThread:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind:
            self._plan.stop_reading()
        self._over.wait()
        self._thread.join()
        if self._error and not kind:
            raise self._error

    def wait(self, n_bytes: int, progress: Progress | None) -> None:
        """Wait for the end, a moment at a time, so that it can be interrupted; tells how much of n_bytes is read."""
        is_over = False
        while not is_over:
            is_over = self._over.wait(PROGRESS_S)
            if progress:
                progress("loading", self._plan.read_bytes, n_bytes)

    def _read(self) -> None:
        try:
            self.failure = self._plan.read_weights()
        except BaseException as error:  # raised in the thread that waits
            self._error = error
        finally:
            self._over.set()


def _attributes(instruction: Instruction) -> dict[str, Any]:
    """The attrs of an instruction under the names of native/plan/instruction.h, Attributes."""
    attributes: dict[str, Any] = dict(instruction.attrs)
    if "pairing" in attributes:
        attributes["half_pairing"] = attributes.pop("pairing") == "half"
    if instruction.op in ("rope", "l2_norm"):
        attributes["head_dim"] = instruction.inputs[0].shape[-1]
    if instruction.op == "expanded_attention":
        del attributes["keys_dtype"], attributes["values_dtype"]  # as the formats of its matrices say
    if instruction.op == "hidden_load":
        del attributes["width"]  # that of its result
    if instruction.op == "delta_net":
        attributes["n_heads"] = instruction.inputs[0].shape[0]
    if instruction.op in ("route", "route_lossy"):
        attributes["score"] = SCORES[attributes["score"]]
        attributes["group_top2"] = attributes.pop("group_score") == "top2"
    for name in ("biases", "inv_freq", "sizes"):
        if name in attributes:
            attributes[name] = list(attributes[name])
    return attributes
