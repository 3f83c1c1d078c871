"""Small things that an owner has set: a JSON value by name."""

from __future__ import annotations

import json
from typing import Any

from tenth.server.state import State


class Preferences:
    """The preferences of a state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def get(self, owner: str, name: str) -> Any:
        """What was set, or None."""
        rows = self._state.query("SELECT value FROM preferences WHERE owner = ? AND name = ?", owner, name)
        return json.loads(rows[0]["value"]) if rows else None

    def set(self, owner: str, name: str, value: Any) -> None:
        """Set a value."""
        with self._state.transaction() as db:
            db.execute("INSERT INTO preferences (owner, name, value) VALUES (?, ?, ?) "
                       "ON CONFLICT (owner, name) DO UPDATE SET value = excluded.value",
                       (owner, name, json.dumps(value)))
