"""Model files, and the table that says which architecture is which. A new one is a file and a line in the table.

A model file has three functions: ``read_config`` (metadata -> typed hyper-parameters), ``tensors`` (hyper-parameters ->
every tensor with its shape) and ``forward`` (the maths). It never sees formats, files, batches or caches. Where files
may have a drafter (nextn.py) there are two more, ``draft_tensors`` and ``draft``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from tenth.errors import ModelFileError
from tenth.models import (
    bert,
    deepseek2,
    gemma3,
    glm4moe,
    gpt_oss,
    llama,
    nomic_bert,
    olmoe,
    qwen2,
    qwen2moe,
    qwen3,
    qwen3moe,
    qwen3next,
    qwen35,
    qwen35moe,
)
from tenth.models.config import Metadata, require
from tenth.models.nextn import has_drafter
from tenth.models.tensors import Declared, fused_parts, layers, match, with_parts
from tenth.program.builder import Builder, Value, Weights
from tenth.program.values import Program


class Model(Protocol):
    """What a model file has to have."""

    def read_config(self, metadata: Metadata) -> Any:
        """Typed hyper-parameters; ModelFileError for any the model cannot honour."""

    def tensors(self, c: Any) -> Declared:
        """Every tensor of the file, by name."""

    def forward(self, tokens: Value, positions: Value, w: Weights, c: Any) -> Value:
        """Logits of the output rows; of a model that writes no text, its vectors or scores."""


@runtime_checkable
class Drafting(Model, Protocol):
    """What a model file has beside that where files may have a drafter: block ``n_layers`` of them."""

    def draft_tensors(self, c: Any) -> Declared:
        """Every tensor of the drafter, by name."""

    def draft(self, tokens: Value, positions: Value, sources: Value, w: Weights, c: Any) -> Value:
        """The drafter's logits of the output rows."""


# The names are those of general.architecture.
ARCHITECTURES: dict[str, Model] = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3moe": qwen3moe,
    "qwen2moe": qwen2moe,
    "olmoe": olmoe,
    "glm4moe": glm4moe,
    "qwen35": qwen35,
    "qwen35moe": qwen35moe,
    "qwen3next": qwen3next,
    "gemma3": gemma3,
    "deepseek2": deepseek2,
    "gpt-oss": gpt_oss,
    "bert": bert,
    "nomic-bert": nomic_bert,
}


def build(
    architecture: str, metadata: Metadata, tensors: Mapping[str, tuple[int, ...]], drafts: bool = False
) -> Program:
    """The program of a model, which the passes check. ``tensors``: every tensor of the file, shape rows first.

    ``drafts``: with its drafter, if the file has one; otherwise that is ignored.
    Raises ModelFileError for an architecture not in the table, hyper-parameters that are out of range or contradict
    each other, and tensors that are missing, misshapen or unknown.
    """
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelFileError(f"architecture {architecture!r} is not supported", f"supported are {known}")
    model = ARCHITECTURES[architecture]
    config = model.read_config(metadata)
    declared = model.tensors(config)
    can_draft = drafts and config.pooling is None and has_drafter(config.n_layers, tensors)
    drafting = model if can_draft and isinstance(model, Drafting) else None
    if drafting:
        declared = {name: shape for name, shape in declared.items() if name != f"blk.{config.n_layers}.*"}
        declared |= layers(range(config.n_layers, config.n_layers + 1), drafting.draft_tensors(config))
    parts = fused_parts(declared, tensors)
    shapes = match(declared, with_parts(tensors, parts))
    n_rows = shapes["token_embd.weight"][0]
    n_vocab = metadata.get_int(f"{architecture}.vocab_size", n_rows)
    require(n_vocab == n_rows, f"{architecture}.vocab_size is {n_vocab}, but token_embd.weight has {n_rows} rows")
    builder = Builder(shapes, parts)
    tokens, positions, sources = builder.inputs["tokens"], builder.inputs["positions"], builder.inputs["sources"]
    output = model.forward(tokens, positions, Weights(builder), config)
    program = builder.finish(output, architecture, config.context_tokens)
    if config.pooling is not None:
        program = replace(program, task=config.pooling.task, row=config.pooling.row)
    if drafting:
        guessed = drafting.draft(tokens, positions, sources, Weights(builder), config)
        program.drafter = builder.finish(guessed, architecture, config.context_tokens)
    return program
