"""What a model needs in memory and how its weights are read then: a program's names joined with a file's sizes.

The arithmetic of the budget is in ``weights/placement.py``; this only fills in the numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from tenth.batch import pages_for
from tenth.config import EngineConfig
from tenth.program.passes import kept_as_floats
from tenth.program.streaming import expert_layers, stream_experts
from tenth.program.values import Program, Transposed
from tenth.runtime import (
    Limits,
    Reading,
    Streaming,
    expanded_scratch_bytes,
    kv_page_bytes,
    panel_bytes,
    partial_sums_bytes,
    slot_bytes,
)
from tenth.weights.budget import GRANTS, Budget
from tenth.weights.formats import FORMATS
from tenth.weights.gguf import TensorInfo
from tenth.weights.placement import LEAST_CONTEXT, Needs, Placement

# What memory beyond the known buffers goes for, measured on Linux with glibc, with a cold page cache: what Python still
# grows by when a model is opened; the files of its libraries, which are read ahead (75 MB); a tokenizer, per token of
# its vocabulary (56 MB for 152,000); a worker's stack and heap; sampling, per token; and one reader of experts.
PYTHON_GROWS_BYTES, LIBRARY_FILES_BYTES, TOKEN_BYTES = 48 << 20, 80 << 20, 400
THREAD_BYTES, SAMPLING_BYTES = 2 << 20, 16
READERS, READER_BYTES = 8, 5 << 19
# After so many steps a use of an expert counts half. By replay (docs/experts.md): longer is up to 4 points better where
# some experts are used more than others for long, and up to 35 worse where they come and go.
HALF_LIFE_STEPS = 2.0
MAKING_COPIES = 2  # of a matrix that is made: its heads and the whole, then the whole and the file that it is read from


def memory_needs(
    stored: Mapping[str, TensorInfo], program: Program, limits: Limits, may_shorten: bool = False
) -> Needs:
    """What a model needs in memory: its weights as they are kept, keys and values, workspace, and Python as it is.

    ``may_shorten``: whether a shorter context may be granted.
    """
    experts, token_bytes = expert_weights(program), 0
    slices: Counter[int] = Counter()
    layer_slices: Counter[int] = Counter()
    streamed = stream_experts(program, experts) if experts else program
    reads = [i for i in streamed.instructions if i.op == "expert_read"]
    for layer, read in zip(expert_layers(streamed), reads, strict=True):
        k = read.inputs[0].shape[0]  # experts of one row
        of_layer: Counter[int] = Counter()
        for name in (name for stage in layer for name in stage):
            info = stored[name]
            slices[_slot_bytes(info)] += info.shape[0]
            of_layer[_slot_bytes(info)] += min(k, info.shape[0])
        token_bytes += sum(size * n for size, n in of_layer.items())
        layer_slices |= of_layer
    page_bytes = kv_page_bytes(program, limits.kv_format)
    # Products of experts gather their rows, attention of encoders a head's keys and values, each worker for itself.
    widest = max((i.inputs[0].row_bytes for i in program.every_instruction if i.op == "expert_linear"), default=0)
    widest += max((8 * i.inputs[0].shape[-1] for i in program.instructions if i.op == "encoder_attention"), default=0)
    expanding = expanded_scratch_bytes(program, limits.max_rows)
    per_thread = limits.max_rows * widest + expanding + SAMPLING_BYTES * program.vocab_size + THREAD_BYTES
    # While weights are loaded workspace is not touched yet, and matrices that have to be made are made one at a time.
    made = (4 * stored[name].n_weights for name, how in program.derived.items() if isinstance(how, Transposed))
    making = MAKING_COPIES * max(made, default=0)
    sums, hidden = partial_sums_bytes(program, limits.context_tokens), 4 * program.hidden * limits.max_rows
    return Needs(
        python=GRANTS.own_bytes() + PYTHON_GROWS_BYTES + LIBRARY_FILES_BYTES + TOKEN_BYTES * program.vocab_size,
        trunk=sum(trunk_bytes(stored, program).values()),
        kv=page_bytes * limits.n_pages,
        workspace=max(limits.arena_bytes + limits.n_threads * per_thread + sums + hidden, making),
        slices=slices, layer_slices=layer_slices, token_bytes=token_bytes,
        stream_workspace=READERS * READER_BYTES, context_tokens=limits.context_tokens,
        state=slot_bytes(program) * limits.n_slots, chunk_tokens=limits.max_rows,
        smaller_kv=tuple((n, page_bytes * n_pages(n)) for n in halves(limits.context_tokens)) if may_shorten else (),
    )  # fmt: skip


def trunk_bytes(stored: Mapping[str, TensorInfo], program: Program) -> dict[str, int]:
    """What each weight takes in memory that is not an expert's; experts of a drafter count, they are never streamed."""
    floats, experts = set(kept_as_floats(program)), expert_weights(program)
    return {
        name: 4 * stored[name].n_weights if name in floats
        else math.prod(stored[name].shape[:-2]) * _panel_bytes(stored[name])
        for name in program.weights if name not in experts
    }  # fmt: skip


def halves(context_tokens: int) -> list[int]:
    """Contexts of half the length, a quarter …, as long as they are worth having."""
    shorter = []
    while (context_tokens := context_tokens // 2) >= LEAST_CONTEXT:
        shorter.append(context_tokens)
    return shorter


def n_pages(kv_tokens: int) -> int:
    """Pages of keys and values for so many tokens: one more than they fill, which a step may begin."""
    return pages_for(kv_tokens) + 1


def expert_weights(program: Program) -> set[str]:
    """Names of the weights that hold the matrices of all experts."""
    products = (i for i in program.instructions if i.op == "expert_linear")
    return {v.name for i in products for v in i.inputs if v.kind == "weight" and len(v.shape) == 3}


def _panel_bytes(info: TensorInfo) -> int:
    return panel_bytes(FORMATS[info.format].gguf_id, *info.shape[-2:])


def _slot_bytes(info: TensorInfo) -> int:
    return -(-_panel_bytes(info) // 64) * 64


def reading_for(placement: Placement, config: EngineConfig, budget: Budget) -> Reading:
    """How weights are read: past the page cache when memory is short or was promised."""
    modes = {"auto": "automatic", "direct": "direct", "buffered": "dropped"}
    if not placement.streams:
        return Reading(modes[config.disk] if budget.is_given else "kept")
    passing = passing_slots(min(placement.n_slots.values()), max(placement.needs.layer_slices.values()))
    return Reading(modes[config.disk], Streaming(placement.n_slots, passing, HALF_LIFE_STEPS))


def passing_slots(n_slots: int, of_layer: int) -> int:
    """Of so many slots, those that a prompt or predictions may use: two layers' worth, few of a small cache.

    ``of_layer``: the slots that one token needs in one layer.
    """
    return max(min(2 * of_layer, n_slots // 8), 1)
