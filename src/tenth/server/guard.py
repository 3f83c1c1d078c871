"""The door: every request passes here before any route. Who is not let in gets 401, 403, 413, 415 or 429.

All of it is decided from the raw scope, not from a URL that was put together from the Host header (that is how
CVE-2026-48710 went round others' checks). Host and Origin are compared whole with lists; a browser that was led here by
a foreign page fails on one of them (CVE-2024-28224). Only /health, the certificate for devices, the page's files and
the login are open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenth.errors import Cause
from tenth.server.failures import Failure, Refused, failure_of
from tenth.server.keys import ANYBODY, Caller, Keys, Meter
from tenth.server.lan import AUTHORITY_PATH
from tenth.server.sessions import Sessions, cookie_of

OPEN_PATHS = frozenset({"/health", AUTHORITY_PATH})
LOGIN_PATH = "/api/session"  # tells and makes who is asking, so nobody can be asked to be somebody before
MOST_BODY_BYTES = 16 << 20
FORM_PATHS = {"/v1/files": 64 << 20, "/api/import": 512 << 20}  # POST takes a form there, of at most so many bytes
EITHER_PATHS = {"/api/attachments": 64 << 20}  # a form or JSON
MOST_OF_STRANGERS_BYTES = 1 << 14  # they have only a login to send
MOST_PATH_BYTES = 2048

# Beginning of the path -> the scope a key needs for it; the first that fits. Everything else needs "infer".
SCOPE_OF = (("/metrics", "metrics"), ("/api/pull", "manage"), ("/api/library/", "manage"), ("/api/users", "accounts"))
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Allowed:
    """Who may come in. ``hosts``: values of the Host header; ``origins``: of Origin, beside the server's own."""

    hosts: frozenset[str]
    origins: frozenset[str] = frozenset()
    open_paths: frozenset[str] = OPEN_PATHS
    own_origins: frozenset[str] = field(init=False)
    scheme: str = "http"

    def __post_init__(self) -> None:
        object.__setattr__(self, "own_origins", frozenset(f"{self.scheme}://{host}" for host in self.hosts))


@dataclass(frozen=True)
class Visitors:
    """How to tell who asks. ``needs_login``: whether somebody unknown may not; ``cookie``: its name.

    ``unmetered``: beginnings of paths whose requests do not count against a caller's limits.
    """

    keys: Keys
    sessions: Sessions
    needs_login: Callable[[], bool]
    cookie: str
    meter: Meter
    unmetered: tuple[str, ...] = ()


class Guard:
    """ASGI middleware. ``refuse``: the response for a failure, in the dialect of the path."""

    def __init__(self, app: ASGIApp, *, allowed: Allowed, visitors: Visitors,
                 refuse: Callable[[str, Failure], Response]) -> None:
        self._app, self._allowed, self._visitors, self._refuse = app, allowed, visitors, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no route speaks websocket
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        origin = headers.get(b"origin", b"").decode("latin-1")
        metered = None
        try:
            self._check_origin(scope, headers, origin)
            if origin in self._allowed.origins:
                send = _with_cors(send, origin)
                if scope["method"] == "OPTIONS":
                    await _preflight()(scope, receive, send)
                    return
            caller = await self._caller(scope, headers, origin)
            most_bytes = _check_body(scope["method"], scope["path"], headers, caller is not None)
            if caller is not None and not scope["path"].startswith(self._visitors.unmetered or "\0"):
                self._visitors.meter.start(caller)
                metered = caller
        except Refused as error:
            await self._refuse(scope["path"], failure_of(error))(scope, receive, send)
            return
        scope.setdefault("state", {}).update(owner=caller.owner if caller else None, caller=caller)
        try:
            await self._app(scope, _bounded(receive, most_bytes), send)
        finally:
            if metered is not None:
                self._visitors.meter.end(metered)

    def _check_origin(self, scope: Scope, headers: dict[bytes, bytes], origin: str) -> None:
        names = [name.lower() for name, _ in scope["headers"]]
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if names.count(b"host") != 1 or host not in self._allowed.hosts:
            raise Refused(403, f"the Host {host[:200]!r} is not served here", "see --allow-host", cause=Cause("origin"))
        known = origin in self._allowed.own_origins or origin in self._allowed.origins
        if names.count(b"origin") > 1 or (origin and not known):
            raise Refused(403, f"pages of the origin {origin[:200]!r} may not use this server", "see --allow-origin",
                          cause=Cause("origin"))
        if headers.get(b"sec-fetch-site") == b"cross-site" and not known:
            raise Refused(403, "other sites may not use this server", "see --allow-origin", cause=Cause("origin"))

    async def _caller(self, scope: Scope, headers: dict[bytes, bytes], origin: str) -> Caller | None:
        """Who asks. In a thread: a database that is busy, or gone, would have everybody's streams wait."""
        if scope["path"] in self._allowed.open_paths:
            return None
        return await asyncio.to_thread(self._check_caller, scope, headers, origin)

    def _check_caller(self, scope: Scope, headers: dict[bytes, bytes], origin: str) -> Caller | None:
        """Who asks, if anybody has to be known. Refuses who is not, and who may not."""
        path, visitors = scope["path"], self._visitors
        if not visitors.needs_login():
            return ANYBODY
        caller = self._caller_of_key(headers) or self._caller_of_cookie(scope, headers, origin)
        if caller is None:
            if path == LOGIN_PATH:
                return None
            raise Refused(401, "a valid key is needed", "tenth key new NAME makes one", cause=Cause("login"))
        needed = next((scope for start, scope in SCOPE_OF if path.startswith(start)), "infer")
        if needed not in caller.scopes:
            raise Refused(403, f"this key has not the scope {needed!r}", cause=Cause("scope", scope=needed))
        return caller

    def _caller_of_key(self, headers: dict[bytes, bytes]) -> Caller | None:
        secret = key_of(headers)
        key = self._visitors.keys.find(secret) if secret else None
        return key.caller if key is not None else None

    def _caller_of_cookie(self, scope: Scope, headers: dict[bytes, bytes], origin: str) -> Caller | None:
        secret = cookie_of(headers.get(b"cookie", b"").decode("latin-1"), self._visitors.cookie)
        caller = self._visitors.sessions.find(secret) if secret else None
        if caller is not None and scope["method"] not in SAFE_METHODS and origin not in self._allowed.own_origins:
            raise Refused(403, "a cookie counts only for this server's own pages", "programs send a key",
                          cause=Cause("origin"))
        return caller


