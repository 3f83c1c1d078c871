"""Stored responses: what was asked, what was answered, and the conversation that a next one goes on from.

A response is on the disk before anyone is told its id, and complete before anyone is told that it is. Every look-up
takes the owner; another's response is as absent as one that never was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tenth.server.failures import Refused
from tenth.server.state import State
from tenth.text.messages import MAX_MESSAGES

AT_WORK = ("queued", "in_progress")
Message = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """One response. ``messages``: what its turn added to the conversation, the answer included once it is there."""

    id: str
    owner: str
    previous_id: str | None
    status: str
    request: dict[str, Any]
    messages: list[Message]
    body: dict[str, Any]


class Responses:
    """The responses of a state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, stored: Stored) -> None:
        """Store a new response."""
        with self._state.transaction() as db:
            self._state.make_room(db, "responses", stored.owner)
            db.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (
                stored.id, stored.owner, time.time(), stored.previous_id, stored.status, json.dumps(stored.request),
                json.dumps(stored.messages), json.dumps(stored.body)))

    def end(self, id: str, body: dict[str, Any], messages: Sequence[Message]) -> bool:
        """Store how a response ended. False: it had ended before, or is deleted; nothing is changed then."""
        with self._state.transaction() as db:
            done = db.execute("UPDATE responses SET status = ?, body = ?, messages = ? WHERE id = ? AND status IN "
                              "('queued', 'in_progress')",
                              (body["status"], json.dumps(body), json.dumps(list(messages)), id))
            return bool(done.rowcount)

    def get(self, id: str, owner: str, param: str | None = None) -> Stored:
        """A response. Refuses (404) what is not there, or not theirs; ``param``: the field that named it."""
        rows = self._state.query("SELECT * FROM responses WHERE id = ? AND owner = ?", id, owner)
        if not rows:
            raise Refused(404, f"there is no response {id!r}", param=param)
        return _stored(rows[0])

    def delete(self, id: str, owner: str) -> None:
        """Remove a response; those that went on from it then go on from nothing."""
        with self._state.transaction() as db:
            if not db.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (id, owner)).rowcount:
                raise Refused(404, f"there is no response {id!r}")

    def conversation(self, id: str | None, owner: str) -> list[Message]:
        """All messages up to and with a response, oldest first."""
        turns: list[list[Message]] = []
        n_messages = 0
        while id is not None:
            stored = self.get(id, owner, "previous_response_id")
            if stored.status not in ("completed", "incomplete"):
                raise Refused(400, f"the response {id!r} is {stored.status}, so nothing can go on from it",
                              param="previous_response_id")
            turns.append(stored.messages)
            n_messages += len(stored.messages)
            if n_messages > MAX_MESSAGES:
                raise Refused(400, f"the conversation has more than {MAX_MESSAGES} messages",
                              param="previous_response_id")
            id = stored.previous_id
        return [message for turn in reversed(turns) for message in turn]

    def at_work(self) -> list[Stored]:
        """Responses that have not ended: after a start, those that a stop interrupted."""
        return [_stored(row) for row in self._state.query(
            "SELECT * FROM responses WHERE status IN ('queued', 'in_progress') ORDER BY created_at")]


def _stored(row: Any) -> Stored:
    return Stored(row["id"], row["owner"], row["previous_id"], row["status"], json.loads(row["request"]),
                  json.loads(row["messages"]), json.loads(row["body"]))
