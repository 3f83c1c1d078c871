"""What a program is made of: values, instructions, the program itself. Plain data; nothing here computes.

A program is a list of instructions over values. Every temporary is written by exactly one instruction, before it is
read. The number of rows of a step is known only when it runs, so a shape says what ONE row holds, and ``rows`` says
which row count applies: "tokens" (every token of the step), "outputs" (only rows that need logits) or "generated" (only
rows behind their sequence's prompt, which come first in a step).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tenth.program.recording import Builder

Rows = Literal["tokens", "outputs", "generated"]
Kind = Literal["input", "weight", "temp"]
Dtype = Literal["f32", "i32", "q8", "bf16"]
Task = Literal["generate", "embed", "rerank"]
Row = Literal["last", "first", "every"]
Attr = int | float | str | tuple[int, ...] | tuple[float, ...]

WHOLE_SEQUENCES = frozenset({"encoder_attention", "embed_segments", "sequence_mean"})  # ops that see all of one

Q8_BLOCK = 32  # values that share one scale in the q8 type
Q8_BLOCK_BYTES = 52  # int8 values, their scale and sums: native/kernels/table.h
Q8_ROW_STEP = 16  # q8 buffers hold a multiple of this many rows: the many-row kernels read rows in such groups

Reads = Mapping[str, Dtype]  # by weight: what products with it read, f32 for those that are not named
ROUNDINGS: dict[Dtype, str] = {"q8": "quantize", "bf16": "round_bf16"}  # what products read, and the op that makes it


@dataclass(eq=False)
class Value:
    """One buffer, or a view of one.

    ``shape`` is per row for inputs and temps, and the whole shape ([out, in], rows first; of experts [E, out, in]) for
    weights, whose ``rows`` is None. The dtype of a weight is always "f32": what it means; how the file stores it is
    not the program's business.
    ``base`` is None for a value that owns its bytes; a view (another shape of the same numbers) names the owner.
    ``offset`` is bytes from the start of the arena, set by ``memory.plan``; -1 before, and for inputs and weights.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    rows: Rows | None = None
    dtype: Dtype = "f32"
    base: Value | None = None
    offset: int = -1
    builder: Builder | None = field(default=None, repr=False)

    def __add__(self, other: Value) -> Value:
        if self.builder is None:
            raise AssertionError(f"{self.name} belongs to no builder: only a program under construction adds")
        return self.builder.emit("add", (self, other))[0]

    @property
    def storage(self) -> Value:
        """The value that owns the bytes: itself, or the base of a view."""
        return self.base or self

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in the arena."""
        n = math.prod(self.shape)
        if self.dtype == "bf16":  # native/kernels/table.h, bf16_row_bytes
            return math.prod(self.shape[:-1]) * (-(-self.shape[-1] // 32) | 1) * 64
        return n // Q8_BLOCK * Q8_BLOCK_BYTES if self.dtype == "q8" else 4 * n


@dataclass(eq=False)
class Instruction:
    """One step of a program. ``op`` names a row of ``ops.OPS``, which says what inputs, outputs and attrs mean."""

    op: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attrs: dict[str, Attr] = field(default_factory=dict)


@dataclass(frozen=True)
class KvLayer:
    """Keys and values that one layer keeps between steps. ``window``: how far back attention looks, 0 = everything.

    ``latent`` > 0: one row of ``head_dim`` numbers per token is the key of every head, and its first ``latent`` numbers
    are the value too, so that nothing else is kept (multi-head latent attention); ``n_kv_heads`` is 1 then.
    """

    layer: int
    n_kv_heads: int
    head_dim: int
    window: int = 0
    latent: int = 0

    @property
    def numbers_per_token(self) -> int:
        """How many numbers are kept for each token."""
        return self.n_kv_heads * self.head_dim * (1 if self.latent else 2)


@dataclass(frozen=True)
class Transposed:
    """A weight that is not in the file as such: rows of the matrix ``source``, turned head by head.

    Of each of the ``n_heads`` equal runs of rows it takes the ``n_rows`` from ``first`` on: a matrix [n_rows, in]. The
    weight is those matrices transposed, one after the other: [n_heads * in, n_rows], float32. ``rounds``: rounded to
    int8 with a float16 scale per 32 numbers of a row (Q8_0).
    """

    source: str
    n_heads: int
    first: int
    n_rows: int
    rounds: bool = False

    @property
    def name(self) -> str:
        """What the weight is called."""
        return f"{self.source}[{self.first}:{self.first + self.n_rows}].T"


@dataclass(frozen=True)
class Sliced:
    """A weight [E, n_rows, in] that is part of the tensor ``source`` [E, rows, in]: of each matrix ``n_rows`` rows.

    They begin at row ``first``, and are read from the file as they lie there.
    """

    source: str
    first: int
    n_rows: int


Derived = Transposed | Sliced


@dataclass(frozen=True)
class Recurrence:
    """Float32 numbers that one op keeps of each sequence between steps, zero before its first token.

    ``number``: the op's attr ``state``. Unlike keys and values they do not grow, and cannot be cut to fewer tokens.
    """

    number: int
    shape: tuple[int, ...]

    @property
    def n_numbers(self) -> int:
        """How many numbers each sequence has."""
        return math.prod(self.shape)


@dataclass(eq=False)
class Program:
    """A whole model step: from ``inputs`` ("tokens" and "positions", int32) to ``output``, rows "outputs".

    The output is what ``task`` needs: logits, a vector, or a score. ``row``: which row of a sequence it is of.

    ``weights``: by tensor name of the file, in order of first use. ``state`` and ``recurrences``: what is kept between
    steps, keys and values by layer and what recurrent ops declared by number. ``derived``: those of the weights that
    are made of a tensor of the file under another name.

    ``drafter``: a second program that guesses at tokens (models/nextn.py), or None. It shares ``weights``, ``inputs``
    and what is kept with the first, reads the rows that hidden_stores of both keep, ``hidden`` numbers each, and has an
    input more: "sources", int32, the kept row that each of its rows goes on from.
    """

    instructions: list[Instruction]
    weights: dict[str, Value]
    inputs: dict[str, Value]
    output: Value
    state: list[KvLayer]
    architecture: str = ""
    context_tokens: int = 0
    recurrences: list[Recurrence] = field(default_factory=list)
    derived: dict[str, Derived] = field(default_factory=dict)
    task: Task = "generate"
    row: Row = "last"
    drafter: Program | None = None
    hidden: int = 0

    @property
    def every_instruction(self) -> list[Instruction]:
        """Those of the drafter too."""
        return self.instructions + (self.drafter.instructions if self.drafter else [])

    @property
    def prompts_apart(self) -> bool:
        """Whether rows of a prompt are computed otherwise than those behind it, so that steps tell them apart."""
        return any(i.op == "expanded_attention" for i in self.instructions)

    @property
    def vocab_size(self) -> int:
        """How many tokens there are: rows of the token table."""
        tables = (i.inputs[1] for i in self.instructions if i.op == "embed" and i.inputs[0].name == "tokens")
        return next((table.shape[0] for table in tables), self.output_width)

    @property
    def takes_whole_sequences(self) -> bool:
        """Whether a step needs all tokens of a sequence: some op looks at those behind, or the first row counts."""
        return self.row != "last" or any(i.op in WHOLE_SEQUENCES for i in self.instructions)

    @property
    def output_width(self) -> int:
        """How many numbers a row of the output has; of logits one for each token."""
        return self.output.shape[0]
