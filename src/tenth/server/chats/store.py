"""Chats and their messages in the database. Every look-up takes the owner; another's chat is as absent as none.

A chat's messages are a tree: each names its parent, a chat's ``current_id`` the leaf that is shown. Values are the JSON
objects of docs/chats.md.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tenth.errors import Cause
from tenth.server.chats.revs import next_rev
from tenth.server.chats.search import Index, title_words
from tenth.server.databases import Cursor, Database
from tenth.server.failures import Refused
from tenth.server.service import new_id
from tenth.server.state import State

Chat = dict[str, Any]
Message = dict[str, Any]

AT_WORK = ("queued", "prompt", "running")
GONE = "gone "  # stands before the owner of a chat that is being deleted
SLICE = 200  # messages that are deleted at a time
PAUSE_S = 0.002  # between two slices, for whoever waits to write
MOST_MESSAGES = 20_000  # of one chat, all branches
MOST_PAGE = 500
TRACES = ("", "traces")  # a preference of nobody's: something was deleted, of which traces are left in the files
IS_GONE = f"substr(owner, 1, {len(GONE)}) = '{GONE}'"
TREE = "SELECT id, parent_id FROM messages WHERE chat_id = ? ORDER BY n"
FACTS = ("usage", "timings", "cost", "cause")  # kept together as JSON


def no_chat(id: str) -> Refused:
    """There is no such chat, or it is another's."""
    return Refused(404, f"there is no chat {id!r}", cause=Cause("gone"))


