"""What is known about one model: from the catalogue, from its record, and from the header of its file."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tenth.errors import RequestError
from tenth.library import catalogue
from tenth.library.listing import Entry, list_models
from tenth.library.resolving import interpret, library_key, resolve

if TYPE_CHECKING:
    from tenth.weights.gguf import ModelFile


@dataclass(frozen=True)
class HeaderFacts:
    """What a GGUF header says. ``parameters`` counts weights; ``formats``: format -> weights stored in it."""

    architecture: str
    title: str
    parameters: int
    formats: dict[str, int]
    context_tokens: int
    n_layers: int
    has_tokenizer: bool
    has_template: bool


@dataclass(frozen=True)
class Facts:
    """One model. ``entry`` is None for a plain path, ``header`` while the file is not here or has changed."""

    name: str
    path: Path | None
    entry: Entry | None
    aliases: tuple[str, ...] = ()
    sha256: tuple[str, ...] = field(default=())
    header: HeaderFacts | None = None


def show(name: str) -> Facts:
    """Facts about a catalogue name, a model of the library, or a path; downloads nothing.

    Raises RequestError for a name that is neither in the catalogue nor here, ModelFileError when the header is damaged.
    """
    if name not in (entry.name for entry in list_models()):
        found = interpret(name)
        if isinstance(found, Path):
            path = resolve(name)
            return Facts(name, path, None, header=read_facts(path))
        name = found.name
    name, key = library_key(name, "show")
    entry = next((entry for entry in list_models(available=True) if entry.name == name), None)
    if entry is None:
        raise RequestError(f"{name} is not in the library", f"`tenth pull {name}` downloads it")
    model = catalogue.CATALOGUE.get(name)
    return Facts(
        name=name,
        path=entry.path,
        entry=entry,
        aliases=model.aliases if model else (),
        sha256=_digests(key, entry, model),
        header=read_facts(entry.path) if entry.path is not None and entry.state == "ready" else None,
    )


def _digests(key: str, entry: Entry, model: catalogue.CatalogueModel | None) -> tuple[str, ...]:
    from tenth.library.store import read_record

    record = read_record(key) if entry.state in ("ready", "changed") else None
    if record is not None:
        return tuple(file.sha256 for file in record.files)
    return (model.sha256,) if model else ()


def read_facts(path: Path) -> HeaderFacts:
    """What the header of a GGUF file says; reads no weights. Raises ModelFileError."""
    from tenth.weights.gguf import read_header

    return header_facts(read_header(path))


def header_facts(header: ModelFile) -> HeaderFacts:
    """The facts that interest a user, out of a whole header."""
    metadata, formats = header.metadata, Counter[str]()
    for tensor in header.tensors.values():
        formats[tensor.format] += math.prod(tensor.shape)
    architecture = metadata.architecture
    return HeaderFacts(
        architecture=architecture,
        title=metadata.get_str("general.name", default=""),
        parameters=sum(formats.values()),
        formats=dict(formats.most_common()),
        context_tokens=metadata.get_int(f"{architecture}.context_length", default=0),
        n_layers=metadata.get_int(f"{architecture}.block_count", default=0),
        has_tokenizer=metadata.has("tokenizer.ggml.model"),
        has_template=metadata.has("tokenizer.chat_template"),
    )
