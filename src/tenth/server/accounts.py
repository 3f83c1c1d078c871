"""Accounts: people with a name and a password, made by an admin. Their keys and sessions see the same things.

Passwords are kept as Argon2id hashes with OWASP's parameters for 19 MiB; one is computed at a time, so that logins
cannot take the machine's memory. The first account is the owner of what was there before there were accounts.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tenth.errors import Cause, RequestError
from tenth.server.databases import Database
from tenth.server.failures import Refused
from tenth.server.keys import LOCAL, SCOPES_OF, Caller, Role
from tenth.server.service import new_id
from tenth.server.state import State

LEAST_PASSWORD, MOST_PASSWORD = 8, 1024
ROLES = ("admin", "member")
OWNED = ("responses", "files", "batches")  # tables with an owner, beside those of chats
# The hash of nothing that anybody has: checking it takes as long as checking a real one.
NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$oaCWKVCJ4aEy4UUmDR1MI3vOkqZ/8SbHkUKuAvxwoAo"


@dataclass(frozen=True)
class User:
    """What is known of an account. Limits: None is none."""

    id: str
    name: str
    role: Role
    has_password: bool
    requests_per_minute: int | None
    concurrent: int | None
    created_at: float

    @property
    def caller(self) -> Caller:
        """Who asks when it does."""
        return Caller(self.id, self.name, self.role, SCOPES_OF[self.role], self.requests_per_minute, self.concurrent)


class Accounts:
    """The accounts of a state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._hashing = threading.Lock()

    @property
    def exist(self) -> bool:
        """Whether there is any."""
        return bool(self._state.query("SELECT id FROM users LIMIT 1"))

    def all(self) -> list[User]:
        """Every account, by name."""
        return [_user(row) for row in self._state.query("SELECT * FROM users ORDER BY name")]

    def get(self, id: str) -> User:
        """An account by its id, or by its name. Refuses (404)."""
        rows = (self._state.query("SELECT * FROM users WHERE id = ?", id)
                or self._state.query("SELECT * FROM users WHERE name = ?", id))
        if not rows:
            raise Refused(404, f"there is no account {id!r}", cause=Cause("gone"))
        return _user(rows[0])

    def new(self, name: str, password: str | None, role: str = "member", requests_per_minute: int | None = None,
            concurrent: int | None = None) -> User:
        """Make an account. Raises RequestError for what cannot be; the first one has to be an admin's."""
        if not re.fullmatch(r"[\w][\w .@-]{0,63}", name):
            raise RequestError(f"the name {name!r} cannot be used", "letters, digits, space and . _ @ -, at most 64",
                               cause=Cause("account-name", name=name))
        if re.fullmatch(rf"{LOCAL}|user_[0-9a-f]{{24}}", name):
            raise RequestError(f"the name {name!r} cannot be used", "an account's id is called so",
                               cause=Cause("account-name", name=name))
        if role not in ROLES:
            raise RequestError(f"the role {role!r}, expected {' or '.join(ROLES)}")
        hashed = self._hash(password) if password is not None else None
        with self._state.transaction() as db:
            n, taken = db.execute("SELECT count(*), coalesce(sum(CASE WHEN name = ? THEN 1 ELSE 0 END), 0) FROM users",
                                  (name,)).fetchone()
            if taken:
                raise RequestError(f"there is an account {name!r} already", "tenth user list shows them",
                                   cause=Cause("account-taken", name=name))
            if not n and role != "admin":
                raise RequestError("the first account has to be an admin's", "add --admin",
                                   cause=Cause("account-first"))
            id = new_id("user_") if n else LOCAL
            db.execute("INSERT INTO users (id, name, role, password, requests_per_minute, concurrent, created_at) "
                       "VALUES (?, ?, ?, ?, ?, ?, ?)",
                       (id, name, role, hashed, requests_per_minute, concurrent, time.time()))
        return self.get(id)

    def change(self, id: str, changes: dict[str, Any]) -> User:
        """Change role, password or limits. The last admin stays one; keys keep no scope that the role has not."""
        user = self.get(id)
        values = dict(changes)
        if (password := values.pop("password", None)) is not None:
            values["password"] = self._hash(password)
        if values.get("role", user.role) not in ROLES:
            raise RequestError(f"the role {values['role']!r}, expected {' or '.join(ROLES)}")
        with self._state.transaction() as db:
            for name, value in values.items():
                db.execute(f"UPDATE users SET {name} = ? WHERE id = ?", (value, user.id))
            if "role" in values:
                _cut_scopes(db, user.id, SCOPES_OF[values["role"]])
            if "password" in values:
                db.execute("DELETE FROM sessions WHERE user_id = ?", (user.id,))
            _keep_an_admin(db)
        return self.get(user.id)

    def remove(self, id: str, and_chats: Callable[[Database, str], None]) -> User:
        """Delete an account with everything that it owns. ``and_chats``: deletes chats and what belongs to them."""
        user = self.get(id)
        with self._state.transaction(user.id) as db:
            db.execute("DELETE FROM batch_lines WHERE batch IN (SELECT id FROM batches WHERE owner = ?)", (user.id,))
            for table in OWNED:
                db.execute(f"DELETE FROM {table} WHERE owner = ?", (user.id,))
            and_chats(db, user.id)
            db.execute("DELETE FROM users WHERE id = ?", (user.id,))
            if db.execute("SELECT count(*) AS n FROM users").fetchone()["n"]:
                _keep_an_admin(db)
        return user

    def log_out(self, id: str | None = None) -> int:
        """End every session of an account, or of everybody (paired phones too); gives how many there were."""
        where, values = ("WHERE user_id = ?", (self.get(id).id,)) if id is not None else ("", ())
        with self._state.transaction() as db:
            return int(db.execute(f"DELETE FROM sessions {where}", values).rowcount)

    def check(self, name: str, password: str) -> User | None:
        """The account of this name and password; takes as long for a name that there is not."""
        rows = self._state.query("SELECT * FROM users WHERE name = ?", name)
        hashed = rows[0]["password"] if rows else None
        return _user(rows[0]) if self._matches(hashed or NOBODY, password) and hashed else None

    def _hash(self, password: str) -> str:
        if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
            raise RequestError(f"the password has {len(password)} characters, expected at least {LEAST_PASSWORD}",
                               cause=Cause("password-short", least=LEAST_PASSWORD, n=len(password)))
        with self._hashing:
            return str(_hasher().hash(password))

    def _matches(self, hashed: str, password: str) -> bool:
        from argon2.exceptions import VerificationError

        with self._hashing:
            try:
                return bool(_hasher().verify(hashed, password[:MOST_PASSWORD]))
            except VerificationError:
                return False


def _hasher() -> Any:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def _cut_scopes(db: Database, user_id: str, allowed: tuple[str, ...]) -> None:
    for row in db.execute("SELECT id, scopes FROM keys WHERE user_id = ?", (user_id,)).fetchall():
        kept = " ".join(scope for scope in row["scopes"].split() if scope in allowed)
        db.execute("UPDATE keys SET scopes = ? WHERE id = ?", (kept, row["id"]))


def _keep_an_admin(db: Database) -> None:
    if not db.execute("SELECT count(*) AS n FROM users WHERE role = 'admin'").fetchone()["n"]:
        raise RequestError("this is the last admin", "make another one first", cause=Cause("account-last-admin"))


def _user(row: Any) -> User:
    return User(row["id"], row["name"], row["role"], row["password"] is not None, row["requests_per_minute"],
                row["concurrent"], row["created_at"])
