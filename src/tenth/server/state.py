"""What survives a restart: one SQLite file, in WAL mode, with every commit on the disk before it is acknowledged.

Its tables are made by numbered steps (``STEPS``, counted in ``user_version``), which are never changed once released.
A full disk is a Refused with status 507, a failing one with 503, after which the file is what it was before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tenth.errors import ResourceError
from tenth.library import library_folder
from tenth.server.chats.schema import ACCOUNTS, CHATS
from tenth.server.failures import Refused

T = TypeVar("T")
log = logging.getLogger("tenth.server")


class Database(Protocol):
    """What a transaction gives: statements with "?" for values."""

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """A cursor, whose rows are had by name or number."""

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        """One statement for many rows of values."""


STEPS = (
    """
    CREATE TABLE keys (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, hash BLOB NOT NULL UNIQUE, scopes TEXT NOT NULL,
        requests_per_minute INTEGER, concurrent INTEGER, created_at REAL NOT NULL, revoked_at REAL
    ) STRICT;
    """,
    """
    CREATE TABLE responses (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at REAL NOT NULL, previous_id TEXT, status TEXT NOT NULL,
        request TEXT NOT NULL, messages TEXT NOT NULL, body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX responses_at_work ON responses (status) WHERE status IN ('queued', 'in_progress');
    """,
    """
    CREATE TABLE files (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at REAL NOT NULL, name TEXT NOT NULL, purpose TEXT NOT NULL,
        bytes INTEGER NOT NULL, content BLOB NOT NULL
    ) STRICT;
    CREATE TABLE batches (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at REAL NOT NULL, input_file TEXT NOT NULL,
        endpoint TEXT NOT NULL, metadata TEXT NOT NULL, status TEXT NOT NULL, ended_at REAL, output_file TEXT,
        error_file TEXT
    ) STRICT;
    CREATE TABLE batch_lines (
        batch TEXT NOT NULL REFERENCES batches (id), n INTEGER NOT NULL, custom TEXT NOT NULL, body TEXT NOT NULL,
        code INTEGER, answer TEXT, PRIMARY KEY (batch, n)
    ) STRICT, WITHOUT ROWID;
    """,
    ACCOUNTS,
    CHATS,
)


def state_file() -> Path:
    """Where the state lies: beside the models."""
    return library_folder() / "server" / "state.db"


class State:
    """The open file. Methods may be called from any thread; ``run`` from the event loop."""

    def __init__(self, path: Path) -> None:
        self._lock, self._path = threading.Lock(), path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
            self._db.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-2000"):
                self._db.execute(f"PRAGMA {pragma}")
            self._migrate(path)
        except (OSError, sqlite3.Error) as error:
            raise ResourceError(f"{path}: the server's state cannot be opened: {error}",
                                "is the disk full, or the folder not writable?") from None

    def _migrate(self, path: Path) -> None:
        (done,) = self._db.execute("PRAGMA user_version").fetchone()
        if done > len(STEPS):
            raise ResourceError(f"{path}: the server's state was written by a newer tenth (format {done}, expected "
                                f"{len(STEPS)})", "use that one, or another TENTH_HOME")
        for number, step in enumerate(STEPS[done:], done + 1):
            self._db.executescript(f"BEGIN IMMEDIATE; {step}; PRAGMA user_version={number}; COMMIT;")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when the block has ended, or not there at all."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._refused(error) from error
                raise

    def query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Rows of a SELECT."""
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    async def run(self, work: Callable[..., T], *values: Any) -> T:
        """The result of something that uses this state, without stopping the event loop."""
        return await asyncio.to_thread(work, *values)

    def _refused(self, error: sqlite3.Error) -> Exception:
        """507 for a full disk, 503 for one that fails; what is our own mistake stays as it is."""
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_FULL or (code & 0xFF in _FAILURES and self._is_full()):
            return Refused(507, "the disk is full: nothing was stored")
        if code & 0xFF in _FAILURES:
            log.error("cannot write %s: %s", self._path, error)
            return Refused(503, "the disk fails: nothing was stored", "the server's log says more", retry_after_s=5)
        return error

    def _is_full(self) -> bool:
        try:
            return shutil.disk_usage(self._path.parent).free < _LITTLE_BYTES
        except OSError:
            return False

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


# What SQLite says when a disk fails, or somebody else keeps the file to himself for long.
_FAILURES = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_LITTLE_BYTES = 1 << 16  # a disk with less is full: the failure may come from syncing, where it has no name of its own
