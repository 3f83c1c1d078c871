"""Files beside questions: their text is extracted once, by a process of its own, and kept in place of the file."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from tenth.errors import Cause
from tenth.server.chats import extracting
from tenth.server.chats.workers import command
from tenth.server.failures import Refused
from tenth.server.service import new_id
from tenth.server.shelf import Shelf
from tenth.server.state import State

MOST_NAME = 255
MOST_ATTACHMENTS, MOST_STORED = 10_000, 1 << 30  # of one owner; characters
AT_ONCE = 2  # files that are read at a time
WAIT_S = 90.0
ORPHAN_S = 24 * 3600.0  # what was not sent by then is deleted
CHARACTERS_PER_TOKEN = 3.5  # a guess for a tokenizer that is not open

Attachment = dict[str, Any]


class Attachments:
    """The attachments of a state. Every look-up takes the owner."""

    def __init__(self, state: State, shelf: Shelf) -> None:
        self._state, self._shelf = state, shelf
        self._room = asyncio.Semaphore(AT_ONCE)

    async def add_file(self, owner: str, name: str, data: bytes, model: str | None) -> Attachment:
        """Keep the text of a file. Refuses (400, 413) what has none."""
        async with self._room:
            said = await _extracted(name, data)
        if "error" in said:
            raise Refused(400, f"{name[:100]}: {said['error']}", said["hint"] or None, param="file",
                          cause=Cause.of(said["cause"]))
        return await self.add_text(owner, name, said["text"], model, said["kind"], said["is_cut"])

    async def add_text(self, owner: str, name: str, text: str, model: str | None, kind: str = "text",
                       is_cut: bool = False) -> Attachment:
        """Keep a text, or as much of it as an attachment may have."""
        text, is_cut = text[: extracting.MOST_CHARACTERS], is_cut or len(text) > extracting.MOST_CHARACTERS
        n_tokens, is_counted = await asyncio.to_thread(self._count, text, model)
        return await self._state.run(self._add, owner, {
            "name": clean_name(name), "kind": kind, "n_chars": len(text), "n_tokens": n_tokens,
            "is_counted": int(is_counted), "is_cut": int(is_cut), "content": text})

    def _count(self, text: str, model: str | None) -> tuple[int, bool]:
        """Tokens of a text by an open model's tokenizer, else a guess; and whether they were counted."""
        served = [one for one in self._shelf.models.values() if one.model is not None
                  and (model is None or one.name == model)]
        for one in served:
            if (opened := one.model) is not None:
                return len(opened.tokenize(text, special=False)), True
        return round(len(text) / CHARACTERS_PER_TOKEN), False

    def _add(self, owner: str, values: dict[str, Any]) -> Attachment:
        id = new_id("file_")
        with self._state.transaction() as db:
            row = db.execute("SELECT count(*) AS n, coalesce(sum(n_chars), 0) AS total FROM attachments "
                             "WHERE owner = ?", (owner,)).fetchone()
            if row["n"] >= MOST_ATTACHMENTS or int(row["total"]) + values["n_chars"] > MOST_STORED:
                raise Refused(507, f"{row['n']} attachments are stored already", "delete chats that have some",
                              cause=Cause("attachments-many", n=row["n"]))
            values = {"id": id, "owner": owner, "created_at": time.time(), **values}
            db.execute(f"INSERT INTO attachments ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
                       tuple(values.values()))
        return self.get(owner, id)

    def get(self, owner: str, id: str) -> Attachment:
        """What is known of an attachment. Refuses (404)."""
        row = self._row(owner, id)
        return {**{name: row[name] for name in ("id", "name", "kind", "n_chars", "n_tokens")},
                "is_counted": bool(row["is_counted"]), "is_cut": bool(row["is_cut"])}

    def text(self, owner: str, id: str) -> str:
        """Its text. Refuses (404)."""
        return str(self._row(owner, id)["content"])

    def _row(self, owner: str, id: str) -> Any:
        rows = self._state.query("SELECT * FROM attachments WHERE id = ? AND owner = ?", id, owner)
        if not rows:
            raise Refused(404, f"there is no attachment {id!r}", cause=Cause("gone"))
        return rows[0]

    def delete(self, owner: str, id: str) -> None:
        """Delete one that was not sent. Refuses (404, 409)."""
        self._row(owner, id)
        with self._state.transaction() as db:
            if not db.execute("DELETE FROM attachments WHERE id = ? AND NOT EXISTS (SELECT 1 FROM attached WHERE "
                              "attachment_id = attachments.id)", (id,)).rowcount:
                raise Refused(409, "this attachment belongs to a message", "delete the message",
                              cause=Cause("attachment-sent"))

    def forget_orphans(self) -> None:
        """Delete what was never sent."""
        with self._state.transaction() as db:
            db.execute("DELETE FROM attachments WHERE created_at < ? AND NOT EXISTS (SELECT 1 FROM attached WHERE "
                       "attachment_id = attachments.id)", (time.time() - ORPHAN_S,))


def clean_name(name: str) -> str:
    """A file's name without its folders and without what no line can show."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(character if character.isprintable() else "_" for character in last)[:MOST_NAME] or "file"


async def _extracted(name: str, data: bytes) -> dict[str, Any]:
    if len(data) > extracting.MOST_BYTES:
        raise Refused(413, f"the file is larger than {extracting.MOST_BYTES >> 20} MiB", param="file",
                      cause=Cause("file-large", most=extracting.MOST_BYTES >> 20))
    process = await asyncio.create_subprocess_exec(
        *command(extracting.__name__, clean_name(name)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL)
    try:
        out, _ = await asyncio.wait_for(process.communicate(data), WAIT_S)
        return dict(json.loads(out))
    except (TimeoutError, ValueError):  # stopped by its limits, it prints nothing
        return extracting.failed("the file takes too long, or too much memory, to be read", "try a smaller part of it",
                                 extracting.TOO_MUCH)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
