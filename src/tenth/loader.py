"""From a model file to a runtime: the only place where formats, models and memory meet.

Header -> architecture -> program -> passes -> memory plan -> native plan with weights.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenth.batch import F32, pages_for
from tenth.config import CHUNK_TOKENS, EngineConfig
from tenth.errors import ModelFileError, RequestError
from tenth.models import build
from tenth.placing import expert_weights, memory_needs, n_pages, reading_for
from tenth.program import memory
from tenth.program.expanding import expand_prompts
from tenth.program.passes import kept_as_floats, optimise
from tenth.program.streaming import Lossy, stream_experts
from tenth.program.tracing import trace_experts
from tenth.program.values import Derived, Dtype, Program, Sliced, Transposed, Value
from tenth.program.values import Task as Task
from tenth.runtime import (
    Limits,
    MatrixSource,
    Progress,
    Runtime,
    check_kv_format,
    physical_processors,
)
from tenth.tracing import Recorder, trace_path
from tenth.weights.budget import GRANTS, Budget, free_bytes, memory_budget
from tenth.weights.decode import encode_q8_0
from tenth.weights.formats import FORMATS
from tenth.weights.gguf import (
    ModelFile,
    TensorInfo,
    read_tensor,
    read_transposed,
    require_supported,
    require_unchanged,
)
from tenth.weights.placement import Needs, Placement, place

DEFAULT_CONTEXT_TOKENS = 8192
LONG_CHUNKS, SLOTS_FOR_CHUNK = (2048, 1024, 512), 1 / 16  # where experts stream; what share of their slots it may cost
ALWAYS_STREAM = "TENTH_STREAM"  # set: experts stream although they fit, to measure what that costs
OUTPUT_ROWS = 32  # rows that can have logits in one step: enough for a batch of sequences, small beside a chunk
LEAST_CHECKPOINTS = 2  # copies of what recurrent layers keep: where the prompt ended, and a page of the answer
SPARE_SLOTS = 3  # of what recurrent layers keep, behind so many guesses in a step until it is known which are right
READS: dict[str, Dtype] = {"F32": "f32", "F16": "f32", "BF16": "bf16"}  # what products read; all others q8


@dataclass(frozen=True)
class Loaded:
    """A model ready to run, and what it was made from."""

    runtime: Runtime
    header: ModelFile
    program: Program
    config: EngineConfig
    placement: Placement

    @property
    def stored(self) -> dict[str, TensorInfo]:
        """Every weight of the program as it is kept."""
        return stored_tensors(self.header, self.program)


def open_runtime(
    header: ModelFile, config: EngineConfig, progress: Progress | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Loaded:
    """Load the model of a header. Raises ModelFileError, RequestError (settings) or ResourceError (memory).

    ``meanwhile``: work for this thread while others read the weights; what it raises is raised here.
    """
    budget = memory_budget(config.memory_bytes)
    layout, placement = lay_out_within(header, config, budget)
    if budget.is_given:
        placement = replace(placement, free_bytes=free_bytes())
    used = layout.stored
    config = replace(config, chunk_tokens=config.chunk_tokens or placement.needs.chunk_tokens)
    program = running_program(layout.program, placement, config)
    experts, path = expert_weights(program), trace_path()
    if experts and (path or config.note_experts):
        program = trace_experts(program, experts)
    limits = plan_limits(program, replace(config, context_tokens=placement.needs.context_tokens))
    floats = kept_as_floats(program)
    vectors = {name: read_vector(used[name]) for name in floats}
    matrices = {name: matrix_source(info, header, program) for name, info in used.items() if name not in floats}
    reading = reading_for(placement, config, budget)
    runtime = Runtime(program, matrices, vectors, limits, progress, meanwhile, reading)
    if experts and (path or config.note_experts):
        n_experts = max(program.weights[name].shape[0] for name in experts)
        if path:
            runtime.observe(Recorder(path, n_experts, runtime.take_trace))
        else:
            n_layers = sum(instruction.op == "expert_trace" for instruction in program.instructions)
            runtime.noted_experts = (n_layers, n_experts)
    runtime.observe(_Granted(runtime, placement.granted_bytes))
    require_unchanged(header)  # the header's checks hold for the weights only if they are of the same file
    return Loaded(runtime, header, program, config, placement)


class _Granted:
    """Notes what a runtime was granted, from now until it is closed."""

    def __init__(self, runtime: Runtime, n_bytes: int) -> None:
        self._runtime = weakref.ref(runtime)
        GRANTS.add(runtime, n_bytes)

    def after_step(self, n_tokens: int) -> None:
        """See Observer."""

    def close(self) -> None:
        """See Observer."""
        runtime = self._runtime()
        if runtime is not None:
            GRANTS.remove(runtime)


@dataclass(frozen=True)
class Layout:
    """A model before memory is granted: its program, weights as they are kept, row counts, and what it needs."""

    program: Program
    stored: dict[str, TensorInfo]
    limits: Limits
    needs: Needs


def lay_out_within(header: ModelFile, config: EngineConfig, budget: Budget) -> tuple[Layout, Placement]:
    """How a model is laid out and placed within a budget: with its drafter, if it has one that costs nothing else.

    A drafter must not take memory from experts or from the context. Raises as ``lay_out`` and ``place_with_chunk`` do.
    """
    layout = lay_out(header, config)
    placement = place_with_chunk(layout, config, budget.n_bytes, budget.source)
    if not config.speculate or placement.streams or not any(".nextn." in name for name in header.tensors):
        return layout, placement
    more, needs = lay_out(header, config, drafts=True), placement.needs
    free = budget.n_bytes - needs.fixed - needs.experts
    if more.program.drafter and more.needs.fixed - layout.needs.fixed <= free:
        placed = place_with_chunk(more, config, budget.n_bytes, budget.source)
        if not placed.streams and placed.needs.context_tokens == needs.context_tokens:
            return more, placed
    return layout, placement


def lay_out(header: ModelFile, config: EngineConfig, drafts: bool = False) -> Layout:
    """What is known of a model from its header alone. Raises ModelFileError, or RequestError for the settings.

    ``drafts``: with its drafter, if it has one.
    """
    program = optimised_program(header, drafts, config.prefill)
    used = stored_tensors(header, program)
    require_supported({**used, **{how.source: header.tensors[how.source] for how in program.derived.values()}})
    limits = plan_limits(program, config)
    is_asked = bool(config.context_tokens or config.kv_tokens)
    return Layout(program, used, limits, memory_needs(used, program, limits, may_shorten=not is_asked))


def running_program(program: Program, placement: Placement, config: EngineConfig) -> Program:
    """The program as it runs in a placement: with instructions that read experts when they are streamed."""
    if not placement.streams:
        return program
    lossy = Lossy(config.lossy_drop, config.lossy_prefer)
    return stream_experts(program, expert_weights(program), config.predict_experts, lossy)


def place_with_chunk(layout: Layout, config: EngineConfig, budget_bytes: int, source: str) -> Placement:
    """The placement within a budget; its needs name the chunk. Raises ResourceError when the model does not fit.

    Every chunk of a prompt reads nearly all experts that are not in memory, so where they stream chunks are as long as
    their workspace allows without taking much from the slots.
    """

    is_asked = bool(config.context_tokens or config.kv_tokens)

    def needs_with(chunk: int) -> Needs:
        limits = plan_limits(layout.program, replace(config, chunk_tokens=chunk))
        return memory_needs(layout.stored, layout.program, limits, may_shorten=not is_asked)

    def placed(needs: Needs) -> Placement:
        return place(needs, budget_bytes, source, ALWAYS_STREAM in os.environ)

    placement = placed(layout.needs)
    if not config.chunk_tokens and placement.streams:
        most = placement.needs.workspace + SLOTS_FOR_CHUNK * placement.slot_bytes
        for longer in LONG_CHUNKS:
            needs = needs_with(longer)
            if longer // 2 < needs.context_tokens and needs.workspace <= most and needs.least <= budget_bytes:
                return placed(needs)
    return placement


def optimised_program(header: ModelFile, drafts: bool = False, prefill: str = "absorbed") -> Program:
    """The program of a model file, after all passes. Raises ModelFileError for what is not supported."""
    architecture = header.metadata.architecture
    shapes = {name: info.shape for name, info in header.tensors.items()}
    try:
        program = build(architecture, header.metadata, shapes, drafts)
    except ModelFileError as error:
        if not drafts:
            raise
        what = f"the block that guesses tokens: {error.message}"
        raise ModelFileError(what, "--no-speculate does without it") from error
    check_vocabulary(header, program)
    if prefill == "expanded":
        program = expand_prompts(program, read_by_products(stored_tensors(header, program)))
    return optimise(program, read_by_products(stored_tensors(header, program)))


def read_by_products(tensors: Mapping[str, TensorInfo]) -> dict[str, Dtype]:
    """What a product with each of these weights reads."""
    return {name: READS.get(info.format, "q8") for name, info in tensors.items()}


def stored_tensors(header: ModelFile, program: Program) -> dict[str, TensorInfo]:
    """Every weight of the program as it will be kept. One that is turned lies nowhere: its place is its source's."""
    return {name: _stored(value, header, program.derived.get(name)) for name, value in program.weights.items()}


