"""Deleting what chats hold: at once where it is little, else in slices, while nobody can see it any more.

What a database's files keep of it until they are cleaned are its traces; they are noted, so that somebody erases them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from tenth.server.chats.rows import AT_WORK, add_row
from tenth.server.chats.search import Index
from tenth.server.databases import Database
from tenth.server.failures import Refused
from tenth.server.service import new_id
from tenth.server.state import State

GONE = "gone "  # stands before the owner of a chat that is being deleted
SLICE = 200  # messages that are deleted at a time
PAUSE_S = 0.002  # between two slices, for whoever waits to write
TRACES = ("", "traces")  # a preference of nobody's: something was deleted, of which traces are left in the files
IS_GONE = f"substr(owner, 1, {len(GONE)}) = '{GONE}'"


class Deletion:
    """Of chats and messages of a state."""

    def __init__(self, state: State, index: Index) -> None:
        self._state, self._index = state, index
        self.was_deleted = threading.Event()  # something was: have its traces erased soon

    def has_traces(self) -> bool:
        """Whether something was deleted whose traces nobody has erased yet."""
        return bool(self._state.query("SELECT value FROM preferences WHERE owner = ? AND name = ?", *TRACES))

    def leave_traces(self, db: Database) -> None:
        """Something is deleted in this transaction, or replaced."""
        db.execute("INSERT INTO preferences (owner, name, value) VALUES (?, ?, 'true') ON CONFLICT (owner, name) "
                   "DO NOTHING", TRACES)
        self.was_deleted.set()

    def note_traces(self) -> None:
        """Something else of a chat's was deleted."""
        with self._state.transaction() as db:
            self.leave_traces(db)

    def delete_all(self, db: Database, owner: str) -> None:
        """Delete everything of an owner; its chats are nobody's then, until ``sweep``."""
        self.disown(db, "owner = ?", owner)
        for table in ("folders", "presets", "attachments", "preferences"):
            db.execute(f"DELETE FROM {table} WHERE owner = ?", (owner,))

    def disown(self, db: Database, where: str, value: str) -> None:
        """Have chats be nobody's, for ``sweep``; ``where``: which, by a value."""
        self.leave_traces(db)
        db.execute(f"UPDATE chats SET owner = '{GONE}' || owner WHERE {where}", (value,))

    def sweep(self) -> None:
        """Delete the chats that are nobody's, in slices: ten thousand messages at once kept others waiting for seconds.

        What a full disk, or an end of the process, leaves is done later, as the erasing of traces is.
        """
        with contextlib.suppress(Refused):
            while rows := self._state.query(f"SELECT id, owner FROM chats WHERE {IS_GONE} LIMIT 1"):
                self._delete_slice(rows[0]["id"], rows[0]["owner"].removeprefix(GONE))
                time.sleep(PAUSE_S)

    def delete_messages(self, db: Database, owner: str, ids: Sequence[str]) -> bool:
        """Delete messages of a chat. False: they are too many for one transaction, ``sweep`` has to follow it."""
        if len(ids) > SLICE:
            self._set_aside(db, owner, ids)
            return False
        for id in ids:
            self._remove(db, owner, "messages.id = ?", id)
        return True

    def _delete_slice(self, chat_id: str, owner: str) -> None:
        with self._state.transaction() as db:
            numbers = db.execute("SELECT n FROM messages WHERE chat_id = ? ORDER BY n LIMIT ?",
                                 (chat_id, SLICE)).fetchall()
            if numbers:
                self._remove(db, owner, "chat_id = ? AND messages.n <= ?", chat_id, numbers[-1]["n"])
            if len(numbers) < SLICE:
                db.execute("DELETE FROM chats WHERE id = ?", (chat_id,))

    def _remove(self, db: Database, owner: str, where: str, *values: Any) -> None:
        """Take messages out of the index and delete them, with attachments that no other message has."""
        self.leave_traces(db)
        for row in db.execute(f"SELECT n, content, status FROM messages WHERE {where}", values).fetchall():
            if row["status"] not in AT_WORK:
                self._index.remove(db, row["n"], owner, row["content"])
        attached = db.execute("SELECT DISTINCT attachment_id FROM attached JOIN messages ON messages.id = message_id "
                              f"WHERE {where}", values).fetchall()
        db.execute(f"DELETE FROM messages WHERE {where}", values)
        for row in attached:
            db.execute("DELETE FROM attachments WHERE id = ? AND NOT EXISTS (SELECT 1 FROM attached WHERE "
                       "attachment_id = attachments.id)", (row["attachment_id"],))

    def _set_aside(self, db: Database, owner: str, ids: Sequence[str]) -> None:
        """Have messages be those of a chat that is nobody's, for ``sweep``."""
        aside = new_id("chat_")
        now = time.time()
        add_row(db, "chats", {"id": aside, "owner": GONE + owner, "title": "", "title_words": "", "is_pinned": 0,
                              "created_at": now, "updated_at": now, "settings": "{}", "rev": 1})
        for id in ids:
            db.execute("UPDATE messages SET chat_id = ? WHERE id = ?", (aside, id))
        self.leave_traces(db)
