"""From a model file to a runtime: the only place where formats, models and memory meet.

Header -> architecture -> program -> passes -> memory plan -> native plan with weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np

from tenth.batch import F32, pages_for
from tenth.config import CHUNK_TOKENS, EngineConfig
from tenth.errors import ModelFileError, RequestError
from tenth.models import build
from tenth.placing import expert_weights, memory_needs, reading_for
from tenth.program import memory
from tenth.program.passes import kept_as_floats, optimise
from tenth.program.streaming import stream_experts
from tenth.program.tracing import trace_experts
from tenth.program.values import Program
from tenth.runtime import (
    Limits,
    MatrixSource,
    Progress,
    Runtime,
    check_kv_format,
    physical_processors,
)
from tenth.tracing import Recorder, trace_path
from tenth.weights.budget import Budget, memory_budget
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
FLOAT_FORMATS = frozenset({"F32", "F16", "BF16"})  # their products read float32 activations, all others q8


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
    program = optimised_program(header)
    experts, path = expert_weights(program), trace_path()
    if path and experts:
        program = trace_experts(program, experts)
    used = stored_tensors(header, program)
    require_supported({**used, **{how.source: header.tensors[how.source] for how in program.derived.values()}})
    budget = memory_budget(config.memory_bytes)
    config, placement = place_with_chunk(program, used, config, budget)
    limits = plan_limits(program, config)
    if placement.streams:
        program = stream_experts(program, experts, config.predict_experts)
        limits = plan_limits(program, config)
    floats = kept_as_floats(program)
    vectors = {name: read_vector(used[name]) for name in floats}
    matrices = {name: _source(info, header, program) for name, info in used.items() if name not in floats}
    reading = reading_for(placement, config, budget)
    runtime = Runtime(program, matrices, vectors, limits, progress, meanwhile, reading)
    if path and experts:
        runtime.observe(Recorder(path, max(program.weights[name].shape[0] for name in experts), runtime.take_trace))
    require_unchanged(header)  # the header's checks hold for the weights only if they are of the same file
    return Loaded(runtime, header, program, config, placement)


def place_with_chunk(
    program: Program, used: dict[str, TensorInfo], config: EngineConfig, budget: Budget
) -> tuple[EngineConfig, Placement]:
    """The placement, and the settings with the chunk decided. Raises ResourceError when the model does not fit.

    Every chunk of a prompt reads nearly all experts that are not in memory, so where they stream chunks are as long as
    their workspace allows without taking much from the slots.
    """

    def needs_with(chunk: int) -> Needs:
        return memory_needs(used, program, plan_limits(program, replace(config, chunk_tokens=chunk)))

    def placed(needs: Needs) -> Placement:
        return place(needs, budget.n_bytes, budget.source, ALWAYS_STREAM in os.environ)

    chunk = config.chunk_tokens or CHUNK_TOKENS
    placement = placed(needs_with(chunk))
    if not config.chunk_tokens and placement.streams:
        most = placement.needs.workspace + SLOTS_FOR_CHUNK * placement.slot_bytes
        for longer in LONG_CHUNKS:
            needs = needs_with(longer)
            if longer // 2 < needs.context_tokens and needs.workspace <= most and needs.least <= budget.n_bytes:
                chunk, placement = longer, placed(needs)
                break
    return replace(config, chunk_tokens=chunk), placement


def optimised_program(header: ModelFile) -> Program:
    """The program of a model file, after all passes. Raises ModelFileError for what is not supported."""
    architecture = header.metadata.architecture
    program = build(architecture, header.metadata, {name: info.shape for name, info in header.tensors.items()})
    check_vocabulary(header, program)
    quantised = {name for name, info in header.tensors.items() if info.format not in FLOAT_FORMATS}
    return optimise(program, quantised)


def stored_tensors(header: ModelFile, program: Program) -> dict[str, TensorInfo]:
    """Every weight of the program as it will be kept. A derived one lies nowhere: its place is that of its source."""
    derived = {
        name: replace(
            header.tensors[how.source], name=name, shape=program.weights[name].shape, format="F32",
            n_bytes=4 * prod(program.weights[name].shape),
        )
        for name, how in program.derived.items()
    }  # fmt: skip
    return {name: derived.get(name) or header.tensors[name] for name in program.weights}


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
    max_outputs = max(config.max_sequences, OUTPUT_ROWS)
    max_rows = max(config.chunk_tokens or CHUNK_TOKENS, max_outputs)
    arena_bytes = memory.plan(program, {"tokens": max_rows, "outputs": max_outputs})
    return Limits(
        n_threads=config.threads or len(physical_processors()), max_rows=max_rows, max_outputs=max_outputs,
        context_tokens=context, n_pages=pages_for(config.kv_tokens or context) + 1, kv_format=config.kv_format,
        arena_bytes=arena_bytes,
        n_slots=config.max_sequences + max(LEAST_CHECKPOINTS, config.max_sequences // 2) if program.recurrences else 0,
    )


def _source(info: TensorInfo, header: ModelFile, program: Program) -> MatrixSource:
    how, make = program.derived.get(info.name), None
    if how:
        source = header.tensors[how.source]
        make = partial(read_transposed, source, how.n_heads, how.first, how.n_rows)
    return MatrixSource(info.path, info.offset, info.n_bytes, FORMATS[info.format].gguf_id, make)