class Chats:
    """The chats of a state."""

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

    def all(self, owner: str, limit: int = 100, before: float | None = None, folder_id: str | None = None,
            pinned: bool | None = None) -> list[Chat]:
        """Chats, last changed first. ``folder_id`` "": those in no folder."""
        where: list[str] = ["owner = ?"]
        values: list[Any] = [owner]
        for condition, value in (("updated_at < ?", before), ("folder_id = ?", folder_id or None),
                                 ("is_pinned = ?", None if pinned is None else int(pinned))):
            if value is not None:
                where.append(condition)
                values.append(value)
        if folder_id == "":
            where.append("folder_id IS NULL")
        rows = self._state.query(f"SELECT * FROM chats WHERE {' AND '.join(where)} "
                                 "ORDER BY updated_at DESC, id LIMIT ?", *values, limit)
        return [_chat(row) for row in rows]

    def add(self, owner: str, title: str, model: str | None, settings: dict[str, Any],
            folder_id: str | None = None) -> Chat:
        """A new chat."""
        now, id = time.time(), new_id("chat_")
        with self._state.transaction(owner) as db:
            self._state.make_room(db, "chats", owner)
            _own_folder(db, owner, folder_id)
            db.execute("INSERT INTO chats (id, owner, title, title_words, folder_id, is_pinned, created_at, "
                       "updated_at, model, settings, current_id, rev) VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, NULL, 1)",
                       (id, owner, title, title_words(title), folder_id, now, now, model, json.dumps(settings)))
            return _find(db, owner, id)

    def get(self, owner: str, id: str) -> Chat:
        """A chat. Refuses (404)."""
        rows = self._state.query("SELECT * FROM chats WHERE id = ? AND owner = ?", id, owner)
        if not rows:
            raise no_chat(id)
        return _chat(rows[0])

    def change(self, owner: str, id: str, changes: dict[str, Any], touch: bool = False) -> Chat:
        """Change fields of a chat. ``touch``: it counts as changed now, in the order of chats."""
        with self._state.transaction(owner) as db:
            _find(db, owner, id)
            if "folder_id" in changes:
                _own_folder(db, owner, changes["folder_id"])
            if changes.get("current_id") is not None:
                _message(db, id, changes["current_id"])
            if "title" in changes or "settings" in changes:
                self.leave_traces(db)
            return _change(db, owner, id, changes, touch)

    def delete(self, owner: str, id: str) -> None:
        """Delete a chat with all that it holds."""
        with self._state.transaction(owner) as db:
            _find(db, owner, id)
            self._disown(db, "id = ?", id)
        self.sweep()

    def delete_all(self, db: Database, owner: str) -> None:
        """Delete everything of an owner; its chats are nobody's then, until ``sweep``."""
        self._disown(db, "owner = ?", owner)
        for table in ("folders", "presets", "attachments", "preferences"):
            db.execute(f"DELETE FROM {table} WHERE owner = ?", (owner,))

    def _disown(self, db: Database, where: str, value: str) -> None:
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

    def messages(self, owner: str, chat_id: str) -> list[Message]:
        """All messages of a chat, in the order in which they were made."""
        rows = self._state.query("SELECT messages.* FROM messages JOIN chats ON chats.id = chat_id "
                                 "WHERE chat_id = ? AND owner = ? ORDER BY n", chat_id, owner)
        return self._with_attachments(chat_id, [_read(row) for row in rows])

    def message(self, owner: str, chat_id: str, id: str) -> Message:
        """One message. Refuses (404)."""
        rows = self._state.query("SELECT messages.* FROM messages JOIN chats ON chats.id = chat_id "
                                 "WHERE messages.id = ? AND chat_id = ? AND owner = ?", id, chat_id, owner)
        if not rows:
            raise no_message(id)
        return self._with_attachments(chat_id, [_read(rows[0])])[0]

    def _with_attachments(self, chat_id: str, messages: list[Message]) -> list[Message]:
        rows = self._state.query(
            "SELECT message_id, attachments.id, name, kind, n_chars, n_tokens, is_counted, is_cut FROM attached "
            "JOIN attachments ON attachments.id = attachment_id JOIN messages ON messages.id = message_id "
            "WHERE chat_id = ? ORDER BY position", chat_id)
        of: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            of.setdefault(row["message_id"], []).append(
                {name: row[name] for name in ("id", "name", "kind", "n_chars", "n_tokens")}
                | {"is_counted": bool(row["is_counted"]), "is_cut": bool(row["is_cut"])})
        for message in messages:
            message["attachments"] = of.get(message["id"], [])
        return messages

    def add_messages(self, owner: str, chat_id: str, messages: Sequence[Message],
                     attachment_ids: Sequence[str] = ()) -> tuple[Chat, list[Message]]:
        """Add messages, each behind the one before it; the last becomes the one shown, the first gets the attachments.

        An untitled chat is called by its first question. Nothing is added when the first one's ``client_id`` is known
        already: it is given again, with its answer.
        """
        with self._state.transaction(owner) as db:
            chat = _find(db, owner, chat_id)
            first = messages[0]
            ids = _sent_before(db, chat_id, first.get("client_id"))
            if not ids:
                if first["parent_id"] is not None:
                    _message(db, chat_id, first["parent_id"])
                if _count(db, chat_id) + len(messages) > MOST_MESSAGES:
                    raise Refused(400, f"a chat has at most {MOST_MESSAGES} messages", "begin another one",
                                  cause=Cause("chat-full", most=MOST_MESSAGES))
                for message in messages:
                    ids.append(self._insert(db, owner, chat_id, {**message, "parent_id": ids[-1]} if ids else message))
                _attach(db, owner, ids[0], attachment_ids)
                title = {"title": title_of(first["content"])} if not chat["title"] and first["role"] == "user" else {}
                chat = _change(db, owner, chat_id, {"current_id": ids[-1], **title}, touch=True)
        return chat, [self.message(owner, chat_id, id) for id in ids]

    def add_whole(self, owner: str, chat: Chat, messages: Sequence[Message]) -> Chat:
        """A chat with all its messages, in one commit; ids are given here, parents and ``current_id`` name ``key``."""
        with self._state.transaction(owner) as db:
            values = {"id": new_id("chat_"), "owner": owner, "title_words": title_words(chat["title"]), "rev": 1,
                      "current_id": None, **chat, "is_pinned": int(chat["is_pinned"]),
                      "settings": json.dumps(chat["settings"])}
            current, ids = values.pop("current"), dict[str, str]()
            self._state.make_room(db, "chats", owner)
            _add(db, "chats", values)
            for message in messages[:MOST_MESSAGES]:
                fields = {name: value for name, value in message.items() if name not in ("key", "parent", "files")}
                id = self._insert(db, owner, values["id"], {**fields, "parent_id": ids.get(message["parent"])})
                ids[message["key"]] = id
                for position, file in enumerate(message["files"]):
                    row = {"id": new_id("file_"), "owner": owner, "created_at": message["created_at"], **file}
                    _add(db, "attachments", row)
                    _add(db, "attached", {"message_id": id, "attachment_id": row["id"], "position": position})
            shown = ids.get(current, next(reversed(ids.values()), None))
            db.execute("UPDATE chats SET current_id = ? WHERE id = ?", (shown, values["id"]))
            return _find(db, owner, values["id"])

    def ids(self, owner: str) -> list[str]:
        """Every chat's id, oldest first."""
        return [row["id"] for row in self._state.query(
            "SELECT id FROM chats WHERE owner = ? ORDER BY created_at, id", owner)]

    def _insert(self, db: Database, owner: str, chat_id: str, message: Message) -> str:
        values = _stored({"content": "", "thinking": "", "status": "done", "settings": {}, "rating": 0,
                          "created_at": time.time(), "rev": next_rev(), **message})
        values = {"id": new_id("msg_"), "chat_id": chat_id, "facts": "{}", **values}
        row = _add(db, "messages", values, "RETURNING n").fetchone()
        if values["status"] not in AT_WORK:
            self._index.add(db, row["n"], owner, values["content"])
        return str(values["id"])

    def change_message(self, owner: str, chat_id: str, id: str, changes: dict[str, Any]) -> int:
        """Change fields of a message; it is found by its new text from now on, if it has ended. Gives its new rev."""
        with self._state.transaction(owner) as db:
            _find(db, owner, chat_id)
            old = _message(db, chat_id, id)
            rev = next_rev(max(old["rev"], changes.get("rev", 0)))
            _update(db, id, _stored({**changes, "rev": rev}))
            if old["status"] not in AT_WORK and changes.get("content", old["content"]) != old["content"]:
                self.leave_traces(db)
            if "content" in changes or "status" in changes:
                if old["status"] not in AT_WORK:
                    self._index.remove(db, old["n"], owner, old["content"])
                if changes.get("status", old["status"]) not in AT_WORK:
                    self._index.add(db, old["n"], owner, changes.get("content", old["content"]))
            db.execute("UPDATE chats SET rev = rev + 1 WHERE id = ?", (chat_id,))
        return rev

    def save_parts(self, parts: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
        """Save what several answers (owner, id, fields) have so far, in one commit."""
        with self._state.transaction(*{owner for owner, _, _ in parts}) as db:
            for _, id, changes in parts:
                _update(db, id, _stored(changes))

    def below(self, owner: str, chat_id: str, id: str) -> set[str]:
        """A message and all that hang on it. Refuses (404)."""
        self.message(owner, chat_id, id)
        return set(_below(_children(self._state.query(TREE, chat_id)), id))

    def delete_message(self, owner: str, chat_id: str, id: str) -> tuple[Chat, list[str]]:
        """Delete a message with all that hang on it; gives the chat and what was deleted."""
        with self._state.transaction(owner) as db:
            chat = _find(db, owner, chat_id)
            parent = _message(db, chat_id, id)["parent_id"]
            children = _children(db.execute(TREE, (chat_id,)).fetchall())
            ids = _below(children, id)
            if is_long := len(ids) > SLICE:
                self._set_aside(db, owner, ids)
            else:
                for one in ids:
                    self._remove(db, owner, "messages.id = ?", one)
            children[parent].remove(id)
            leaf = _leaf(children, children[parent][-1]) if children[parent] else parent
            chat = _change(db, owner, chat_id, {"current_id": leaf} if chat["current_id"] in set(ids) else {})
        if is_long:
            self.sweep()
        return chat, ids

    def _set_aside(self, db: Database, owner: str, ids: list[str]) -> None:
        """Have messages be those of a chat that is nobody's, for ``sweep``."""
        aside = new_id("chat_")
        now = time.time()
        _add(db, "chats", {"id": aside, "owner": GONE + owner, "title": "", "title_words": "", "is_pinned": 0,
                           "created_at": now, "updated_at": now, "settings": "{}", "rev": 1})
        for id in ids:
            db.execute("UPDATE messages SET chat_id = ? WHERE id = ?", (aside, id))
        self.leave_traces(db)

    def at_work(self) -> list[tuple[str, str, str, str | None]]:
        """(owner, chat, message, server) of answers that have not ended."""
        rows = self._state.query("SELECT owner, chat_id, messages.id, server FROM messages JOIN chats ON chats.id = "
                                 f"chat_id WHERE status IN ('queued', 'prompt', 'running') AND NOT {IS_GONE}")
        return [(row["owner"], row["chat_id"], row["id"], row["server"]) for row in rows]


def title_of(content: str) -> str:
    """A chat's title from its first question: its beginning, cut between words."""
    words = " ".join(content[:400].split())
    if len(words) <= 60:
        return words
    cut = words[:60]
    return (cut.rpartition(" ")[0] if " " in cut[30:] else cut) + "…"


def no_message(id: str) -> Refused:
    """There is no such message, or it is another's."""
    return Refused(404, f"there is no message {id!r}", cause=Cause("gone"))


def _add(db: Database, table: str, values: dict[str, Any], behind: str = "") -> Cursor:
    return db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))}) {behind}",
                      tuple(values.values()))