def _stored(value: Value, header: ModelFile, how: Derived | None) -> TensorInfo:
    if how is None:
        return header.tensors[value.name]
    source, n_rows = header.tensors[how.source], prod(value.shape[:-1])
    if isinstance(how, Sliced):
        offset = source.offset + how.first * source.row_bytes
        return replace(source, name=value.name, shape=value.shape, offset=offset, n_bytes=n_rows * source.row_bytes)
    kind = FORMATS["Q8_0" if how.rounds else "F32"]
    n_bytes = prod(value.shape) // kind.block_weights * kind.block_bytes
    return replace(source, name=value.name, shape=value.shape, format=kind.name, n_bytes=n_bytes)


def check_vocabulary(header: ModelFile, program: Program) -> None:
    """ModelFileError when the tokenizer, if there is one, has more or fewer tokens than the model has rows for."""
    key = "tokenizer.ggml.tokens"
    if header.metadata.has(key) and header.metadata.count(key) != program.vocab_size:
        raise ModelFileError(
            f"{header.paths[0]}: {key} has {header.metadata.count(key)} tokens, but token_embd.weight has "
            f"{program.vocab_size} rows",
            "the file's metadata and its tensors contradict each other; try another copy of the model",
        )


def read_vector(info: TensorInfo) -> F32:
    """A norm, a bias, factors …, float32 in the shape of the file. ModelFileError for numbers that cannot be."""
    vector = read_tensor(info)
    wrong, expected = ~np.isfinite(vector), "a finite number"
    if info.name == "rope_freqs.weight":  # divisors
        wrong, expected = wrong | (vector <= 0), "a positive number"
    elif info.name.endswith(".ssm_a"):  # a state would grow without end
        wrong, expected = wrong | (vector > 0), "a number that is not positive"
    if wrong.any():
        at = int(wrong.argmax())
        raise ModelFileError(
            f"{info.path}: tensor {info.name}: number {at} is {vector.flat[at]}, expected {expected}",
            "the file is damaged or was made wrongly; pull it again, or choose another copy of the model",
        )
    return vector


