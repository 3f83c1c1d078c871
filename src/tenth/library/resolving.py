"""What a model name means: a row of the catalogue, a prefixed name or URL, or a path; and the local file behind it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tenth.errors import ModelFileError, RequestError
from tenth.library import catalogue, sources
from tenth.library.progress import Progress
from tenth.library.sources import Source
from tenth.library.store import Record, all_keys, read_record


def resolve(name: str, *, progress: Progress | None = None, download: bool = True) -> Path:
    """The local file (first shard) of a catalogue name, ``hf:`` name, URL or path; downloads it when it is not here.

    Raises RequestError (no such model, or not here and ``download`` is False), ModelFileError (changed since it was
    pulled, or the download is not what it should be), ResourceError (network, disk).
    """
    found = interpret(name)
    if isinstance(found, Path):
        return _existing_file(found)
    record = read_record(found.key)
    if record is None:
        if not download:
            raise RequestError(f"{found.name} is not in the library", f"`tenth pull {found.name}` downloads it")
        from tenth.library.pulling import pull

        record = pull(name, progress=progress)
    change = record.changed_file()
    if change is not None:
        raise ModelFileError(
            f"{record.name} is not as it was pulled: {change}",
            f"`tenth verify {record.name}` recomputes its sha256; `tenth pull {record.name}` repairs it",
        )
    return record.paths()[0]


def here(name: str) -> Path | None:
    """The local file of a name, as ``resolve`` gives it, if there is one without downloading. Raises as it does."""
    found = interpret(name)
    if not isinstance(found, Path) and read_record(found.key) is None:
        return None
    return resolve(name, download=False)


def interpret(name: str) -> Source | Path:
    """The source a name stands for, or the path it is. Raises RequestError when it is neither.

    A catalogue name wins over a file of that name in the current folder: write ./name for the file.
    """
    if not name or "\0" in name or len(name) > 4096:
        raise RequestError(f"the model name {name[:40]!r} cannot be used", "`tenth list --all` shows the names")
    model = catalogue.find(name)
    if model is not None:
        return model
    source = sources.parse(name)
    if source is not None:
        return source
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        raise RequestError(f"{name[:80]!r} is an address of a kind that is not known",
                           "https:// and http:// addresses are; hf:org/repo:QUANT names a model of the hub")
    if is_path(name):
        return Path(name).expanduser()
    raise RequestError(f"no model is called {name!r}", _suggestion(name))


def is_path(name: str) -> bool:
    """Whether a name that is in no table reads as a path."""
    return os.sep in name or name.startswith(("~", ".")) or name.lower().endswith(".gguf") or os.path.lexists(name)


def named_source(name: str, purpose: str) -> Source:
    """The source of a name, for commands that work on the library only. Raises RequestError for a path."""
    found = interpret(name)
    if isinstance(found, Path):
        raise RequestError(
            f"{name} is a path, not a model of the library", f"{purpose} works on names: see `tenth list --all`"
        )
    return found


def library_key(name: str, purpose: str) -> tuple[str, str]:
    """(name, key) of a model that may be in the library, also one that the catalogue no longer has."""
    for record in _records():
        if record.name == name:
            return record.name, record.key
    if name in all_keys():  # how `list` calls a pull that broke off
        return name, name
    source = named_source(name, purpose)
    return source.name, source.key


def _records() -> list[Record]:
    records = []
    for key in all_keys():
        try:
            record = read_record(key)
        except ModelFileError:  # a damaged record must not stand in the way of other models
            continue
        if record is not None:
            records.append(record)
    return records


def _existing_file(path: Path) -> Path:
    if path.is_dir():
        raise RequestError(
            f"{path} is a folder, expected a GGUF file", "give the .gguf file in it (of several shards, the first)"
        )
    if not path.is_file():
        raise RequestError(f"there is no file {path}", "`tenth list --all` shows models that can be had by name")
    return path


def _suggestion(name: str) -> str:
    import difflib

    known = {model.name for model in catalogue.CATALOGUE.values()} | {record.name for record in _records()}
    close = difflib.get_close_matches(name.lower(), sorted(known), n=3, cutoff=0.5)
    start = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{start}`tenth list --all` shows the names; hf:org/repo:QUANT, https:// addresses and paths work too"