def _find(db: Database, owner: str, id: str) -> Chat:
    row = db.execute("SELECT * FROM chats WHERE id = ? AND owner = ?", (id, owner)).fetchone()
    if row is None:
        raise no_chat(id)
    return _chat(row)


def _message(db: Database, chat_id: str, id: str) -> Any:
    row = db.execute("SELECT n, id, parent_id, content, status, rev FROM messages WHERE id = ? AND chat_id = ?",
                     (id, chat_id)).fetchone()
    if row is None:
        raise no_message(id)
    return row


def _own_folder(db: Database, owner: str, id: str | None) -> None:
    if id is None:
        return
    if db.execute("SELECT id FROM folders WHERE id = ? AND owner = ?", (id, owner)).fetchone() is None:
        raise Refused(404, f"there is no folder {id!r}", param="folder_id", cause=Cause("gone"))


def _sent_before(db: Database, chat_id: str, client_id: str | None) -> list[str]:
    """The question that has this id of the client's, and its first answer; none when it is new."""
    if client_id is None:
        return []
    row = db.execute("SELECT id FROM messages WHERE chat_id = ? AND client_id = ?", (chat_id, client_id)).fetchone()
    if row is None:
        return []
    answer = db.execute("SELECT id FROM messages WHERE chat_id = ? AND parent_id = ? ORDER BY n LIMIT 1",
                        (chat_id, row["id"])).fetchone()
    return [row["id"]] + ([answer["id"]] if answer else [])


