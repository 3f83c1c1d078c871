"""Stored files and batches: a file of requests, one a line, answered one after the other, across restarts.

A batch's lines are rows: a line that has an answer has it for good, so after a stop the work goes on at the first that
has none. Every look-up takes the owner.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from tenth.server.databases import Database
from tenth.server.failures import Refused
from tenth.server.service import new_id
from tenth.server.state import State

MOST_LINES = 50_000
MOST_FILES = 1000  # of one owner
MOST_AT_WORK = 64  # batches of one owner
MOST_STORED_BYTES = 4 << 30  # of one owner
ENDED = ("completed", "failed", "cancelled")


class Files:
    """The files of a state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, owner: str, name: str, purpose: str, content: bytes) -> dict[str, Any]:
        """Store a file. Refuses (507) what is more than an owner may keep."""
        n, total = self._state.query("SELECT count(*), coalesce(sum(bytes), 0) FROM files WHERE owner = ?", owner)[0]
        if n >= MOST_FILES or total + len(content) > MOST_STORED_BYTES:
            raise Refused(507, f"{n} files with {int(total)} bytes are stored already", "delete some")
        row = (new_id("file-"), owner, time.time(), name, purpose, len(content), content)
        with self._state.transaction() as db:
            db.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return self.get(row[0], owner)

    def all(self, owner: str) -> list[dict[str, Any]]:
        """Every file of an owner, newest first."""
        return [_file(row) for row in self._state.query(
            "SELECT id, created_at, name, purpose, bytes FROM files WHERE owner = ? ORDER BY created_at DESC", owner)]

    def get(self, id: str, owner: str) -> dict[str, Any]:
        """What is known of a file. Refuses (404) what is not there, or not theirs."""
        found = next((file for file in self.all(owner) if file["id"] == id), None)
        if found is None:
            raise Refused(404, f"there is no file {id!r}")
        return found

    def content(self, id: str, owner: str) -> bytes:
        """The bytes of a file."""
        rows = self._state.query("SELECT content FROM files WHERE id = ? AND owner = ?", id, owner)
        if not rows:
            raise Refused(404, f"there is no file {id!r}")
        return bytes(rows[0]["content"])

    def delete(self, id: str, owner: str) -> None:
        """Remove a file."""
        with self._state.transaction() as db:
            if not db.execute("DELETE FROM files WHERE id = ? AND owner = ?", (id, owner)).rowcount:
                raise Refused(404, f"there is no file {id!r}")


def _file(row: Any) -> dict[str, Any]:
    return {"id": row["id"], "object": "file", "bytes": row["bytes"], "created_at": int(row["created_at"]),
            "filename": row["name"], "purpose": row["purpose"], "status": "processed"}


