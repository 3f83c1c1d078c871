"""What survives a restart: one SQLite file, or a PostgreSQL database.

Its tables are made by numbered steps (``STEPS``), which are never changed once landed. A commit is on the disk before
it is acknowledged; a full disk is a Refused with status 507, after which everything is what it was before.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from tenth.library import library_folder
from tenth.server.chats.schema import ACCOUNTS, CHATS, FOUND, MORE, OWNERS, PAIRED, REVS
from tenth.server.databases import Database, Step, open_engine
from tenth.server.failures import Refused

T = TypeVar("T")
VARIABLE = "TENTH_DATABASE"
RETRY_S = 1.0
MOST_KEPT = 100_000

STEPS: tuple[Step, ...] = (
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
    FOUND,
    MORE,
    PAIRED,
    REVS,
    OWNERS,
)


def state_file() -> Path:
    """Where the state lies: beside the models."""
    return library_folder() / "server" / "state.db"


def state_place(database: str | None = None) -> Path | str:
    """Where the state lies: the database asked for, else that of TENTH_DATABASE, else the file."""
    return database or os.environ.get(VARIABLE) or state_file()


class State:
    """The open database. Methods may be called from any thread; ``run`` from the event loop.

    ``most_kept``: responses of one owner, and chats; of batches, which have many lines, a hundredth.
    """

    def __init__(self, where: Path | str, most_kept: int = MOST_KEPT) -> None:
        self._most = {"responses": most_kept, "chats": most_kept, "batches": max(1, most_kept // 100)}
        self.engine = open_engine(where)
        try:
            self.engine.migrate(STEPS)
        except BaseException:
            self.engine.close()
            raise

    def transaction(self, *owners: str) -> AbstractContextManager[Database]:
        """A transaction that is on the disk when the block has ended, or not there at all; see Engine."""
        return self.engine.transaction(*owners)

    def make_room(self, db: Database, table: str, owner: str) -> None:
        """Refuse (507) one more of an owner's things than are kept of one."""
        most = self._most[table]
        if db.execute(f"SELECT count(*) AS n FROM {table} WHERE owner = ?", (owner,)).fetchone()["n"] >= most:
            raise Refused(507, f"you have {most} {table} here, and no more are kept for one key or account",
                          "delete some, or start the server with a greater --most-kept")

    def query(self, sql: str, *values: Any) -> list[Any]:
        """Rows of a SELECT."""
        return self.engine.query(sql, values)

    async def run(self, work: Callable[..., T], *values: Any) -> T:
        """The result of something that uses this state, without stopping the event loop."""
        return await asyncio.to_thread(work, *values)

    def close(self) -> None:
        """Close it."""
        self.engine.close()


async def patiently(work: Callable[..., T], *values: Any) -> T:
    """The result of something that uses a state, tried until it can be had: for what nobody waits for.

    A disk that is full or fails is well again some time, and what was made meanwhile should not be lost.
    """
    while True:
        try:
            return await asyncio.to_thread(work, *values)
        except Refused as error:
            if error.status not in (503, 507):
                raise
        await asyncio.sleep(RETRY_S)
