"""Downloading a model: a kill, a full disk or a second pull leaves the old state or the complete model."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tenth.errors import Cause, ModelFileError, ResourceError
from tenth.library import store
from tenth.library.partial import Partial, require_room
from tenth.library.progress import Progress, silent
from tenth.library.resolving import named_source
from tenth.library.sources import RemoteFile, Source
from tenth.library.store import FileRecord, Record


def pull(name: str, *, progress: Progress | None = None, force: bool = False) -> Record:
    """Bring a model into the library and give its record; a model that is already here and unchanged is left alone.

    Goes on where an earlier pull stopped; waits while another process pulls the same model. ``force`` downloads also
    what is here, which stays in place until the new files are complete. Raises RequestError, ResourceError,
    ModelFileError; what was saved of a broken-off download stays, what proved wrong is deleted.
    """
    source = named_source(name, "pull")
    progress = progress or silent
    folder = store.model_folder(source.key)
    try:
        with store.locked(
            source.key, lambda: progress(f"waiting for another pull of {source.name}", _arrived(folder), 0)
        ):
            record = None if force else _usable_record(source, progress)
            if record is None:
                return _download(source, folder, progress)
            _sweep(folder, keep=record.generation)
            return record
    except OSError as error:
        raise _disk_error(source.name, error) from error


def _arrived(folder: Path) -> int:
    """Bytes of the pull under way, to show while waiting for it."""
    incoming = folder / store.INCOMING
    try:
        return sum(entry.stat().st_size for entry in incoming.iterdir())
    except OSError:
        return 0


def _usable_record(source: Source, progress: Progress) -> Record | None:
    """The record if the model is here in its right form; a file that was only touched is hashed and recorded anew."""
    try:
        record = store.read_record(source.key)
        if record is None or record.changed_file() is None:
            return record
        from tenth.library.verifying import recheck

        return recheck(record, progress)
    except ModelFileError:  # a damaged record: the pull replaces it
        return None


def _download(source: Source, folder: Path, progress: Progress) -> Record:
    """Fetch every file into ``incoming``, then publish them together. The lock is held."""
    incoming = store.inside(folder, store.INCOMING)
    temp_folder = _fresh_temp_folder(source.key)
    try:
        _recover(folder, incoming)
        incoming.mkdir(parents=True, exist_ok=True)
        plan = source.plan(str(temp_folder))
        missing = sum(file.size_bytes or 0 for file in plan) - _arrived(folder)
        require_room(incoming, missing, source.name)
        files = _fetch_all(source.name, plan, incoming, progress)
        return _publish(source, folder, incoming, files)
    finally:
        shutil.rmtree(temp_folder.parent, ignore_errors=True)


def _fresh_temp_folder(key: str) -> Path:
    """An empty folder for what a source needs on the way. Call under the lock: it deletes what an earlier pull left.

    Of a new name: of a pull that was killed, a process may live on and write where the earlier one was.
    """
    folder = store.inside(store.library_folder(), "tmp", key)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=folder))


def _recover(folder: Path, incoming: Path) -> None:
    """Put files that a pull renamed into place without recording them back to ``incoming``, where they are checked."""
    try:
        record = store.read_record(folder.name)
    except ModelFileError:
        record = None
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name == store.INCOMING or not entry.is_dir() or (record and entry.name == record.generation):
            continue
        if incoming.exists():
            shutil.rmtree(entry)
        else:
            entry.rename(incoming)


def _fetch_all(name: str, plan: list[RemoteFile], incoming: Path, progress: Progress) -> list[FileRecord]:
    """Every file of the plan, complete and checked, in ``incoming``."""
    wanted = {store.safe_name(file.name, "a file of the model") for file in plan}
    if len(wanted) != len(plan):
        raise ModelFileError(f"{name} lists two files of one name")
    files: list[FileRecord] = []
    total = sum(file.size_bytes or 0 for file in plan) if all(file.size_bytes for file in plan) else 0
    for file in plan:
        before = sum(done.size_bytes for done in files)
        files.append(_fetch_one(name, file, incoming, before, total, progress))
    keep = wanted | {file + ".state" for file in wanted}
    for entry in incoming.iterdir():
        if entry.name not in keep:  # what a pull of other files under this name left
            entry.unlink()
    return files


def _fetch_one(
    name: str, file: RemoteFile, incoming: Path, before_bytes: int, total_bytes: int, progress: Progress
) -> FileRecord:
    def reporter(what: str) -> Callable[[int], None]:
        return lambda n_bytes: progress(
            what, before_bytes + n_bytes, total_bytes or before_bytes + (partial.size_bytes or 0)
        )

    with Partial(incoming / file.name, file.identity, file.size_bytes, file.sha256) as partial:
        checking, pulling = reporter(f"checking what is here of {name}"), reporter(f"pulling {name}")
        adopted = partial.adopt(checking)
        if adopted is not None:
            return adopted
        partial.resume(checking)
        try:
            pulling(partial.n_bytes)
            file.fetch(partial, pulling)
            record = partial.finish()
            pulling(record.size_bytes)
            return record
        except BaseException as error:
            if isinstance(error, ModelFileError) or not partial.n_bytes:  # nothing that a later pull could go on from
                partial.discard()
            raise


def _publish(source: Source, folder: Path, incoming: Path, files: list[FileRecord]) -> Record:
    """Rename the finished folder into place, commit the record, then delete what it replaces."""
    digest = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()[:12]
    generation = digest
    while (
        folder / generation
    ).exists():  # the same bytes anew, by force or as a repair: never touch the recorded folder
        generation += "a"
    target = store.inside(folder, generation)
    os.rename(incoming, target)
    store.sync_folder(folder)
    moment = store.now()
    record = Record(source.name, source.key, source.origin, generation, moment, moment, tuple(files))
    store.write_record(record)
    _sweep(folder, keep=generation)
    for state in target.glob("*.state"):
        state.unlink(missing_ok=True)
    return record


def _sweep(folder: Path, keep: str) -> None:
    """Delete what the record does not name: older files, and pulls that were never finished."""
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != keep:
            shutil.rmtree(entry, ignore_errors=True)


def _disk_error(name: str, error: OSError) -> ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(
            f"no room on the disk for {name}: {error.strerror}",
            f"free some space and pull again: it goes on from here; `tenth rm {name}` gives back what came so far",
            cause=Cause("disk-full"),
        )
    return ResourceError(
        f"{name} could not be stored: {error}", f"check the folder {store.library_folder()}, or set TENTH_HOME",
        cause=Cause("storage-fails"),
    )
