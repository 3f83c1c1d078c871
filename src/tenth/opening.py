"""Opening a model: from a name or a path to a Model that can be asked; what is missing is downloaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenth.config import EngineConfig
from tenth.errors import RequestError
from tenth.model import Model

if TYPE_CHECKING:
    from tenth.text.model_text import ModelText
    from tenth.text.tokenizer import Tokenizer

Progress = Callable[[str, int, int], None]  # (what, done bytes, total bytes or 0)


def load(
    name_or_path: str | Path,
    *,
    threads: int = 0,
    context: int = 0,
    kv: str = "f16",
    memory: int | str = 0,
    template: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Model:
    """Open a model: a path, a URL, a name of the catalogue or hf:org/repo:quant; downloads what is missing.

    ``context`` is EngineConfig's context_tokens, ``kv`` its kv_format, ``memory`` its memory_bytes, as a number or like
    "8GB"; any other of its fields may be given by name.
    ``template``: text of a chat template to use instead of the file's. Raises ModelFileError, RequestError (unknown
    setting or name) or ResourceError.
    """
    from tenth.library import library_folder
    from tenth.library.catalogue import published_sampling
    from tenth.library.resolving import interpret, resolve
    from tenth.loader import open_runtime
    from tenth.observed import HitKeeper
    from tenth.usage import begin_with_usage
    from tenth.weights.gguf import read_header

    started = time.perf_counter()
    config = _config({"threads": threads, "context_tokens": context, "kv_format": kv, "memory_bytes": memory}, settings)
    header = read_header(resolve(str(name_or_path), progress=progress))
    text: list[ModelText | None] = []

    def read_text() -> None:
        from tenth.text.model_text import text_if_any  # here, for importing it takes time too

        text.append(text_if_any(header.metadata, template))

    loaded = open_runtime(header, config, progress, read_text)
    note, source = None, interpret(str(name_or_path))
    if loaded.placement.streams:
        keeper, note = begin_with_usage(loaded.runtime, header, library_folder() / "usage")
        loaded.runtime.observe(keeper)
        if not (config.lossy_drop or config.lossy_prefer):
            loaded.runtime.observe(HitKeeper(loaded))
    name = None if isinstance(source, Path) else source.name
    return Model(
        loaded, config, text[0], started_s=started, note=note, name=name, published=published_sampling(source))


def open_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a model file, which may be one without weights. Raises ModelFileError."""
    from tenth.text.tokenizer import Tokenizer
    from tenth.weights.gguf import read_header

    return Tokenizer.from_metadata(read_header(Path(path)).metadata)


def _config(named: dict[str, Any], settings: dict[str, Any]) -> EngineConfig:
    known = [f.name for f in fields(EngineConfig)]
    for name in settings:
        if name not in known:
            raise RequestError(f"there is no setting {name!r}", f"there are: {', '.join(known)}")
    return EngineConfig(**{**named, **settings})