def plan_limits(program: Program, config: EngineConfig) -> Limits:
    """Row counts, context, pages and arena for a program; gives every buffer of the program its offset."""
    check_kv_format(program, config.kv_format)
    context = config.context_tokens or min(program.context_tokens or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)
    if program.context_tokens and context > program.context_tokens:
        raise RequestError(
            f"setting context_tokens is {context}, the model was trained for {program.context_tokens}",
            f"use --context {program.context_tokens} or less",
        )
    whole = context if program.takes_whole_sequences else 0
    max_outputs = max(config.max_sequences, OUTPUT_ROWS)
    max_rows = max(config.chunk_tokens or CHUNK_TOKENS, max_outputs, whole)
    max_outputs = max_rows if program.row == "every" else max_outputs
    # Where nothing is kept, pages only count: each text of a step has one that is not full.
    kept = n_pages(config.kv_tokens or context) if program.state else pages_for(max_rows) + max_outputs
    arena_bytes = memory.plan(program, {"tokens": max_rows, "outputs": max_outputs})
    spare = SPARE_SLOTS if program.recurrences and config.speculate else 0
    return Limits(
        n_threads=config.threads or len(physical_processors()), max_rows=max_rows, max_outputs=max_outputs,
        context_tokens=context, n_pages=kept, kv_format=config.kv_format,
        arena_bytes=arena_bytes,
        n_slots=config.max_sequences + max(LEAST_CHECKPOINTS, config.max_sequences // 2) + spare
        if program.recurrences else 0, n_spare_slots=spare,
    )


def _made(source: TensorInfo, how: Transposed) -> NDArray[Any]:
    turned = read_transposed(source, how.n_heads, how.first, how.n_rows)
    return encode_q8_0(turned) if how.rounds else turned


def matrix_source(info: TensorInfo, header: ModelFile, program: Program) -> MatrixSource:
    """Where a weight lies, and how one that lies nowhere is made."""
    how, make, expert_bytes = program.derived.get(info.name), None, prod(info.shape[-2:-1]) * info.row_bytes
    if isinstance(how, Transposed):
        make = partial(_made, header.tensors[how.source], how)
    if isinstance(how, Sliced):
        expert_bytes = header.tensors[how.source].shape[1] * info.row_bytes
    return MatrixSource(info.path, info.offset, info.n_bytes, FORMATS[info.format].gguf_id, make, expert_bytes)
