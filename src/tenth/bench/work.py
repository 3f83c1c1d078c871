"""What one generated token costs, counted from the program: bytes of weights, bytes of KV, multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

KV_BYTES = {"f16": 2.0, "q8_0": 34 / 32, "f32": 4.0}  # per number


class Stored(Protocol):
    """The part of a TensorInfo this needs."""

    @property
    def n_bytes(self) -> int:
        """Size in the file."""
        ...


@dataclass(frozen=True)
class Work:
    """Per token. ``every``: multiply-adds for each token; ``output``: those only for tokens that need logits."""

    weight_bytes: int
    kv_bytes_per_context_token: float
    every: int
    output: int

    def generated_bytes(self, n_context: float) -> float:
        """Bytes touched to generate one token behind ``n_context`` others."""
        return self.weight_bytes + self.kv_bytes_per_context_token * n_context

    def prompt_multiply_adds(self, n_tokens: int) -> float:
        """Multiply-adds per token of a prompt whose last token alone needs logits."""
        return self.every + self.output / n_tokens


def count(program: Any, tensors: Mapping[str, Stored], kv_format: str) -> Work:
    """The work of one token of ``program`` with the weights as ``tensors`` store them.

    Each weight counts as often as it is read: all of it, but one row where a token's row is looked up (embed).
    Attention's own multiply-adds are left out: they grow with the context and are not weights. Windows of attention
    are counted as if they were full: n_context of a benchmark is shorter than any window.
    """
    weight_bytes, every, output = 0.0, 0, 0
    for instruction in program.instructions:
        for value in instruction.inputs:
            if value.kind != "weight":
                continue
            name, shape = value.storage.name, value.shape
            n_bytes = tensors[name].n_bytes
            weight_bytes += n_bytes / shape[0] if instruction.op == "embed" else n_bytes
            if instruction.op in ("linear", "head_linear") and len(shape) == 2:
                if instruction.outputs[0].rows == "outputs":
                    output += math.prod(shape)
                else:
                    every += math.prod(shape)
    per_number = KV_BYTES[kv_format]
    kv_bytes = sum(layer.numbers_per_token * per_number for layer in program.state)
    return Work(round(weight_bytes), kv_bytes, every, output)
