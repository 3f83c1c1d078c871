"""Keeps what a model file does with symbolic values as a flat program; names the weights it may use.

Files, formats and batches are unknown here: of a file only names and shapes are asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tenth.program.ops import OPS, expect, recurrence_shape
from tenth.program.values import (
    Attr,
    Derived,
    Instruction,
    KvLayer,
    Program,
    Recurrence,
    Sliced,
    Transposed,
    Value,
)


class Builder:
    """Collects instructions. ``shapes``: the tensors that may be used, by full name (``blk.0.attn_q.weight``).

    ``parts``: those of them that are part of another tensor of the file.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], parts: Mapping[str, Sliced] | None = None):
        self.shapes = shapes
        self.parts = parts or {}
        self.instructions: list[Instruction] = []
        self.weights: dict[str, Value] = {}
        self.state: list[KvLayer] = []
        self.recurrences: list[Recurrence] = []
        self.derived: dict[str, Derived] = {}
        self.inputs = {name: self._input(name) for name in ("tokens", "positions", "sources")}
        self.hidden = 0

    def _input(self, name: str) -> Value:
        return Value(name, "input", (), "tokens", "i32", builder=self)

    def emit(self, op: str, inputs: tuple[Value, ...], **attrs: Attr) -> tuple[Value, ...]:
        """Append one instruction and give its outputs, shaped by the op's rule."""
        results = OPS[op].rule(inputs, attrs)
        names = [f"t{len(self.instructions)}" + (f".{j}" if j else "") for j in range(len(results))]
        outputs = tuple(
            Value(name, "temp", r.shape, r.rows, r.dtype, builder=self) for name, r in zip(names, results, strict=True)
        )
        self.instructions.append(Instruction(op, inputs, outputs, dict(attrs)))
        return outputs

    def emit_recurrent(self, op: str, inputs: tuple[Value, ...], **attrs: Attr) -> Value:
        """Append an instruction that keeps numbers of each sequence between steps, and declare them."""
        number = len(self.recurrences)
        result = self.emit(op, inputs, state=number, **attrs)[0]
        shape = recurrence_shape(self.instructions[-1])
        assert shape is not None, f"{op} keeps nothing between steps"
        self.recurrences.append(Recurrence(number, shape))
        return result

    def weight(self, name: str) -> Value:
        """The value of a tensor, made on first use."""
        if name not in self.weights:
            expect(name in self.shapes, f"the model uses tensor {name!r}, which it did not declare or the file lacks")
            self.weights[name] = Value(name, "weight", self.shapes[name], builder=self)
            if name in self.parts:
                self.derived[name] = self.parts[name]
        return self.weights[name]

    def matrix_of_heads(self, name: str) -> Value:
        """The value of a tensor [heads, rows, in] or [heads * rows, in] as the matrix [heads * rows, in]."""
        value = self.weight(name)
        value.shape = (math.prod(value.shape[:-1]), value.shape[-1])
        return value

    def transposed(self, how: Transposed) -> Value:
        """The value of a weight made of the tensor ``how.source``."""
        name = how.name
        if name not in self.weights:
            expect(how.source in self.shapes, f"the model uses tensor {how.source!r}, which the file lacks")
            self.derived[name] = how
            shape = (how.n_heads * self.shapes[how.source][1], how.n_rows)
            self.weights[name] = Value(name, "weight", shape, builder=self)
        return self.weights[name]

    def finish(self, output: Value, architecture: str = "", context_tokens: int = 0) -> Program:
        """The program, with ``output`` as its logits. What is emitted from now on belongs to another, its drafter."""
        instructions, self.instructions = self.instructions, []
        return Program(
            instructions, self.weights, self.inputs, output, self.state, architecture, context_tokens,
            recurrences=self.recurrences, derived=self.derived, hidden=self.hidden,
        )  # fmt: skip


class Weights:
    """A path of tensor names: ``w.blk[3].attn_q`` stands for ``blk.3.attn_q.weight`` and, if there is one, its bias.

    True when the file has the weight, so ``w.output or w.token_embd`` reads as it means.
    """

    def __init__(self, builder: Builder, path: str = ""):
        self._builder = builder
        self._path = path

    def __getattr__(self, part: str) -> Weights:
        if part.startswith("_"):
            raise AttributeError(part)
        return Weights(self._builder, f"{self._path}.{part}" if self._path else part)

    def __getitem__(self, i: int) -> Weights:
        return Weights(self._builder, f"{self._path}.{i}")

    def __bool__(self) -> bool:
        return f"{self._path}.weight" in self._builder.shapes
