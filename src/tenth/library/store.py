"""The library's folder on disk: layout, records, locks, and writes that are whole or absent.

    <library folder>/
      models/<key>/record.json            the commit point: a model is here when its record is
      models/<key>/<digest>/<file>        its complete files (several when it is split into shards)
      models/<key>/incoming/              a pull under way: <file>.partial, <file>.state, finished <file>s
      locks/<key>.lock                    flock: one pull, verify or rm of a model at a time, over all processes
      tmp/<key>/<random>/                 what a source needs on the way; emptied by the next pull

A pull renames ``incoming`` to ``<digest>`` as one step, then replaces the record as another, so a kill leaves the old
model or the new one. Names become folders only after ``safe_name``; symbolic links inside the library are refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tenth.errors import Cause, ModelFileError, ResourceError

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
RECORD = "record.json"
INCOMING = "incoming"


def library_folder() -> Path:
    """The one folder that holds everything: ``TENTH_HOME``, or the platform's folder for user data."""
    home = os.environ.get("TENTH_HOME")
    if home:
        return Path(home).expanduser().resolve()
    import platformdirs

    return Path(platformdirs.user_data_dir("tenth", appauthor=False)).resolve()


def is_sha256(text: object) -> bool:
    """Whether this is a sha256 in 64 lower-case hex digits."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def safe_name(name: str, what: str) -> str:
    """``name`` if it can be one file or folder name and nothing else. Raises ModelFileError."""
    if not _SAFE_NAME.fullmatch(name) or ".." in name:
        raise ModelFileError(f"{what} is {name!r}, expected letters, digits and . _ + - only, without '..'")
    return name


def inside(folder: Path, *parts: str) -> Path:
    """``folder/part/…`` after checking that it stays inside and passes no symbolic link. Raises ModelFileError."""
    path = folder
    for part in parts:
        path = path / safe_name(part, "a name in the library")
        if path.is_symlink():
            raise ModelFileError(
                f"{path} is a symbolic link", "the library follows none: replace it by the file itself"
            )
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelFileError(f"{path} lies outside the library")
    return path


def models_folder() -> Path:
    """Where the models are: ``models`` in the library, which its owner may have made a link to another disk."""
    return (library_folder() / "models").resolve()


def model_folder(key: str) -> Path:
    """The folder of the model with this key; it need not exist."""
    return inside(models_folder(), key)


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder, links aside. What a pull moves or deletes meanwhile does not count."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found = os.lstat(os.path.join(where, name))
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


@dataclass(frozen=True)
class FileRecord:
    """One complete file: ``mtime_ns`` and size tell cheaply that it is the one that was hashed."""

    file: str
    size_bytes: int
    mtime_ns: int
    sha256: str
    pinned: bool  # whether the digest was known before the download (catalogue, hub, URL fragment)


@dataclass(frozen=True)
class Record:
    """What is known about a model of the library. Times are ISO 8601, UTC."""

    name: str
    key: str
    origin: str
    generation: str  # the folder of its files
    pulled_at: str
    verified_at: str
    files: tuple[FileRecord, ...]

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.files)

    def path_of(self, file: FileRecord) -> Path:
        """Where this file lies. Raises ModelFileError when it would leave the library."""
        return inside(models_folder(), self.key, self.generation, file.file)

    def paths(self) -> list[Path]:
        """All files, the first shard first."""
        return [self.path_of(file) for file in self.files]

    def changed_file(self) -> str | None:
        """A sentence about the first file that is no longer as it was when it was hashed, or None."""
        for file in self.files:
            try:
                found = os.stat(self.path_of(file), follow_symlinks=False)
            except OSError:
                return f"its file {file.file} is gone"
            if found.st_size != file.size_bytes:
                return f"its file {file.file} has {found.st_size} bytes, expected {file.size_bytes}"
            if found.st_mtime_ns != file.mtime_ns:
                return f"its file {file.file} was written to"
        return None


def now() -> str:
    """This moment, UTC, ISO 8601, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read_record(key: str) -> Record | None:
    """The record of the model with this key, or None when it is not here. Raises ModelFileError when damaged."""
    path = inside(model_folder(key), RECORD)
    try:
        raw = json.loads(path.read_bytes())
        files = tuple(FileRecord(**file) for file in raw.pop("files"))
        record = Record(**raw, files=files)
        _check(record, key)
        return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelFileError(
            f"the record {path} is damaged: {error}", "`tenth rm` the model and pull it again"
        ) from error


def _check(record: Record, key: str) -> None:
    texts = (record.name, record.origin, record.pulled_at, record.verified_at, record.generation)
    if record.key != key or not record.files or not all(isinstance(text, str) for text in texts):
        raise ValueError("fields are missing or of the wrong kind")
    for file in record.files:
        if not (isinstance(file.size_bytes, int) and isinstance(file.mtime_ns, int) and is_sha256(file.sha256)):
            raise ValueError(f"size, time or sha256 of {file.file!r} cannot be used")


def write_record(record: Record) -> None:
    """Replace the record, durably, in one step."""
    write_json(inside(model_folder(record.key), RECORD), asdict(record))


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as JSON: after a kill or a power cut the old or the new content is there."""
    temporary = path.with_name(path.name + ".new")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(key: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the model's lock. Waits while another process holds it, calling ``on_wait`` now and then; without
    ``on_wait`` raises ResourceError at once. The lock file stays: deleting it would let two owners in.
    """
    folder = library_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(inside(folder, key + ".lock"), flags, 0o644)
    try:
        while not _try_lock(descriptor):
            if on_wait is None:
                raise ResourceError(
                    f"another process is pulling or checking {key}", "wait until it is done, or stop it",
                    cause=Cause("download-elsewhere", name=key),
                )
            on_wait()
            time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)  # closing releases the lock


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def all_keys() -> list[str]:
    """Keys of every model folder, complete or not, in order."""
    folder = models_folder()
    if not folder.is_dir():
        return []
    entries = (entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())
    return sorted(entry.name for entry in entries if _SAFE_NAME.fullmatch(entry.name))
