"""What one generated token costs, counted from the program: bytes of weights, bytes of KV, multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tenth.program.values import Instruction, Value

KV_BYTES = {"f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "f32": 4.0}  # per number
PRODUCTS = {"linear": 2, "head_linear": 2, "expert_linear": 3}  # op -> dimensions of its matrices; biases have fewer


class Stored(Protocol):
    """The part of a TensorInfo this needs."""

    @property
    def n_bytes(self) -> int:
        """Size in the file."""
        ...


@dataclass(frozen=True)
class Work:
    """Per token. ``every``: multiply-adds for each token; ``output``: those only for tokens that need logits.

    ``state_bytes``: of recurrent state, read and written again for each generated token.
    """

    weight_bytes: int
    kv_bytes_per_context_token: float
    every: int
    output: int
    state_bytes: int = 0

    def generated_bytes(self, n_context: float) -> float:
        """Bytes touched to generate one token behind ``n_context`` others."""
        return self.weight_bytes + self.state_bytes + self.kv_bytes_per_context_token * n_context

    def prompt_multiply_adds(self, n_tokens: int) -> float:
        """Multiply-adds per token of a prompt whose last token alone needs logits."""
        return self.every + self.output / n_tokens


def used_share(instruction: Instruction, weight: Value, rows: int) -> float:
    """The share of a weight that an instruction reads for so many rows.

    Of heads, the rows that are taken. Of experts, the share to expect when every expert is as likely as the others,
    whatever other rows use.
    """
    if instruction.op in ("expert_read", "expert_predict", "route_lossy"):  # these only name what products read
        return 0.0
    if instruction.op in ("embed", "embed_segments"):
        return rows / weight.shape[0]
    if instruction.op == "head_linear":
        return math.prod(instruction.outputs[0].shape) / weight.shape[0]
    if instruction.op == "expanded_attention":  # of two matrices, or twice of one
        used = math.prod(instruction.inputs[0].shape) + math.prod(instruction.outputs[0].shape)
        return used / sum(v.shape[0] for v in instruction.inputs[3:])
    if instruction.op == "expert_linear":
        each = instruction.inputs[1].shape[0] / weight.shape[0]
        return float(1 - (1 - each) ** rows)
    return 1.0


def count(program: Any, tensors: Mapping[str, Stored], kv_format: str) -> Work:
    """The work of one token of ``program`` with the weights as ``tensors`` store them.

    Each weight counts as often as it is read: all of it, but one row where a token's row is looked up (embed), and of
    experts those that one token uses.
    Attention's own multiply-adds are left out: they grow with the context and are not weights. Windows of attention
    are counted as if they were full: n_context of a benchmark is shorter than any window.
    """
    weight_bytes, every, output = 0.0, 0, 0
    for instruction in program.instructions:
        if instruction.op == "expanded_attention":  # only of prompts
            continue
        for value in instruction.inputs:
            if value.kind != "weight":
                continue
            name, shape = value.storage.name, value.shape
            n_bytes = tensors[name].n_bytes
            share = used_share(instruction, value, 1)
            weight_bytes += n_bytes * share
            if instruction.op in PRODUCTS and len(shape) == PRODUCTS[instruction.op]:
                if instruction.outputs[0].rows == "outputs":
                    output += round(math.prod(shape) * share)
                else:
                    every += round(math.prod(shape) * share)
    per_number = KV_BYTES[kv_format]
    kv_bytes = sum(layer.numbers_per_token * per_number for layer in program.state)
    state_bytes = sum(2 * 4 * recurrence.n_numbers for recurrence in program.recurrences)
    return Work(round(weight_bytes), kv_bytes, every, output, state_bytes)
