"""Chats and their messages in the database. Every look-up takes the owner; another's chat is as absent as none.

A chat's messages are a tree: each names its parent, a chat's ``current_id`` the leaf that is shown. Values are the JSON
objects of docs/chats.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from tenth.errors import Cause
from tenth.server.chats.deleting import IS_GONE, Deletion
from tenth.server.chats.revs import next_rev
from tenth.server.chats.rows import (
    AT_WORK,
    Chat,
    Message,
    add_row,
    attach,
    change_chat,
    chat_of,
    check_folder,
    count_messages,
    find_chat,
    find_message,
    message_of,
    no_chat,
    no_message,
    sent_before,
    stored,
    update_message,
)
from tenth.server.chats.search import Index, title_words
from tenth.server.chats.tree import TREE, all_below, children_of, leaf_below
from tenth.server.databases import Database
from tenth.server.failures import Refused
from tenth.server.service import new_id
from tenth.server.state import State

MOST_MESSAGES = 20_000  # of one chat, all branches
MOST_PAGE = 500


class Chats:
    """The chats of a state."""

    def __init__(self, state: State, index: Index) -> None:
        self._state, self._index = state, index
        self.deletion = Deletion(state, index)

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
        return [chat_of(row) for row in rows]

    def add(self, owner: str, title: str, model: str | None, settings: dict[str, Any],
            folder_id: str | None = None) -> Chat:
        """A new chat."""
        now, id = time.time(), new_id("chat_")
        with self._state.transaction(owner) as db:
            self._state.make_room(db, "chats", owner)
            check_folder(db, owner, folder_id)
            db.execute("INSERT INTO chats (id, owner, title, title_words, folder_id, is_pinned, created_at, "
                       "updated_at, model, settings, current_id, rev) VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, NULL, 1)",
                       (id, owner, title, title_words(title), folder_id, now, now, model, json.dumps(settings)))
            return find_chat(db, owner, id)

    def get(self, owner: str, id: str) -> Chat:
        """A chat. Refuses (404)."""
        rows = self._state.query("SELECT * FROM chats WHERE id = ? AND owner = ?", id, owner)
        if not rows:
            raise no_chat(id)
        return chat_of(rows[0])

    def change(self, owner: str, id: str, changes: dict[str, Any], touch: bool = False) -> Chat:
        """Change fields of a chat. ``touch``: it counts as changed now, in the order of chats."""
        with self._state.transaction(owner) as db:
            find_chat(db, owner, id)
            if "folder_id" in changes:
                check_folder(db, owner, changes["folder_id"])
            if changes.get("current_id") is not None:
                find_message(db, id, changes["current_id"])
            if "title" in changes or "settings" in changes:
                self.deletion.leave_traces(db)
            return change_chat(db, owner, id, changes, touch)

    def delete(self, owner: str, id: str) -> None:
        """Delete a chat with all that it holds."""
        with self._state.transaction(owner) as db:
            find_chat(db, owner, id)
            self.deletion.disown(db, "id = ?", id)
        self.deletion.sweep()

    def messages(self, owner: str, chat_id: str) -> list[Message]:
        """All messages of a chat, in the order in which they were made."""
        rows = self._state.query("SELECT messages.* FROM messages JOIN chats ON chats.id = chat_id "
                                 "WHERE chat_id = ? AND owner = ? ORDER BY n", chat_id, owner)
        return self._with_attachments(chat_id, [message_of(row) for row in rows])

    def message(self, owner: str, chat_id: str, id: str) -> Message:
        """One message. Refuses (404)."""
        rows = self._state.query("SELECT messages.* FROM messages JOIN chats ON chats.id = chat_id "
                                 "WHERE messages.id = ? AND chat_id = ? AND owner = ?", id, chat_id, owner)
        if not rows:
            raise no_message(id)
        return self._with_attachments(chat_id, [message_of(rows[0])])[0]

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
            chat = find_chat(db, owner, chat_id)
            first = messages[0]
            ids = sent_before(db, chat_id, first.get("client_id"))
            if not ids:
                if first["parent_id"] is not None:
                    find_message(db, chat_id, first["parent_id"])
                if count_messages(db, chat_id) + len(messages) > MOST_MESSAGES:
                    raise Refused(400, f"a chat has at most {MOST_MESSAGES} messages", "begin another one",
                                  cause=Cause("chat-full", most=MOST_MESSAGES))
                for message in messages:
                    ids.append(self._insert(db, owner, chat_id, {**message, "parent_id": ids[-1]} if ids else message))
                attach(db, owner, ids[0], attachment_ids)
                title = {"title": title_of(first["content"])} if not chat["title"] and first["role"] == "user" else {}
                chat = change_chat(db, owner, chat_id, {"current_id": ids[-1], **title}, touch=True)
        return chat, [self.message(owner, chat_id, id) for id in ids]

    def add_whole(self, owner: str, chat: Chat, messages: Sequence[Message]) -> Chat:
        """A chat with all its messages, in one commit; ids are given here, parents and ``current_id`` name ``key``."""
        with self._state.transaction(owner) as db:
            values = {"id": new_id("chat_"), "owner": owner, "title_words": title_words(chat["title"]), "rev": 1,
                      "current_id": None, **chat, "is_pinned": int(chat["is_pinned"]),
                      "settings": json.dumps(chat["settings"])}
            current, ids = values.pop("current"), dict[str, str]()
            self._state.make_room(db, "chats", owner)
            add_row(db, "chats", values)
            for message in messages[:MOST_MESSAGES]:
                fields = {name: value for name, value in message.items() if name not in ("key", "parent", "files")}
                id = self._insert(db, owner, values["id"], {**fields, "parent_id": ids.get(message["parent"])})
                ids[message["key"]] = id
                for position, file in enumerate(message["files"]):
                    row = {"id": new_id("file_"), "owner": owner, "created_at": message["created_at"], **file}
                    add_row(db, "attachments", row)
                    add_row(db, "attached", {"message_id": id, "attachment_id": row["id"], "position": position})
            shown = ids.get(current, next(reversed(ids.values()), None))
            db.execute("UPDATE chats SET current_id = ? WHERE id = ?", (shown, values["id"]))
            return find_chat(db, owner, values["id"])

    def ids(self, owner: str) -> list[str]:
        """Every chat's id, oldest first."""
        return [row["id"] for row in self._state.query(
            "SELECT id FROM chats WHERE owner = ? ORDER BY created_at, id", owner)]

    def _insert(self, db: Database, owner: str, chat_id: str, message: Message) -> str:
        values = stored({"content": "", "thinking": "", "status": "done", "settings": {}, "rating": 0,
                          "created_at": time.time(), "rev": next_rev(), **message})
        values = {"id": new_id("msg_"), "chat_id": chat_id, "facts": "{}", **values}
        row = add_row(db, "messages", values, "RETURNING n").fetchone()
        if values["status"] not in AT_WORK:
            self._index.add(db, row["n"], owner, values["content"])
        return str(values["id"])

    def change_message(self, owner: str, chat_id: str, id: str, changes: dict[str, Any]) -> int:
        """Change fields of a message; it is found by its new text from now on, if it has ended. Gives its new rev."""
        with self._state.transaction(owner) as db:
            find_chat(db, owner, chat_id)
            old = find_message(db, chat_id, id)
            rev = next_rev(max(old["rev"], changes.get("rev", 0)))
            update_message(db, id, stored({**changes, "rev": rev}))
            if old["status"] not in AT_WORK and changes.get("content", old["content"]) != old["content"]:
                self.deletion.leave_traces(db)
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
                update_message(db, id, stored(changes))

    def below(self, owner: str, chat_id: str, id: str) -> set[str]:
        """A message and all that hang on it. Refuses (404)."""
        self.message(owner, chat_id, id)
        return set(all_below(children_of(self._state.query(TREE, chat_id)), id))

    def delete_message(self, owner: str, chat_id: str, id: str) -> tuple[Chat, list[str]]:
        """Delete a message with all that hang on it; gives the chat and what was deleted."""
        with self._state.transaction(owner) as db:
            chat = find_chat(db, owner, chat_id)
            parent = find_message(db, chat_id, id)["parent_id"]
            children = children_of(db.execute(TREE, (chat_id,)).fetchall())
            ids = all_below(children, id)
            is_done = self.deletion.delete_messages(db, owner, ids)
            children[parent].remove(id)
            leaf = leaf_below(children, children[parent][-1]) if children[parent] else parent
            chat = change_chat(db, owner, chat_id, {"current_id": leaf} if chat["current_id"] in set(ids) else {})
        if not is_done:
            self.deletion.sweep()
        return chat, ids

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
