"""Where the server's state lies: one interface, two databases.

    sqlite.py      a file (the default)
    postgres.py    PostgreSQL, by a URL; its driver is imported only then

Statements are written once, for both: with "?" for values and without dialect. What differs in making tables is
replaced by ``postgres.py``; a step that is really different is a pair.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

from tenth.errors import RequestError
from tenth.server.failures import Refused

Step = str | tuple[str, str]  # statements that make tables: for both databases, or (SQLite's, PostgreSQL's)
Kind = Literal["sqlite", "postgres"]
SCHEMES = ("postgresql://", "postgres://")


class Conflict(Refused):
    """What was to be stored is there already, or was changed by somebody else at the same time."""

    def __init__(self) -> None:
        super().__init__(409, "this was changed by somebody else at the same time", "try again")


class Cursor(Protocol):
    """The result of a statement. Rows are had by name or number."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows."""


class Database(Protocol):
    """What a transaction gives."""

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        """One statement."""

    def executemany(self, sql: str, parameters: Any, /) -> Cursor:
        """One statement for many rows of values."""


EVERYBODY = "*"


class Engine(Protocol):
    """An open database. Methods may be called from any thread."""

    kind: Kind

    def migrate(self, steps: tuple[Step, ...]) -> None:
        """Do the steps that were not done yet."""

    def transaction(self, *owners: str) -> AbstractContextManager[Database]:
        """A transaction that is on the disk when the block has ended, or not there at all.

        ``owners``: whose chats, folders or presets it changes; other servers have their pages read again.
        """

    def query(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        """Rows of a SELECT."""

    def changed_elsewhere(self) -> set[str]:
        """For whom another process has written, or may have, since the last call; of the first one it is not said.

        EVERYBODY is in it where that is not known.
        """

    def forget(self) -> bool:
        """Leave nothing of what was deleted in files beside the database's. False: not now, somebody reads them."""

    def close(self) -> None:
        """Close it."""


def open_engine(where: Path | str) -> Engine:
    """The database in a file, or of a URL. Raises ResourceError for what cannot be opened."""
    if isinstance(where, Path):
        from tenth.server.databases.sqlite import Sqlite

        return Sqlite(where)
    if not where.startswith(SCHEMES):
        raise RequestError(f"the database {where.partition(':')[0]!r} is not supported",
                           "postgresql://USER@HOST/NAME; without one, a file is used")
    from tenth.server.databases.postgres import Postgres

    return Postgres(where)
