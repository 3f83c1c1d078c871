"""Folders of chats, and presets: a name for a model and settings."""

from __future__ import annotations

import json
import time
from typing import Any

from tenth.errors import Cause
from tenth.server.failures import Refused
from tenth.server.service import new_id
from tenth.server.state import State

MOST_OF_EACH = 1000  # of one owner


class Shelves:
    """The folders and presets of a state. ``what`` is "folder" or "preset"; others' are as absent as none."""

    def __init__(self, state: State) -> None:
        self._state = state

    def all(self, what: str, owner: str) -> list[dict[str, Any]]:
        """All of an owner's, by name."""
        return [_read(row) for row in self._state.query(f"SELECT * FROM {what}s WHERE owner = ? ORDER BY name, id",
                                                        owner)]

    def add(self, what: str, owner: str, fields: dict[str, Any]) -> dict[str, Any]:
        """A new one."""
        values = {"id": new_id(what + "_"), "owner": owner, "created_at": time.time(), **_stored(fields)}
        with self._state.transaction(owner) as db:
            n = db.execute(f"SELECT count(*) AS n FROM {what}s WHERE owner = ?", (owner,)).fetchone()["n"]
            if n >= MOST_OF_EACH:
                raise Refused(400, f"there are {n} {what}s already", "delete some", cause=Cause(f"{what}s-many", n=n))
            db.execute(f"INSERT INTO {what}s ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
                       tuple(values.values()))
        return self.get(what, owner, values["id"])

    def get(self, what: str, owner: str, id: str) -> dict[str, Any]:
        """One. Refuses (404)."""
        rows = self._state.query(f"SELECT * FROM {what}s WHERE id = ? AND owner = ?", id, owner)
        if not rows:
            raise _absent(what, id)
        return _read(rows[0])

    def change(self, what: str, owner: str, id: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Change fields of one."""
        values = _stored(fields)
        if values:
            sets = ", ".join(f"{name} = ?" for name in values)
            with self._state.transaction(owner) as db:
                db.execute(f"UPDATE {what}s SET {sets} WHERE id = ? AND owner = ?", (*values.values(), id, owner))
        return self.get(what, owner, id)

    def delete(self, what: str, owner: str, id: str) -> None:
        """Delete one; the chats of a folder stay, in none."""
        with self._state.transaction(owner) as db:
            if not db.execute(f"DELETE FROM {what}s WHERE id = ? AND owner = ?", (id, owner)).rowcount:
                raise _absent(what, id)


def _absent(what: str, id: str) -> Refused:
    return Refused(404, f"there is no {what} {id!r}", cause=Cause("gone"))


def _stored(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(value) if name == "settings" else value for name, value in fields.items()}


def _read(row: Any) -> dict[str, Any]:
    shown = {name: row[name] for name in ("id", "name")}
    if "settings" in row.keys():  # noqa: SIM118 (a row's own "in" looks at its values)
        shown |= {"model": row["model"], "settings": json.loads(row["settings"])}
    return shown
