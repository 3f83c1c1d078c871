"""What the native core says of this machine, of its kernels and of sizes in memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tenth import _core
from tenth.errors import RequestError
from tenth.program.values import Program, Recurrence

KV_FORMATS = {"f16": 0, "q8_0": 1, "f32": 2, "bf16": 3}  # native/kernels/ops_table.h, KvFormat


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
    """Weight formats that have kernels: name, weights and bytes of a block, what activations are rounded to."""
    return [
        {"format": name, "block_weights": weights, "block_bytes": n_bytes, "input": dtype}
        for name, _, weights, n_bytes, _, dtype in _core.formats()
    ]


def read_bandwidth(threads: int, seconds: float, n_bytes: int) -> list[float]:
    """Bytes per second of each pass over a buffer of ``n_bytes`` by ``threads`` workers."""
    return list(_core.read_bandwidth(threads, seconds, n_bytes))


def int8_rate(threads: int, seconds: float, isa: str = "") -> list[float]:
    """Byte multiply-adds per second of each pass; ``isa`` "" is the one the kernels use."""
    return list(_core.int8_rate(threads, seconds, isa))


def replay_experts(
    experts: np.ndarray[Any, np.dtype[np.int32]], n_experts: int, n_slots: int, half_life: float, passing_slots: int
) -> tuple[int, int]:
    """(ready, wanted) of a trace [tokens, layers, k] through the cache of experts, one token a step."""
    ready, wanted = _core.replay_experts(experts, n_experts, n_slots, half_life, passing_slots)
    return int(ready), int(wanted)


def kv_page_bytes(program: Program, kv_format: str) -> int:
    """Bytes of one page of keys and values over all layers."""
    layers = [(layer.n_kv_heads, layer.head_dim, layer.latent) for layer in program.state]
    return int(_core.page_bytes(layers, KV_FORMATS[kv_format]))


def partial_sums_bytes(program: Program, context_tokens: int) -> int:
    """Bytes of the sums that workers of one long sequence's attention share."""
    queries = {i.inputs[0].shape for i in program.every_instruction if i.op == "attention"}  # [n_heads, head_dim]
    return max((int(_core.partial_sums_bytes(n, dim, context_tokens)) for n, dim in queries), default=0)


def expanded_scratch_bytes(program: Program, max_rows: int) -> int:
    """Bytes that each worker needs to expand latents for attention of prompts."""
    shapes = {(i.inputs[3].shape[-1], i.inputs[1].shape[-1], i.inputs[0].shape[-1], i.outputs[0].shape[-1])
              for i in program.instructions if i.op == "expanded_attention"}
    return max((int(_core.expanded_scratch_bytes(*shape, max_rows)) for shape in shapes), default=0)


def slot_bytes(program: Program) -> int:
    """Bytes that the recurrences of one sequence take."""
    return sum(-(-4 * n_floats(recurrence) // 64) * 64 for recurrence in program.recurrences)


def n_floats(recurrence: Recurrence) -> int:
    """How many numbers the native side needs room for: it works on groups of 16, so the last dimension is padded."""
    return math.prod(recurrence.shape[:-1]) * (-(-recurrence.shape[-1] // 16) * 16)


def panel_bytes(gguf_id: int, out_rows: int, columns: int) -> int:
    """Bytes of a matrix in memory, in panels of 16 rows; of an expert's, what its slot takes."""
    for _, number, block_weights, _, block_bytes, _ in _core.formats():
        if number == gguf_id:
            return int(-(-out_rows // 16) * (columns // block_weights) * block_bytes)
    raise AssertionError(f"no kernels for format number {gguf_id}")


def check_kv_format(program: Program, kv_format: str) -> None:
    """Refuse a KV format that the model's heads do not fit. Raises RequestError."""
    for layer in program.state:
        if kv_format == "q8_0" and layer.head_dim % 32:
            raise RequestError(
                f"kv format q8_0 needs heads of a multiple of 32, this model's have {layer.head_dim}",
                "use --kv f16",
            )