def key_of(headers: Mapping[bytes, bytes]) -> str:
    """The key that a request brought, or nothing."""
    scheme, _, secret = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        secret = headers.get(b"x-api-key", b"").decode("latin-1")  # as Anthropic's clients send it
    return secret.strip()


def _check_body(method: str, path: str, headers: dict[bytes, bytes], is_known: bool) -> int:
    """Check the content type and announced length of a request; gives how many bytes its body may have."""
    if len(path) > MOST_PATH_BYTES:
        raise Refused(414, "the path is too long")
    most = (FORM_PATHS | EITHER_PATHS).get(path, MOST_BODY_BYTES) if is_known else MOST_OF_STRANGERS_BYTES
    if method not in ("GET", "HEAD", "OPTIONS", "DELETE"):
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        expected = b"multipart/form-data" if path in FORM_PATHS else b"application/json"
        if kind != expected and not (path in EITHER_PATHS and kind == b"multipart/form-data"):
            raise Refused(415, f"the content type is {kind.decode('latin-1')[:200]!r}, expected {expected.decode()}",
                          f"curl: -H 'content-type: {expected.decode()}'" if path not in FORM_PATHS else "curl: -F")
        if kind == b"multipart/form-data":
            _check_form(headers[b"content-type"])
        elif path in EITHER_PATHS:
            most = min(most, MOST_BODY_BYTES)
        if b"content-encoding" in headers:
            raise Refused(415, "bodies must not be compressed")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 15 or int(length) > most:
        raise Refused(413, f"the body is larger than {most} bytes", cause=Cause("body-large", bytes=most))
    return most


def _check_form(content_type: bytes) -> None:
    """Refuse a form in another encoding than UTF-8: Python has some that make texts which no database takes."""
    for parameter in content_type.lower().split(b";")[1:]:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip(b" \t\"'") not in (b"utf-8", b"utf8"):
            raise Refused(415, "forms have to be in UTF-8")


def _bounded(receive: Receive, most_bytes: int) -> Receive:
    """``receive`` that refuses a body which turns out too large, whatever length was announced."""
    n_bytes = 0

    async def bounded() -> Message:
        nonlocal n_bytes
        message = await receive()
        if message["type"] == "http.request":
            n_bytes += len(message.get("body", b""))
            if n_bytes > most_bytes:
                raise Refused(413, f"the body is larger than {most_bytes} bytes",
                              cause=Cause("body-large", bytes=most_bytes))
        return message

    return bounded


def _with_cors(send: Send, origin: str) -> Send:
    async def with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = {"access-control-allow-origin": origin, "vary": "Origin"}
            message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in extra.items())]
        await send(message)

    return with_cors


def _preflight() -> Response:
    return Response(status_code=204, headers={
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-allow-headers": "authorization, content-type, last-event-id, x-api-key, x-tenth-resumable",
        "access-control-max-age": "600",
    })


