"""Deleting a model of the library, and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tenth.errors import RequestError, ResourceError
from tenth.library import store
from tenth.library.resolving import library_key


@dataclass(frozen=True)
class Removal:
    """What ``remove`` deletes, or has deleted."""

    name: str
    key: str
    folder: Path
    size_bytes: int


def plan_removal(name: str) -> Removal:
    """What ``remove`` would delete: also what a broken-off pull left. Raises RequestError."""
    name, key = library_key(name, "rm")
    folder = store.model_folder(key)
    if not folder.is_dir():
        raise RequestError(f"{name} is not in the library", "`tenth list` shows what is")
    return Removal(name, key, folder, store.size_of(folder))


def remove(name: str) -> Removal:
    """Delete a model: its record first, so that a kill leaves at most leftovers, which a further ``remove`` deletes.

    Raises RequestError (a path, or not here), ResourceError (a pull or check of it is under way; files cannot be
    deleted).
    """
    removal = plan_removal(name)
    with store.locked(removal.key):
        try:
            if not removal.folder.is_dir():
                raise RequestError(f"{removal.name} was removed meanwhile")
            (removal.folder / store.RECORD).unlink(missing_ok=True)
            shutil.rmtree(removal.folder)
            shutil.rmtree(store.inside(store.library_folder(), "tmp", removal.key), ignore_errors=True)
        except OSError as error:
            raise ResourceError(f"{removal.name} could not be deleted: {error}", f"check {removal.folder}") from error
    return removal
