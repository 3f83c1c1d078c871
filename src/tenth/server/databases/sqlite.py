"""SQLite: one file, in WAL mode, with every commit on the disk before it is acknowledged.

One connection writes, another one reads beside it. What is deleted is overwritten with zeros (secure_delete), and
``forget`` removes it from the write-ahead log too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tenth.errors import Cause, ResourceError
from tenth.server.databases import EVERYBODY, Conflict, Kind, Step
from tenth.server.failures import Refused

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON", "cache_size=-4000",
           "journal_size_limit=16777216", "recursive_triggers=ON")

FAILURES = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)  # what SQLite says of a bad disk
LITTLE_BYTES = 1 << 16  # a disk with less is full: a sync that fails for it has no name of its own

WAIT_MS = 10_000  # for another program's writing

log = logging.getLogger("tenth.server")


class Sqlite:
    """See Engine."""

    kind: Kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing, self._reading = threading.Lock(), threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            self._writer, self._reader = self._connect(), self._connect()
            self._reader.execute("PRAGMA query_only=ON")
            self._version = self._others()
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=WAIT_MS / 1000)
        db.row_factory = sqlite3.Row
        for pragma in PRAGMAS:
            db.execute(f"PRAGMA {pragma}")
        return db

    def _unusable(self, error: Exception) -> ResourceError:
        return ResourceError(f"{self._path}: the server's state cannot be opened: {error}",
                             "is the disk full, or the folder not writable?")

    def migrate(self, steps: tuple[Step, ...]) -> None:
        """See Engine. The number of steps done is the file's user_version."""
        try:
            with self._writing:
                if (done := self._done()) > len(steps):
                    raise ResourceError(f"{self._path}: the server's state was written by a newer tenth (format "
                                        f"{done}, expected {len(steps)})", "use that one, or another TENTH_HOME")
                for number, step in enumerate(steps, 1):
                    self._do(number, step if isinstance(step, str) else step[0])
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _done(self) -> int:
        (done,) = self._writer.execute("PRAGMA user_version").fetchone()
        return int(done)

    def _do(self, number: int, sql: str) -> None:
        """Do a step, unless it was done, by another process perhaps at this moment."""
        if self._done() >= number:
            return
        try:
            self._writer.executescript(f"BEGIN IMMEDIATE; {sql}; PRAGMA user_version={number}; COMMIT;")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            if self._done() < number:
                raise

    @contextlib.contextmanager
    def transaction(self, *owners: str) -> Iterator[sqlite3.Connection]:
        """See Engine."""
        with self._writing:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._refused(error) from error
                raise

    def query(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        """See Engine."""
        with self._reading:
            try:
                return self._reader.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._refused(error) from error

    def changed_elsewhere(self) -> set[str]:
        """See Engine. data_version counts the commits of others, as the writing connection sees them."""
        with self._writing:
            try:
                before, self._version = self._version, self._others()
            except sqlite3.Error as error:
                raise self._refused(error) from error
        return {EVERYBODY} if before != self._version else set()

    def _others(self) -> int:
        (version,) = self._writer.execute("PRAGMA data_version").fetchone()
        return int(version)

    def forget(self) -> bool:
        """Have the file's log hold nothing any more, deleted things included. False: another program reads it."""
        with self._writing:
            try:
                self._writer.execute("PRAGMA busy_timeout=0")  # whoever writes is not to wait for that program
                (is_busy, _, _) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                return not is_busy
            except sqlite3.Error:
                return False
            finally:
                with contextlib.suppress(sqlite3.Error):  # it may have been closed
                    self._writer.execute(f"PRAGMA busy_timeout={WAIT_MS}")

    def _refused(self, error: sqlite3.Error) -> Exception:
        """507 for a full disk, 503 for one that fails or is taken; what is our own mistake stays as it is."""
        if isinstance(error, sqlite3.IntegrityError):
            return Conflict()
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (code in FAILURES and self._is_full()):
            return Refused(507, "the disk is full: nothing was stored", cause=Cause("disk-full"))
        if code == sqlite3.SQLITE_BUSY:
            return Refused(503, "the server's state is in use by another program", retry_after_s=5,
                           cause=Cause("storage-busy"))
        if code in FAILURES:
            log.error("cannot write %s: %s", self._path, error)
            return Refused(503, "the disk fails: nothing was stored", "the server's log says more", retry_after_s=5,
                           cause=Cause("storage-fails"))
        return error

    def _is_full(self) -> bool:
        try:
            return shutil.disk_usage(self._path.parent).free < LITTLE_BYTES
        except OSError:
            return False

    def close(self) -> None:
        """See Engine."""
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()
