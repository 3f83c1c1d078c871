"""Sessions of browsers: a cookie that stands for an account, a key or, by a pairing link, for who owns this machine.

Cookies and links are 32 random bytes, kept as SHA-256 hashes like keys. A link counts once and for ten minutes. What a
session may do is read anew at every request, so that a changed role or a revoked key counts at once.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from http.cookies import CookieError, SimpleCookie

from tenth.errors import Cause
from tenth.server.accounts import Accounts, User
from tenth.server.failures import Refused
from tenth.server.keys import ANYBODY, Caller, Keys, hash_of
from tenth.server.state import State

SESSION_S = 30 * 24 * 3600.0
PAIRING_S = 600.0
MOST_FAILURES, FORGET_S = 5, 900.0  # of a name, or an address: then each one has to wait


class Sessions:
    """The sessions of a state."""

    def __init__(self, state: State, accounts: Accounts, keys: Keys) -> None:
        self._state, self._accounts, self._keys = state, accounts, keys
        self._failures: dict[str, deque[float]] = {}

    def log_in(self, name: str, password: str, address: str) -> str:
        """The cookie of an account's session. Refuses (401, 429)."""
        return self._open(user_id=self.check_password(name, password, address).id)

    def check_password(self, name: str, password: str, address: str) -> User:
        """The account of this name and password. Refuses (401, 429)."""
        self._check_failures(name, address)
        user = self._accounts.check(name, password)
        if user is None:
            raise self._failed("the name or the password is wrong", Cause("login-wrong"), name, address)
        return user

    def log_in_with_key(self, secret: str, address: str) -> str:
        """The cookie of a key's session. Refuses (401, 403, 429)."""
        self._check_failures("", address)
        key = self._keys.find(secret)
        if key is None:
            raise self._failed("this key does not count", Cause("key-wrong"), "", address)
        if "infer" not in key.scopes:
            raise Refused(403, "this key has not the scope 'infer'", cause=Cause("scope", scope="infer"))
        return self._open(key_id=key.id)

    def pair(self, secret: str, address: str) -> str:
        """The cookie of the session that a link stands for; the link counts no more. Refuses (401, 429)."""
        self._check_failures("", address)
        with self._state.transaction() as db:  # one statement: two that come at once cannot both have it
            row = db.execute("DELETE FROM pairings WHERE hash = ? RETURNING user_id, key_id, expires_at",
                             (hash_of(secret),)).fetchone()
        if row is None or row["expires_at"] < time.time():
            raise self._failed("this link was used already, or is too old", Cause("link-used"), "", address)
        return self._open(row["user_id"], row["key_id"])

    def new_pairing(self, caller: Caller) -> str:
        """The secret of a link to a session as this caller's: of an account, a key, or of who owns this machine."""
        secret, now = secrets.token_urlsafe(32), time.time()
        user_id = caller.owner if caller.role != "local" and caller.key_id is None else None
        with self._state.transaction() as db:
            db.execute("DELETE FROM pairings WHERE expires_at < ?", (now,))
            db.execute("INSERT INTO pairings (hash, user_id, key_id, expires_at) VALUES (?, ?, ?, ?)",
                       (hash_of(secret), user_id, caller.key_id, now + PAIRING_S))
        return secret

    def machines_owner(self) -> Caller:
        """Who owns this machine: the first admin once there are accounts."""
        admins = [user for user in self._accounts.all() if user.role == "admin"]
        return min(admins, key=lambda user: user.created_at).caller if admins else ANYBODY

    def find(self, secret: str) -> Caller | None:
        """Who has this cookie, if it still counts."""
        rows = self._state.query("SELECT user_id, key_id FROM sessions WHERE hash = ? AND expires_at > ?",
                                 hash_of(secret), time.time())
        if not rows:
            return None
        user_id, key_id = rows[0]["user_id"], rows[0]["key_id"]
        if user_id is not None:
            return self._accounts.get(user_id).caller
        if key_id is not None:
            key = self._keys.get(key_id)
            return key.caller if key is not None and key.revoked_at is None else None
        return ANYBODY if not self._accounts.exist else None

    def close(self, secret: str) -> None:
        """Have a cookie count no more."""
        with self._state.transaction() as db:
            db.execute("DELETE FROM sessions WHERE hash = ? OR expires_at < ?", (hash_of(secret), time.time()))

    def _open(self, user_id: str | None = None, key_id: str | None = None) -> str:
        secret, now = secrets.token_urlsafe(32), time.time()
        with self._state.transaction() as db:
            db.execute("INSERT INTO sessions (hash, user_id, key_id, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
                       (hash_of(secret), user_id, key_id, now, now + SESSION_S))
        return secret

    def _check_failures(self, *whom: str) -> None:
        now = time.monotonic()
        for one in whom:
            failures = self._failures.get(one, deque())
            while failures and now - failures[0] > FORGET_S:
                failures.popleft()
            wait_s = 2.0 ** (len(failures) - MOST_FAILURES) if len(failures) >= MOST_FAILURES else 0.0
            wait_s = min(wait_s, FORGET_S)
            if failures and now - failures[-1] < wait_s:
                raise Refused(429, "too many wrong attempts", "wait a little", retry_after_s=round(wait_s),
                              cause=Cause("attempts-many"))

    def _failed(self, message: str, cause: Cause, *whom: str) -> Refused:
        for one in whom:
            if one:
                self._failures.setdefault(one, deque(maxlen=32)).append(time.monotonic())
        if len(self._failures) > 10_000:
            self._failures.clear()
        return Refused(401, message, cause=cause)


def cookie_name(port: int) -> str:
    """Cookies do not tell ports apart; their names do."""
    return f"tenth_{port}"


def cookie_of(header: str, name: str) -> str | None:
    """The value of a cookie in a Cookie header."""
    try:
        found = SimpleCookie(header[:8192]).get(name)
    except CookieError:
        return None
    return found.value if found is not None else None
