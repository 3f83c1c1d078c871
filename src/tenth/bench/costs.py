"""What each instruction of a step must read, write and multiply, counted from the program. Nothing here is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tenth.bench.work import KV_BYTES, used_share
from tenth.program.ops import recurrence_shape
from tenth.program.values import Instruction, KvLayer, Program, Value


class Stored(Protocol):
    """The part of a TensorInfo this needs."""

    @property
    def n_bytes(self) -> int:
        """Size in the file."""
        ...

    @property
    def format(self) -> str:
        """The weight format, for example Q4_K."""
        ...


@dataclass(frozen=True)
class StepShape:
    """A step of one sequence: ``rows`` tokens behind ``first`` others, the last ``outputs`` of which need logits.

    One row is generated, more are of a prompt.
    """

    rows: int
    first: int
    outputs: int = 1

    @property
    def n_generated(self) -> int:
        """How many of the rows are generated."""
        return 1 if self.rows == 1 else 0


@dataclass(frozen=True)
class Cost:
    """Of one instruction in one step. ``label``: which weights it multiplies by, without the layer; "" for none.

    ``kv_bytes``: of keys and values, or of recurrent state. Bytes are counted once each, as if the caches kept what
    one instruction reads twice. Those of weights, KV and state come from memory; those of activations were just written
    by the instruction before and mostly lie in a cache.
    """

    op: str
    label: str = ""
    formats: str = ""
    weight_bytes: int = 0
    kv_bytes: int = 0
    activation_bytes: int = 0
    multiply_adds: int = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes that come from memory rather than a cache."""
        return self.weight_bytes + self.kv_bytes

    @property
    def n_bytes(self) -> int:
        """All bytes."""
        return self.memory_bytes + self.activation_bytes


def costs(program: Program, tensors: Mapping[str, Stored], kv_format: str, shape: StepShape) -> list[Cost]:
    """One per instruction. Multiply-adds: of linears, attention, delta-net; all else takes a few per number."""
    layers = {layer.layer: layer for layer in program.state}
    return [_cost(instruction, tensors, layers, KV_BYTES[kv_format], shape) for instruction in program.instructions]


def _cost(instruction: Instruction, tensors: Mapping[str, Stored], layers: Mapping[int, KvLayer], kv_bytes: float,
          shape: StepShape) -> Cost:
    op = instruction.op
    least = 3 if op == "expert_linear" else 2  # dimensions; the others are norms and biases
    matrices = [v for v in instruction.inputs if v.kind == "weight" and len(v.shape) >= least]
    label = "+".join(dict.fromkeys(_without_layer(v.storage.name) for v in matrices))
    formats = "+".join(dict.fromkeys(tensors[v.storage.name].format for v in matrices))
    rows = _rows(instruction.inputs[0], shape)
    if op == "expanded_attention":
        rows -= shape.n_generated
    shares = [used_share(instruction, v, rows) if rows else 0.0 for v in matrices]
    weights = round(sum(tensors[v.storage.name].n_bytes * share for v, share in zip(matrices, shares, strict=True)))
    kv, products = 0.0, 0
    if op in ("linear", "head_linear", "expert_linear"):
        each = instruction.inputs[1].shape[0] if op == "expert_linear" else 1  # matrices that a row meets
        taken = used_share(instruction, matrices[0], rows) if op == "head_linear" else 1
        products = round(sum(math.prod(v.shape[-2:]) for v in matrices) * rows * each * taken)
    elif "layer" in instruction.attrs:
        layer = layers[int(_number(instruction, "layer"))]
        per_token = layer.numbers_per_token * kv_bytes
        if op.endswith("_store"):
            kv = per_token * shape.rows
        elif rows:
            kv = per_token * span(shape, layer.window)
            products = _attention_products(instruction) * seen(shape, layer.window)
        if op == "expanded_attention" and rows:
            expanding = sum(math.prod(v.shape) * share for v, share in zip(matrices, shares, strict=True))
            products += round(expanding) * span(shape, layer.window)
    elif kept := recurrence_shape(instruction):
        kv = 2 * 4 * math.prod(kept)  # read and written once for all rows
        products = 3 * math.prod(kept) * shape.rows if op == "delta_net" else 0
    return Cost(op, label, formats, weights, round(kv), _activation_bytes(instruction, shape), products)


def _attention_products(instruction: Instruction) -> int:
    """Multiply-adds of a row and one position: with its key, and with its value as long as the result."""
    inputs = instruction.inputs[:2] if instruction.op == "expanded_attention" else instruction.inputs
    keys = sum(math.prod(v.shape) for v in inputs)
    return keys + math.prod(instruction.outputs[0].shape)


def span(shape: StepShape, window: int) -> int:
    """Positions of the cache that the step reads, each counted once. ``window`` 0: none."""
    end = shape.first + shape.rows
    return end if not window else min(end, shape.rows - 1 + window)


def seen(shape: StepShape, window: int) -> int:
    """Pairs of a row and a position that it attends to."""
    counts = range(shape.first + 1, shape.first + shape.rows + 1)
    return sum(min(count, window) if window else count for count in counts)


def _activation_bytes(instruction: Instruction, shape: StepShape) -> int:
    if instruction.op == "select_outputs":
        return 2 * instruction.outputs[0].row_bytes * shape.outputs
    values = [v for v in (*instruction.inputs, *instruction.outputs) if v.kind != "weight"]
    vectors = [v for v in instruction.inputs if v.kind == "weight" and len(v.shape) == 1]
    return sum(v.row_bytes * _rows(v, shape) for v in values) + sum(4 * math.prod(v.shape) for v in vectors)


def _rows(value: Value, shape: StepShape) -> int:
    if value.rows == "generated":
        return shape.n_generated
    return shape.outputs if value.rows == "outputs" else shape.rows


def _number(instruction: Instruction, name: str) -> float:
    value = instruction.attrs[name]
    assert isinstance(value, int | float), f"{instruction.op}: {name} is a number"
    return value


def _without_layer(name: str) -> str:
    """``blk.3.attn_q.weight`` -> ``attn_q``."""
    parts = name.removesuffix(".weight").split(".")
    return ".".join(parts[2:] if parts[0] == "blk" and len(parts) > 2 else parts)
