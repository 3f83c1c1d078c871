"""What a model needs in memory and how its weights are read then: a program's names joined with a file's sizes.

The arithmetic of the budget is in ``weights/placement.py``; this only fills in the numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from tenth.config import EngineConfig
from tenth.program.passes import kept_as_floats
from tenth.program.streaming import expert_layers, stream_experts
from tenth.program.values import Program
from tenth.runtime import (
    Limits,
    Reading,
    Streaming,
    kv_page_bytes,
    panel_bytes,
    partial_sums_bytes,
    slot_bytes,
)
from tenth.weights.budget import Budget, own_bytes
from tenth.weights.formats import FORMATS
from tenth.weights.gguf import TensorInfo
from tenth.weights.placement import Needs, Placement

# What memory beyond the known buffers goes for, measured on Linux with glibc, with a cold page cache: what Python still
# grows by when a model is opened; the files of its libraries, which are read ahead (75 MB); a tokenizer, per token of
# its vocabulary (56 MB for 152,000); a worker's stack and heap; sampling, per token; and one reader of experts.
PYTHON_GROWS_BYTES, LIBRARY_FILES_BYTES, TOKEN_BYTES = 48 << 20, 80 << 20, 400
THREAD_BYTES, SAMPLING_BYTES = 2 << 20, 16
READERS, READER_BYTES = 8, 3 << 19
# After so many steps a use of an expert counts half. By replay (docs/experts.md): longer is up to 4 points better where
# some experts are used more than others for long, and up to 35 worse where they come and go.
HALF_LIFE_STEPS = 2.0


def memory_needs(stored: Mapping[str, TensorInfo], program: Program, limits: Limits) -> Needs:
    """What a model needs in memory: its weights as they are kept, keys and values, workspace, and Python as it is."""
    floats, experts = kept_as_floats(program), expert_weights(program)
    trunk, token_bytes = 0, 0
    slices: Counter[int] = Counter()
    layer_slices: Counter[int] = Counter()
    streamed = stream_experts(program, experts) if experts else program
    reads = [i for i in streamed.instructions if i.op == "expert_read"]
    for name in program.weights:
        info = stored[name]
        if name in floats:
            trunk += 4 * info.n_weights
        elif name not in experts:
            trunk += math.prod(info.shape[:-2]) * _panel_bytes(info)
    for layer, read in zip(expert_layers(streamed), reads, strict=True):
        k = read.inputs[0].shape[0]  # experts of one row
        of_layer: Counter[int] = Counter()
        for name in (name for stage in layer for name in stage):
            info = stored[name]
            slices[_slot_bytes(info)] += info.shape[0]
            of_layer[_slot_bytes(info)] += min(k, info.shape[0])
        token_bytes += sum(size * n for size, n in of_layer.items())
        layer_slices |= of_layer
    # Products of experts gather their rows, each worker for itself.
    widest = max((i.inputs[0].row_bytes for i in program.instructions if i.op == "expert_linear"), default=0)
    per_thread = limits.max_rows * widest + SAMPLING_BYTES * program.vocab_size + THREAD_BYTES
    return Needs(
        python=own_bytes() + PYTHON_GROWS_BYTES + LIBRARY_FILES_BYTES + TOKEN_BYTES * program.vocab_size, trunk=trunk,
        kv=kv_page_bytes(program, limits.kv_format) * limits.n_pages,
        workspace=limits.arena_bytes + limits.n_threads * per_thread
        + partial_sums_bytes(program, limits.context_tokens),
        slices=slices, layer_slices=layer_slices, token_bytes=token_bytes,
        stream_workspace=READERS * READER_BYTES, context_tokens=limits.context_tokens,
        state=slot_bytes(program) * limits.n_slots,
    )  # fmt: skip


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
