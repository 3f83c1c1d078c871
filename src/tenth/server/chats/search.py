"""Full-text search over an owner's chats: an index beside the messages, kept by whoever changes them.

A message is in the index exactly while its status is that of an ended one. Two databases, one class each: what is found
does not differ, because both are given words that were taken from the texts here.
"""

from __future__ import annotations

from typing import Any, Protocol

from tenth.server.chats.live import units
from tenth.server.chats.words import Term, fold, places, terms, words
from tenth.server.databases import Database
from tenth.server.state import State

MOST_HITS = 200
BEFORE, SNIPPET = 60, 200  # characters of a snippet before the first place, and in all
_FIELDS = "messages.id AS message_id, chat_id, role, content, messages.created_at, title"


class Index(Protocol):
    """The words of ended messages."""

    def add(self, db: Database, n: int, owner: str, text: str) -> None:
        """Have a message found."""

    def remove(self, db: Database, n: int, owner: str, text: str) -> None:
        """Have it found no more; ``text``: as it was added."""

    def find(self, owner: str, asked: list[Term], limit: int) -> list[Any]:
        """Messages with all terms, newest first."""


class SqliteIndex:
    """FTS5 without contents. The owner is a column, so that others' messages are not even looked at."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, db: Database, n: int, owner: str, text: str) -> None:
        """See Index."""
        db.execute("INSERT INTO found (rowid, owner, words) VALUES (?, ?, ?)", (n, owner, " ".join(words(text))))

    def remove(self, db: Database, n: int, owner: str, text: str) -> None:
        """See Index."""
        db.execute("INSERT INTO found (found, rowid, owner, words) VALUES ('delete', ?, ?, ?)",
                   (n, owner, " ".join(words(text))))

    def find(self, owner: str, asked: list[Term], limit: int) -> list[Any]:
        """See Index."""
        parts = [f'"{" ".join(term.words)}"{" *" if term.is_open else ""}' for term in asked]
        return self._state.query(
            f"SELECT {_FIELDS} FROM found JOIN messages ON n = found.rowid JOIN chats ON chats.id = chat_id "
            "WHERE found MATCH ? AND chats.owner = ? ORDER BY found.rowid DESC LIMIT ?",
            f'owner : "{owner}" AND words : ({" AND ".join(parts)})', owner, limit)

    def merge(self) -> bool:
        """Do a part of the work after which nothing deleted is left in the index. False: all is done."""
        with self._state.transaction() as db:
            before = db.execute("SELECT total_changes()").fetchone()[0]
            db.execute("INSERT INTO found (found, rank) VALUES ('merge', -200)")
            db.execute("INSERT INTO found (found, rank) VALUES ('merge', 200)")
            return bool(db.execute("SELECT total_changes()").fetchone()[0] - before >= 4)


MOST_LEXEME = 2000  # bytes of a word; PostgreSQL refuses more than 2046
MOST_VECTOR = 1 << 20  # bytes of a text's words there


class PostgresIndex:
    """A column of words with positions (tsvector) and its GIN index.

    Of a very long word the beginning counts, and of a text so many words as a tsvector has room for.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, db: Database, n: int, owner: str, text: str) -> None:
        """See Index."""
        lexemes, room = [], MOST_VECTOR
        for at, word in enumerate(words(text), 1):
            word = _lexeme(word)
            room -= len(word.encode()) + 5  # its position, and what aligns it
            if room < 0:
                break
            lexemes.append(f"'{word}':{min(at, 16383)}")
        db.execute("INSERT INTO found (n, words) VALUES (?, CAST(? AS TSVECTOR))", (n, " ".join(lexemes)))

    def remove(self, db: Database, n: int, owner: str, text: str) -> None:
        """See Index."""
        db.execute("DELETE FROM found WHERE n = ?", (n,))

    def find(self, owner: str, asked: list[Term], limit: int) -> list[Any]:
        """See Index."""
        parts = ["(" + " <-> ".join(f"'{_lexeme(word)}'" for word in term.words) + (":*" if term.is_open else "") + ")"
                 for term in asked]
        return self._state.query(
            f"SELECT {_FIELDS} FROM found JOIN messages ON messages.n = found.n JOIN chats ON chats.id = chat_id "
            "WHERE words @@ CAST(? AS TSQUERY) AND owner = ? ORDER BY messages.n DESC LIMIT ?",
            " & ".join(parts), owner, limit)


def _lexeme(word: str) -> str:
    return word.encode()[:MOST_LEXEME].decode(errors="ignore")


def open_index(state: State) -> SqliteIndex | PostgresIndex:
    """The index of a state."""
    return SqliteIndex(state) if state.engine.kind == "sqlite" else PostgresIndex(state)


class Search:
    """What GET /api/search asks."""

    def __init__(self, state: State, index: Index) -> None:
        self._state, self._index = state, index

    def hits(self, owner: str, query: str, limit: int) -> list[dict[str, Any]]:
        """Chats whose title, then messages whose text has everything that is asked for; newest first."""
        asked = terms(query)
        if not asked:
            return []
        titles = [{"chat_id": row["id"], "message_id": None, "role": None, "title": row["title"],
                   "created_at": row["updated_at"], "snippet": "", "offsets": []}
                  for row in self._titles(owner, asked, limit)]
        found = [_hit(row, asked) for row in self._index.find(owner, asked, limit)]
        return (titles + found)[:limit]

    def _titles(self, owner: str, asked: list[Term], limit: int) -> list[Any]:
        likes = [f"% {' '.join(term.words)}{'' if term.is_open else ' '}%" for term in asked]
        return self._state.query(
            f"SELECT id, title, updated_at FROM chats WHERE owner = ? {'AND title_words LIKE ? ' * len(likes)}"
            "ORDER BY updated_at DESC LIMIT ?", owner, *likes, limit)


def title_words(title: str) -> str:
    """What a title is searched by."""
    return f" {' '.join(words(title))} "


def _hit(row: Any, asked: list[Term]) -> dict[str, Any]:
    snippet, offsets = snippet_of(row["content"], asked)
    return {"chat_id": row["chat_id"], "message_id": row["message_id"], "role": row["role"], "title": row["title"],
            "created_at": row["created_at"], "snippet": snippet, "offsets": offsets}


def snippet_of(text: str, asked: list[Term]) -> tuple[str, list[list[int]]]:
    """A part of a text around the first place, and where the places are in it, in UTF-16 code units."""
    start, end, found = 0, SNIPPET, list[tuple[int, int]]()
    for begin, stop in places(text, asked):
        if not found:
            start = max(0, begin - BEFORE)
            if start and (space := text.find(" ", start, begin)) >= 0:
                start = space + 1
            end = start + SNIPPET
        if begin >= end:
            break
        found.append((begin, min(stop, end)))
    head, tail = "…" if start else "", "…" if end < len(text) else ""
    part = " ".join(text[start:end].split("\n"))
    offsets = [[len(head) + units(text[start:begin]), len(head) + units(text[start:stop])] for begin, stop in found]
    return head + part + tail, offsets


__all__ = ["Index", "Search", "fold", "open_index", "snippet_of", "title_words"]
