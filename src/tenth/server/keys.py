"""Keys: made and revoked on the command line, kept as hashes, each with scopes and limits. And who asks, the Caller.

A key is 32 random bytes; a plain SHA-256 of so much randomness cannot be searched, so no slow hash is needed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from tenth.errors import Cause, RequestError
from tenth.server.databases import Conflict
from tenth.server.failures import Refused
from tenth.server.state import State

PREFIX = "tenth-"
LOCAL = "local"  # who asks when no key is needed

# infer: ask models, and what belongs to that; manage: pull and remove models; metrics: read /metrics;
# accounts: make and remove accounts.
Scope = Literal["infer", "manage", "metrics", "accounts"]
SCOPES: tuple[str, ...] = get_args(Scope)
Role = Literal["admin", "member", "local"]  # local: who needs neither account nor key, on this machine
SCOPES_OF: dict[str, tuple[str, ...]] = {"admin": SCOPES, "local": SCOPES, "member": ("infer",)}


@dataclass(frozen=True)
class Caller:
    """Who asks. ``owner``: whose things they see. ``key_id``: with which key. Limits: None is none."""

    owner: str
    name: str
    role: Role
    scopes: tuple[str, ...]
    requests_per_minute: int | None = None
    concurrent: int | None = None
    key_id: str | None = None


# Keys with the limits of the accounts whose they are.
_KEYS = ("SELECT keys.*, users.requests_per_minute AS user_per_minute, users.concurrent AS user_concurrent FROM keys "
         "LEFT JOIN users ON users.id = user_id")

ANYBODY = Caller(LOCAL, LOCAL, "local", SCOPES_OF["local"])


@dataclass(frozen=True)
class Key:
    """What is known of a key. Limits: None is none."""

    id: str
    name: str
    scopes: tuple[str, ...]
    requests_per_minute: int | None
    concurrent: int | None
    created_at: float
    revoked_at: float | None
    user_id: str | None = None  # whose it is; without, it is its own owner
    of_user: tuple[int | None, int | None] = (None, None)  # the limits of that account

    @property
    def caller(self) -> Caller:
        """Who asks with it."""
        per_minute, at_once = self.of_user
        return Caller(self.user_id or self.id, self.name, "member", self.scopes,
                      _least(self.requests_per_minute, per_minute), _least(self.concurrent, at_once), self.id)


class Keys:
    """The keys of a state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def new(self, name: str, scopes: tuple[str, ...], requests_per_minute: int | None = None,
            concurrent: int | None = None, user_id: str | None = None) -> str:
        """Make a key and give its secret, which nobody can be told again. Raises RequestError for a name in use."""
        if not re.fullmatch(r"[\w][\w .@-]{0,63}", name):
            raise RequestError(f"the name {name!r} cannot be used", "letters, digits, space and . _ @ -, at most 64")
        for scope in scopes:
            if scope not in SCOPES:
                raise RequestError(f"there is no scope {scope!r}", f"there are: {', '.join(SCOPES)}")
        secret = PREFIX + secrets.token_urlsafe(32)
        row = ("key_" + secrets.token_hex(8), name, hash_of(secret), " ".join(scopes), requests_per_minute, concurrent,
               time.time(), user_id)
        try:
            with self._state.transaction() as db:
                db.execute("INSERT INTO keys (id, name, hash, scopes, requests_per_minute, concurrent, created_at, "
                           "user_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        except Conflict:
            raise RequestError(f"there is a key named {name!r} already", "tenth key list shows them") from None
        return secret

    def all(self) -> list[Key]:
        """Every key, also revoked ones, oldest first."""
        return [_key(row) for row in self._state.query(f"{_KEYS} ORDER BY keys.created_at")]

    def revoke(self, name: str) -> Key:
        """Have a key count no more, given by name or id. Raises RequestError when there is none."""
        with self._state.transaction() as db:
            done = db.execute("UPDATE keys SET revoked_at = ? WHERE (name = ? OR id = ?) AND revoked_at IS NULL",
                              (time.time(), name, name))
            if not done.rowcount:
                raise RequestError(f"there is no key {name!r} in use", "tenth key list shows them")
        return next(key for key in self.all() if name in (key.name, key.id))

    def get(self, id: str) -> Key | None:
        """The key of this id, also a revoked one."""
        rows = self._state.query(f"{_KEYS} WHERE keys.id = ?", id)
        return _key(rows[0]) if rows else None

    def find(self, secret: str) -> Key | None:
        """The key of a secret, if it is one that counts."""
        rows = self._state.query(f"{_KEYS} WHERE hash = ? AND revoked_at IS NULL", hash_of(secret))
        return _key(rows[0]) if rows else None


def hash_of(secret: str) -> bytes:
    """What is kept of a secret of 32 random bytes."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


def _key(row: Any) -> Key:
    return Key(row["id"], row["name"], tuple(row["scopes"].split()), row["requests_per_minute"], row["concurrent"],
               row["created_at"], row["revoked_at"], row["user_id"], (row["user_per_minute"], row["user_concurrent"]))


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


class Meter:
    """How much each caller asks at the moment, against its limits."""

    def __init__(self) -> None:
        self._starts: dict[str, deque[float]] = {}  # of the last minute
        self._at_work: dict[str, int] = {}

    def start(self, caller: Caller) -> None:
        """A request begins. Refuses (429) one too many."""
        now_s = time.monotonic()
        starts = self._starts.setdefault(caller.owner, deque())
        while starts and now_s - starts[0] >= 60:
            starts.popleft()
        if caller.requests_per_minute is not None and len(starts) >= caller.requests_per_minute:
            raise Refused(429, f"{caller.name} may make {caller.requests_per_minute} requests a minute",
                          retry_after_s=max(1, round(60 - (now_s - starts[0]))),
                          cause=Cause("requests-many", n=caller.requests_per_minute))
        if caller.concurrent is not None and self._at_work.get(caller.owner, 0) >= caller.concurrent:
            raise Refused(429, f"{caller.name} may have {caller.concurrent} requests at work", retry_after_s=1,
                          cause=Cause("answers-many", n=caller.concurrent))
        if caller.requests_per_minute is not None:
            starts.append(now_s)
        self._at_work[caller.owner] = self._at_work.get(caller.owner, 0) + 1

    def count(self, caller: Caller) -> None:
        """Something that goes on by itself begins: it counts among the requests of the minute. Refuses (429)."""
        if caller.requests_per_minute is not None:
            self.start(replace(caller, concurrent=None))
            self.end(caller)

    def end(self, caller: Caller) -> None:
        """A request has ended."""
        self._at_work[caller.owner] -= 1
