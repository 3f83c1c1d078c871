"""Single chats and messages: the statements that find and change them, and their rows as JSON objects and back."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from tenth.errors import Cause
from tenth.server.chats.search import title_words
from tenth.server.databases import Cursor, Database
from tenth.server.failures import Refused

Chat = dict[str, Any]
Message = dict[str, Any]

AT_WORK = ("queued", "prompt", "running")
FACTS = ("usage", "timings", "cost", "cause")  # kept together as JSON


def no_chat(id: str) -> Refused:
    """There is no such chat, or it is another's."""
    return Refused(404, f"there is no chat {id!r}", cause=Cause("gone"))


def no_message(id: str) -> Refused:
    """There is no such message, or it is another's."""
    return Refused(404, f"there is no message {id!r}", cause=Cause("gone"))


def add_row(db: Database, table: str, values: dict[str, Any], behind: str = "") -> Cursor:
    """Insert a row; ``behind``: the rest of the statement."""
    return db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))}) {behind}",
                      tuple(values.values()))


def find_chat(db: Database, owner: str, id: str) -> Chat:
    """A chat of this owner. Refuses (404)."""
    row = db.execute("SELECT * FROM chats WHERE id = ? AND owner = ?", (id, owner)).fetchone()
    if row is None:
        raise no_chat(id)
    return chat_of(row)


def find_message(db: Database, chat_id: str, id: str) -> Any:
    """What deciding about a message takes. Refuses (404)."""
    row = db.execute("SELECT n, id, parent_id, content, status, rev FROM messages WHERE id = ? AND chat_id = ?",
                     (id, chat_id)).fetchone()
    if row is None:
        raise no_message(id)
    return row


def check_folder(db: Database, owner: str, id: str | None) -> None:
    """Refuse (404) a folder that is not this owner's."""
    if id is None:
        return
    if db.execute("SELECT id FROM folders WHERE id = ? AND owner = ?", (id, owner)).fetchone() is None:
        raise Refused(404, f"there is no folder {id!r}", param="folder_id", cause=Cause("gone"))


def sent_before(db: Database, chat_id: str, client_id: str | None) -> list[str]:
    """The question that has this id of the client's, and its first answer; none when it is new."""
    if client_id is None:
        return []
    row = db.execute("SELECT id FROM messages WHERE chat_id = ? AND client_id = ?", (chat_id, client_id)).fetchone()
    if row is None:
        return []
    answer = db.execute("SELECT id FROM messages WHERE chat_id = ? AND parent_id = ? ORDER BY n LIMIT 1",
                        (chat_id, row["id"])).fetchone()
    return [row["id"]] + ([answer["id"]] if answer else [])


def count_messages(db: Database, chat_id: str) -> int:
    """How many messages a chat has, all branches."""
    return int(db.execute("SELECT count(*) AS n FROM messages WHERE chat_id = ?", (chat_id,)).fetchone()["n"])


def attach(db: Database, owner: str, message_id: str, attachment_ids: Sequence[str]) -> None:
    """Hang files onto a message, in this order. Refuses (404)."""
    for position, id in enumerate(attachment_ids):
        if db.execute("SELECT id FROM attachments WHERE id = ? AND owner = ?", (id, owner)).fetchone() is None:
            raise Refused(404, f"there is no attachment {id!r}", param="attachment_ids", cause=Cause("gone"))
        db.execute("INSERT INTO attached (message_id, attachment_id, position) VALUES (?, ?, ?)",
                   (message_id, id, position))


def change_chat(db: Database, owner: str, id: str, changes: dict[str, Any], touch: bool = False) -> Chat:
    """Change fields of a chat. ``touch``: it counts as changed now, in the order of chats."""
    values = {name: json.dumps(value) if name == "settings" else int(value) if name == "is_pinned" else value
              for name, value in changes.items()}
    if "title" in values:
        values["title_words"] = title_words(changes["title"])
    if touch:
        values["updated_at"] = time.time()
    sets = "".join(f"{name} = ?, " for name in values)
    db.execute(f"UPDATE chats SET {sets}rev = rev + 1 WHERE id = ?", (*values.values(), id))
    return find_chat(db, owner, id)


def update_message(db: Database, id: str, values: dict[str, Any]) -> None:
    """Change columns of a message."""
    sets = ", ".join(f"{name} = ?" for name in values)
    db.execute(f"UPDATE messages SET {sets} WHERE id = ?", (*values.values(), id))


def stored(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a message as columns; all of FACTS are given, or none."""
    values = {name: value for name, value in fields.items() if name not in (*FACTS, "attachments")}
    if facts := {name: fields[name] for name in FACTS if name in fields}:
        values["facts"] = json.dumps(facts)
    if "settings" in values:
        values["settings"] = json.dumps(values["settings"])
    return values


def chat_of(row: Any) -> Chat:
    """A row as the JSON object of docs/chats.md."""
    names = ("id", "title", "folder_id", "created_at", "updated_at", "model", "current_id", "rev")
    return {**{name: row[name] for name in names}, "is_pinned": bool(row["is_pinned"]),
            "settings": json.loads(row["settings"])}


def message_of(row: Any) -> Message:
    """A row as the JSON object of docs/chats.md, but for its attachments."""
    names = ("id", "chat_id", "parent_id", "role", "content", "thinking", "thinking_s", "status", "error", "model",
             "rating", "created_at", "finish_reason", "rev")
    facts = json.loads(row["facts"])
    return {**{name: row[name] for name in names}, **{name: facts.get(name) for name in FACTS},
            "settings": json.loads(row["settings"])}
