"""Recomputing the digests of a model that is here, and telling what was found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tenth.errors import RequestError
from tenth.library import catalogue, store
from tenth.library.partial import hash_file, record_of
from tenth.library.progress import Progress, silent
from tenth.library.resolving import library_key
from tenth.library.store import FileRecord, Record


@dataclass(frozen=True)
class FileCheck:
    """One file: the digest it should have and the one it has (None: it cannot be read)."""

    path: Path
    size_bytes: int
    expected_sha256: str
    found_sha256: str | None

    @property
    def ok(self) -> bool:
        """Whether they agree."""
        return self.expected_sha256 == self.found_sha256


@dataclass(frozen=True)
class Verification:
    """What verify found. ``pinned``: the digests were known before the download, not only computed after it."""

    name: str
    files: tuple[FileCheck, ...]
    pinned: bool

    @property
    def ok(self) -> bool:
        """Whether every file has the bytes it should have."""
        return all(file.ok for file in self.files)


def verify(name: str, *, progress: Progress | None = None) -> Verification:
    """Recompute the sha256 of every file of a model in the library and compare with its record (and the catalogue).

    A model that proves right is recorded as verified now. Raises RequestError when it is not here, ResourceError while
    a pull holds it, ModelFileError for a damaged record; a digest that differs is a result, not an error.
    """
    name, key = library_key(name, "verify")
    if store.read_record(key) is None:
        raise RequestError(f"{name} is not in the library", f"`tenth pull {name}` downloads it")
    with store.locked(key):
        record = store.read_record(key)
        if record is None:
            raise RequestError(f"{name} was removed meanwhile", f"`tenth pull {name}` downloads it")
        return _check(record, progress or silent)


def recheck(record: Record, progress: Progress) -> Record | None:
    """The renewed record of a model whose bytes are right though its files were touched, or None. The lock is held."""
    return store.read_record(record.key) if _check(record, progress).ok else None


def _check(record: Record, progress: Progress) -> Verification:
    checks: list[FileCheck] = []
    for file in record.files:
        done = sum(check.size_bytes for check in checks)
        checks.append(_check_file(record, file, done, progress))
    result = Verification(record.name, tuple(checks), all(file.pinned for file in record.files))
    if result.ok:
        files = tuple(record_of(record.path_of(f), f.sha256, f.pinned) for f in record.files)
        store.write_record(replace(record, files=files, verified_at=store.now()))
    return result


def _check_file(record: Record, file: FileRecord, done_bytes: int, progress: Progress) -> FileCheck:
    path = record.path_of(file)

    def report(n_bytes: int) -> None:
        progress(f"checking {record.name}", done_bytes + n_bytes, record.size_bytes)

    try:
        found: str | None = hash_file(path, report)
    except OSError:
        found = None
    return FileCheck(path, file.size_bytes, _expected(record, file), found)


def _expected(record: Record, file: FileRecord) -> str:
    """The catalogue's digest where it has one: a record that was tampered with must not vouch for itself."""
    model = catalogue.CATALOGUE.get(record.name)
    return model.sha256 if model is not None else file.sha256
