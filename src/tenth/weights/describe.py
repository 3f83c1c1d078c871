"""What a model file is, in a few numbers: for ``tenth inspect`` and ``tenth show``."""

from __future__ import annotations

from dataclasses import dataclass

from tenth.errors import ModelFileError
from tenth.weights.formats import FORMATS
from tenth.weights.gguf import ModelFile


@dataclass(frozen=True)
class FormatShare:
    """How much of a model is stored in one format."""

    n_tensors: int
    n_parameters: int
    n_bytes: int


@dataclass(frozen=True)
class Description:
    """A model file in short. Texts and numbers that the file does not give, or gives wrongly, are None."""

    architecture: str | None
    name: str | None
    n_parameters: int
    size_bytes: int  # of all files, headers included
    n_files: int
    n_tensors: int
    formats: dict[str, FormatShare]  # most bytes first
    context_tokens: int | None
    vocabulary_tokens: int | None
    unsupported: tuple[str, ...]  # formats in the file that tenth cannot run


def describe(model: ModelFile) -> Description:
    """The description of a model file. Reads a few short texts of its header; never raises for odd metadata."""
    formats: dict[str, FormatShare] = {}
    for info in model.tensors.values():
        so_far = formats.get(info.format, FormatShare(0, 0, 0))
        formats[info.format] = FormatShare(
            so_far.n_tensors + 1, so_far.n_parameters + info.n_weights, so_far.n_bytes + info.n_bytes
        )
    architecture = _text(model, "general.architecture")
    return Description(
        architecture=architecture,
        name=_text(model, "general.name"),
        n_parameters=sum(share.n_parameters for share in formats.values()),
        size_bytes=model.size_bytes,
        n_files=len(model.paths),
        n_tensors=len(model.tensors),
        formats=dict(sorted(formats.items(), key=lambda item: -item[1].n_bytes)),
        context_tokens=_number(model, f"{architecture}.context_length"),
        vocabulary_tokens=_count(model, "tokenizer.ggml.tokens"),
        unsupported=tuple(name for name in formats if name not in FORMATS),
    )


def _text(model: ModelFile, key: str) -> str | None:
    """A text made safe for a terminal, at most 256 characters."""
    try:
        text = model.metadata.get_str(key, None)
    except ModelFileError:
        return None
    return None if text is None else "".join(c if c.isprintable() else " " for c in text[:256]).strip()


def _number(model: ModelFile, key: str) -> int | None:
    try:
        return model.metadata.get_int(key, None, low=0)
    except ModelFileError:
        return None


def _count(model: ModelFile, key: str) -> int | None:
    try:
        return model.metadata.count(key) if model.metadata.has(key) else None
    except ModelFileError:
        return None
