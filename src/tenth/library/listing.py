"""What is in the library, and what could be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tenth.errors import ModelFileError
from tenth.library import catalogue, store
from tenth.library.store import Record

State = Literal["ready", "changed", "incomplete", "damaged", "available"]


@dataclass(frozen=True)
class Entry:
    """One model. Sizes in bytes, times ISO 8601 UTC or "" when it is not here.

    ``state``: ready; changed (files differ from the record); incomplete (a pull broke off or is under way:
    ``size_bytes`` is what came so far); damaged (its record cannot be read); available (in the catalogue, not here).
    """

    name: str
    state: State
    size_bytes: int
    pulled_at: str
    verified_at: str
    pinned: bool  # sha256 known beforehand, from the catalogue, the hub or the address
    origin: str
    description: str
    licence: str
    path: Path | None


def list_models(*, available: bool = False) -> list[Entry]:
    """Models of the library by name; with ``available`` also those of the catalogue that are not here."""
    entries = [entry for entry in map(_entry, store.all_keys()) if entry is not None]
    if available:
        here = {entry.name for entry in entries}
        entries += [_of_catalogue(model) for model in catalogue.CATALOGUE.values() if model.name not in here]
    return sorted(entries, key=lambda entry: (entry.state == "available", entry.name))


def _of_catalogue(model: catalogue.CatalogueModel) -> Entry:
    return Entry(
        model.name, "available", model.size_bytes, "", "", True, model.origin, model.description, model.licence, None
    )


def _entry(key: str) -> Entry | None:
    """What is known of the model folder with this key; None when it holds no bytes."""
    try:
        record = store.read_record(key)
        if record is not None:
            return _of_record(record)
        state: State = "incomplete"
    except ModelFileError:
        state = "damaged"
    model = next((model for model in catalogue.CATALOGUE.values() if model.key == key), None)
    description, licence, origin = (model.description, model.licence, model.origin) if model else ("", "", "")
    size_bytes = store.size_of(store.models_folder() / key)
    if not size_bytes:
        return None
    return Entry(model.name if model else key, state, size_bytes, "", "", False, origin, description, licence, None)


def _of_record(record: Record) -> Entry:
    model = catalogue.CATALOGUE.get(record.name)
    try:
        changed, path = record.changed_file() is not None, record.paths()[0]
    except ModelFileError:
        return Entry(record.name, "damaged", record.size_bytes, "", "", False, record.origin, "", "", None)
    return Entry(
        name=record.name,
        state="changed" if changed else "ready",
        size_bytes=record.size_bytes,
        pulled_at=record.pulled_at,
        verified_at=record.verified_at,
        pinned=all(file.pinned for file in record.files),
        origin=record.origin,
        description=model.description if model else "",
        licence=model.licence if model else "",
        path=path,
    )
