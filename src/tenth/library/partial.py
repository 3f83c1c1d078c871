"""One file on its way in: bytes are appended, hashed as they come, and published only when they are the right ones.

``<file>.partial`` holds the bytes; ``<file>.state`` says how many of them are known to be on disk (written after an
fsync, so a power cut cannot make it lie), how many parts of a many-part source they make up, and what they belong to.
Resuming cuts the partial back to that count. So a kill costs at most what came since the last ``checkpoint``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tenth.errors import Cause, ModelFileError, ResourceError
from tenth.library.store import FileRecord, is_sha256, sync_folder, write_json

_READ_BYTES = 1 << 20
_MAGIC = b"GGUF"


class Partial:
    """The partial download of one file. A context manager: leaving it closes the file and keeps what was saved.

    ``n_bytes``: bytes so far; ``n_parts``: parts joined so far; ``validator``: what the server calls this version.
    """

    def __init__(self, target: Path, identity: str, size_bytes: int | None, sha256: str | None):
        if sha256 is not None and not is_sha256(sha256):
            raise ModelFileError(f"sha256 of {target.name} is {sha256!r}, expected 64 lower-case hex digits")
        self.target = target
        self.path = target.with_name(target.name + ".partial")
        self.size_bytes = size_bytes
        self.sha256 = sha256
        self.n_bytes = 0
        self.n_parts = 0
        self.validator: str | None = None
        self._pinned_bytes = size_bytes
        self._identity = identity
        self._state_path = target.with_name(target.name + ".state")
        self._hash = hashlib.sha256()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = open(os.open(self.path, flags, 0o644), "r+b")  # noqa: SIM115  (closed by __exit__)

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError:
            if value is None:  # a full disk refuses the flush too; the first error is the one to tell
                raise

    def resume(self, report: Callable[[int], None]) -> None:
        """Take up what an earlier pull saved of these very bytes: cut to the saved count, hash it, go to its end."""
        state = self._read_state()
        if state is None:
            self.restart()
            return
        saved_bytes, self.n_parts, self.validator = state
        self._file.truncate(saved_bytes)
        self._file.seek(0)
        while self.n_bytes < saved_bytes:
            data = self._file.read(min(_READ_BYTES, saved_bytes - self.n_bytes))
            self._hash.update(data)
            self.n_bytes += len(data)
            report(self.n_bytes)

    def _read_state(self) -> tuple[int, int, str | None] | None:
        """(bytes, parts, validator) if the state is sound, of this identity, and covered by the partial; else None."""
        try:
            state = json.loads(self._state_path.read_bytes())
            n_bytes, n_parts, validator = state["n_bytes"], state["n_parts"], state["validator"]
            if state["identity"] != self._identity:
                return None
        except (OSError, ValueError, TypeError, KeyError):
            return None
        counts_fit = isinstance(n_bytes, int) and isinstance(n_parts, int) and n_parts >= 0
        if not counts_fit or not isinstance(validator, str | None):
            return None
        longest = min(os.fstat(self._file.fileno()).st_size, self.size_bytes or n_bytes)
        return (n_bytes, n_parts, validator) if 0 <= n_bytes <= longest else None

    def expect_size(self, size_bytes: int) -> None:
        """The source said only now how long the file is. Raises ResourceError when the disk has no room for it."""
        require_room(self.path.parent, size_bytes - self.n_bytes, self.target.name)
        self.size_bytes = size_bytes

    def restart(self) -> None:
        """Forget everything that came so far."""
        self._state_path.unlink(missing_ok=True)
        self._file.seek(0)
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.size_bytes = self._pinned_bytes
        self.n_bytes = self.n_parts = 0
        self.validator = None

    def write(self, data: bytes) -> None:
        """Append. Raises ModelFileError when more bytes come than the file has, or when they are no GGUF file."""
        if self.n_bytes < len(_MAGIC):
            self._check_magic(data)
        if self.size_bytes is not None and self.n_bytes + len(data) > self.size_bytes:
            raise ModelFileError(
                f"{self.target.name} is longer than its {self.size_bytes} bytes", "the source has another file"
            )
        self._file.write(data)
        self._hash.update(data)
        self.n_bytes += len(data)

    def _check_magic(self, data: bytes) -> None:
        expected = _MAGIC[self.n_bytes : self.n_bytes + len(data)]
        if not data.startswith(expected):
            raise ModelFileError(
                f"{self.target.name} begins with {data[:4]!r}, expected {_MAGIC!r}",
                "the address leads to something else than a GGUF model, often a web page",
                cause=Cause("download-no-model"),
            )

    def checkpoint(self, sha256: str | None = None) -> None:
        """Make sure that a later pull can go on from here. ``sha256``: of the whole file, once it is complete."""
        self._file.flush()
        os.fsync(self._file.fileno())
        state = {
            "identity": self._identity,
            "n_bytes": self.n_bytes,
            "n_parts": self.n_parts,
            "validator": self.validator,
        }
        write_json(self._state_path, state | {"sha256": sha256})

    def finish(self) -> FileRecord:
        """Check length and sha256, then give the file its name. Raises ModelFileError when they differ."""
        found = self._hash.hexdigest()
        if self.size_bytes is not None and self.n_bytes != self.size_bytes:
            raise ModelFileError(f"{self.target.name} has {self.n_bytes} bytes, expected {self.size_bytes}")
        if self.n_bytes < len(_MAGIC):
            raise ModelFileError(f"{self.target.name} has {self.n_bytes} bytes, too few for a GGUF file",
                                 cause=Cause("download-no-model"))
        if self.sha256 is not None and found != self.sha256:
            raise ModelFileError(
                f"{self.target.name} has sha256 {found}, expected {self.sha256}",
                "the download was deleted: pull again, and do not trust the source if it stays so",
                cause=Cause("download-damaged"),
            )
        self.checkpoint(found)
        os.replace(self.path, self.target)
        sync_folder(self.target.parent)
        return record_of(self.target, found, pinned=self.sha256 is not None)

    def adopt(self, report: Callable[[int], None]) -> FileRecord | None:
        """The record of a complete file that a killed pull left under its final name, hashed anew; or None."""
        try:
            state = json.loads(self._state_path.read_bytes())
            expected = self.sha256 or state["sha256"]
            if state["identity"] != self._identity or hash_file(self.target, report) != expected:
                return None
        except (OSError, ValueError, TypeError, KeyError):
            return None
        self.path.unlink(missing_ok=True)
        return record_of(self.target, expected, pinned=self.sha256 is not None)

    def discard(self) -> None:
        """Delete the partial and its state: what came cannot be used."""
        self.path.unlink(missing_ok=True)
        self._state_path.unlink(missing_ok=True)


def require_room(folder: Path, n_bytes: int, name: str) -> None:
    """Raises ResourceError when the disk has fewer than ``n_bytes`` left."""
    free_bytes = shutil.disk_usage(folder).free
    if n_bytes > free_bytes:
        raise ResourceError(
            f"{name} needs {n_bytes / 1e6:.0f} MB more, and the disk of {folder} has {free_bytes / 1e6:.0f} MB left",
            "free some space, or set TENTH_HOME to a folder on another disk",
            cause=Cause("download-room", bytes=n_bytes, free=free_bytes),
        )


def record_of(path: Path, sha256: str, pinned: bool) -> FileRecord:
    """What to remember about a complete file whose digest was just computed."""
    found = os.stat(path, follow_symlinks=False)
    return FileRecord(path.name, found.st_size, found.st_mtime_ns, sha256, pinned)


def hash_file(path: Path, report: Callable[[int], None]) -> str:
    """sha256 of a file in hex; ``report`` hears the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
            done += len(data)
            report(done)
    return digest.hexdigest()