def _count(db: Database, chat_id: str) -> int:
    return int(db.execute("SELECT count(*) AS n FROM messages WHERE chat_id = ?", (chat_id,)).fetchone()["n"])


def _attach(db: Database, owner: str, message_id: str, attachment_ids: Sequence[str]) -> None:
    for position, id in enumerate(attachment_ids):
        if db.execute("SELECT id FROM attachments WHERE id = ? AND owner = ?", (id, owner)).fetchone() is None:
            raise Refused(404, f"there is no attachment {id!r}", param="attachment_ids", cause=Cause("gone"))
        db.execute("INSERT INTO attached (message_id, attachment_id, position) VALUES (?, ?, ?)",
                   (message_id, id, position))


def _change(db: Database, owner: str, id: str, changes: dict[str, Any], touch: bool = False) -> Chat:
    values = {name: json.dumps(value) if name == "settings" else int(value) if name == "is_pinned" else value
              for name, value in changes.items()}
    if "title" in values:
        values["title_words"] = title_words(changes["title"])
    if touch:
        values["updated_at"] = time.time()
    sets = "".join(f"{name} = ?, " for name in values)
    db.execute(f"UPDATE chats SET {sets}rev = rev + 1 WHERE id = ?", (*values.values(), id))
    return _find(db, owner, id)


def _update(db: Database, id: str, values: dict[str, Any]) -> None:
    sets = ", ".join(f"{name} = ?" for name in values)
    db.execute(f"UPDATE messages SET {sets} WHERE id = ?", (*values.values(), id))


def _children(rows: Sequence[Any]) -> defaultdict[str | None, list[str]]:
    """The messages that follow each one, oldest first; None: the first ones."""
    children = defaultdict[str | None, list[str]](list)
    for row in rows:
        children[row["parent_id"]].append(row["id"])
    return children


def _below(children: Mapping[str | None, list[str]], id: str) -> list[str]:
    """A message and all that hang on it, each behind its parent."""
    found = [id]
    for one in found:
        found += children.get(one, ())
    return found


def _leaf(children: Mapping[str | None, list[str]], id: str) -> str:
    """The newest message below one."""
    while following := children.get(id):
        id = following[-1]
    return id


def _stored(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a message as columns; all of FACTS are given, or none."""
    values = {name: value for name, value in fields.items() if name not in (*FACTS, "attachments")}
    if facts := {name: fields[name] for name in FACTS if name in fields}:
        values["facts"] = json.dumps(facts)
    if "settings" in values:
        values["settings"] = json.dumps(values["settings"])
    return values


def _chat(row: Any) -> Chat:
    names = ("id", "title", "folder_id", "created_at", "updated_at", "model", "current_id", "rev")
    return {**{name: row[name] for name in names}, "is_pinned": bool(row["is_pinned"]),
            "settings": json.loads(row["settings"])}


def _read(row: Any) -> Message:
    names = ("id", "chat_id", "parent_id", "role", "content", "thinking", "thinking_s", "status", "error", "model",
             "rating", "created_at", "finish_reason", "rev")
    facts = json.loads(row["facts"])
    return {**{name: row[name] for name in names}, **{name: facts.get(name) for name in FACTS},
            "settings": json.loads(row["settings"])}