class Batches:
    """The batches of a state."""

    def __init__(self, state: State, files: Files) -> None:
        self._state, self._files = state, files

    def add(self, owner: str, input_file: str, endpoint: str, metadata: dict[str, str],
            lines: Sequence[tuple[str, dict[str, Any]]]) -> str:
        """Store a batch of (custom id, body), and give its id."""
        id = new_id("batch_")
        with self._state.transaction() as db:
            self._state.make_room(db, "batches", owner)
            at_work = db.execute("SELECT count(*) AS n FROM batches WHERE owner = ? AND status = 'in_progress'",
                                 (owner,)).fetchone()["n"]
            if at_work >= MOST_AT_WORK:
                raise Refused(429, f"{at_work} batches of yours are at work, which is the most", "wait for one to end",
                              retry_after_s=60)
            db.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, 'in_progress', NULL, NULL, NULL)",
                       (id, owner, time.time(), input_file, endpoint, json.dumps(metadata)))
            db.executemany("INSERT INTO batch_lines VALUES (?, ?, ?, ?, NULL, NULL)",
                           [(id, i, custom, json.dumps(body)) for i, (custom, body) in enumerate(lines)])
        return id

    def at_work(self) -> list[tuple[str, str, str]]:
        """(id, owner, endpoint) of batches that have not ended, oldest first."""
        rows = self._state.query("SELECT id, owner, endpoint FROM batches WHERE status = 'in_progress' "
                                 "ORDER BY created_at")
        return [(row["id"], row["owner"], row["endpoint"]) for row in rows]

    def is_at_work(self, id: str) -> bool:
        """Whether a batch has not ended."""
        return bool(self._state.query("SELECT id FROM batches WHERE id = ? AND status = 'in_progress'", id))

    def next_lines(self, id: str, most: int) -> list[tuple[int, dict[str, Any]]]:
        """(number, body) of the first lines without an answer; none when the batch has ended."""
        rows = self._state.query(
            "SELECT n, body FROM batch_lines JOIN batches ON id = batch WHERE batch = ? AND code IS NULL "
            "AND status = 'in_progress' ORDER BY n LIMIT ?", id, most)
        return [(row["n"], json.loads(row["body"])) for row in rows]

    def answer(self, id: str, n: int, code: int, body: dict[str, Any]) -> None:
        """Store the answer to a line."""
        with self._state.transaction() as db:
            db.execute("UPDATE batch_lines SET code = ?, answer = ? WHERE batch = ? AND n = ? AND code IS NULL",
                       (code, json.dumps(body), id, n))

    def end(self, id: str, owner: str, status: str) -> None:
        """Make the files of a batch's answers and errors, and end it. Nothing happens when it has ended, or is gone."""
        rows = self._state.query("SELECT n, custom, code, answer FROM batch_lines WHERE batch = ? AND answer <> '' "
                                 "ORDER BY n", id)
        good = [_line(id, row) for row in rows if row["code"] < 400]
        bad = [_line(id, row) for row in rows if row["code"] >= 400]
        with self._state.transaction() as db:
            row = db.execute("SELECT status FROM batches WHERE id = ?", (id,)).fetchone()
            if row is None or row["status"] in ENDED:
                return
            files = [self._store(db, owner, f"{id}_{what}.jsonl", lines) for what, lines in
                     (("output", good), ("error", bad))]
            db.execute("UPDATE batches SET status = ?, ended_at = ?, output_file = ?, error_file = ? WHERE id = ?",
                       (status, time.time(), *files, id))
            db.execute("UPDATE batch_lines SET body = '', answer = '' WHERE batch = ?", (id,))  # they are in the files

    def delete(self, id: str, owner: str) -> None:
        """Remove a batch that has ended; its files stay."""
        with self._state.transaction() as db:
            row = db.execute("SELECT status FROM batches WHERE id = ? AND owner = ?", (id, owner)).fetchone()
            if row is None:
                raise Refused(404, f"there is no batch {id!r}")
            if row["status"] not in ENDED:
                raise Refused(409, f"the batch {id!r} is at work", "cancel it first")
            db.execute("DELETE FROM batch_lines WHERE batch = ?", (id,))
            db.execute("DELETE FROM batches WHERE id = ?", (id,))

    def _store(self, db: Database, owner: str, name: str, lines: Iterable[str]) -> str | None:
        content = "".join(lines).encode()
        if not content:
            return None
        id = new_id("file-")
        db.execute("INSERT INTO files VALUES (?, ?, ?, ?, 'batch_output', ?, ?)",
                   (id, owner, time.time(), name, len(content), content))
        return id

    def all(self, owner: str) -> list[dict[str, Any]]:
        """Every batch of an owner, newest first."""
        rows = self._state.query("SELECT * FROM batches WHERE owner = ? ORDER BY created_at DESC", owner)
        return [self._batch(row) for row in rows]

    def get(self, id: str, owner: str) -> dict[str, Any]:
        """A batch, with how far it is. Refuses (404) what is not there, or not theirs."""
        rows = self._state.query("SELECT * FROM batches WHERE id = ? AND owner = ?", id, owner)
        if not rows:
            raise Refused(404, f"there is no batch {id!r}")
        return self._batch(rows[0])

    def _batch(self, row: Any) -> dict[str, Any]:
        total, done, failed = self._state.query(
            "SELECT count(*), count(code), coalesce(sum(CASE WHEN code >= 400 THEN 1 ELSE 0 END), 0) FROM batch_lines "
            "WHERE batch = ?", row["id"])[0]
        ended = int(row["ended_at"]) if row["ended_at"] is not None else None
        return {
            "id": row["id"], "object": "batch", "endpoint": row["endpoint"], "input_file_id": row["input_file"],
            "completion_window": "24h", "status": row["status"], "created_at": int(row["created_at"]),
            **{f"{what}_file_id": row[f"{what}_file"] for what in ("output", "error") if row[f"{what}_file"]},
            "metadata": json.loads(row["metadata"]),
            "request_counts": {"total": total, "completed": done - int(failed), "failed": int(failed)},
            **({f"{row['status']}_at": ended} if ended else {}),
        }


def _line(batch: str, row: Any) -> str:
    answer = {"status_code": row["code"], "request_id": f"{batch}_{row['n']}", "body": json.loads(row["answer"])}
    value = {"id": f"{batch}_{row['n']}", "custom_id": row["custom"], "response": answer, "error": None}
    return json.dumps(value) + "\n"
