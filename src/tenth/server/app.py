"""Puts the server together: routes, guard, logs, and what runs beside the requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp

import tenth
from tenth.config import EngineConfig
from tenth.errors import RequestError, TenthError
from tenth.library import list_models
from tenth.server import docs, own
from tenth.server.accounts import Accounts
from tenth.server.body import explain
from tenth.server.chats import PATHS
from tenth.server.chats.page import Page
from tenth.server.chats.parts import ChatServer, Doors
from tenth.server.chats.table import ROUTERS
from tenth.server.config import ServerConfig
from tenth.server.dialects import DIALECTS, error_of
from tenth.server.dialects.openai_batches import Worker
from tenth.server.dialects.openai_responses import Background
from tenth.server.failures import Failure, Refused, failure_of
from tenth.server.files import Batches, Files
from tenth.server.guard import OPEN_PATHS, Allowed, Guard, Visitors
from tenth.server.keys import Keys, Meter
from tenth.server.lan import Lan
from tenth.server.logs import AccessLog
from tenth.server.metrics import Metrics
from tenth.server.replies import Failed
from tenth.server.responses import Responses
from tenth.server.service import Service
from tenth.server.sessions import Sessions, cookie_name
from tenth.server.shelf import Load, Shelf
from tenth.server.state import RETRY_S, State
from tenth.server.streams import Resumables

log = logging.getLogger("tenth.server")

DESCRIPTION = "Open-weight language models on this machine, in the dialects that clients already speak."


class App:
    """A server without its socket. ``asgi`` is what uvicorn runs; the parts are there for tests and for shutting down.

    ``sources``: (name in requests, what to open) of every model; without any, the library's are served. ``engine``: how
    they are opened. Raises RequestError when the address needs a key and there is none.
    """

    def __init__(self, sources: Sequence[tuple[str, str]], load: Load, config: ServerConfig,
                 state: Path | str, engine: EngineConfig | None = None) -> None:
        self.config, self.metrics, self.resumables = config, Metrics(), Resumables()
        self.state = State(state, config.most_kept)
        self.keys, self.accounts = Keys(self.state), Accounts(self.state)
        self.sessions = Sessions(self.state, self.accounts, self.keys)
        has_keys = any(key.revoked_at is None for key in self.keys.all()) or self.accounts.exist
        if not has_keys and (config.require_key or not config.is_loopback):
            self.state.close()
            raise RequestError(f"listening at {config.host} needs a key, and there is none",
                               "make one with tenth key new NAME")
        # Decided once: revoking the last key of a running server must not open it.
        self._needs_key = has_keys or config.require_key or not config.is_loopback
        self.shelf = Shelf(sources, load, waiting=config.waiting, idle_s=config.idle_unload,
                           stock=None if sources else ready_models)
        self.metrics.add_shelf(self.shelf)
        self.service = Service(self.shelf, self.metrics, log_text=config.log_text)
        self.responses = Responses(self.state)
        self.background = Background(self.service, self.responses)
        self.files = Files(self.state)
        self.batches = Batches(self.state, self.files)
        self.worker = Worker(self.service, self.batches)
        self.meter, self.page = Meter(), Page()
        doors = Doors(self.keys, self.accounts, self.sessions, self.needs_key, self.meter)
        self.chats = ChatServer(self.service, self.state, doors, engine or EngineConfig(), config)
        self.fastapi = self._routes()

    def needs_key(self) -> bool:
        """Whether who asks has to be known: from the first account on, also of a running server."""
        self._needs_key = self._needs_key or self.accounts.exist
        return self._needs_key

    def asgi(self, port: int) -> ASGIApp:
        """The whole application, for a server that listens at this port."""
        self.chats.cookie = cookie_name(port)
        return self._guarded(self.config.hosts(port), self.config.scheme, self.needs_key)

    def lan_asgi(self, lan: Lan) -> ASGIApp:
        """The same behind the door to the network, where everybody has to be known."""
        self.chats.lan = lan
        return self._guarded(lan.hosts, lan.scheme, lambda: True)

    def _guarded(self, hosts: frozenset[str], scheme: str, needs_login: Callable[[], bool]) -> ASGIApp:
        allowed = Allowed(hosts, frozenset(self.config.allow_origin or ()), OPEN_PATHS | self.page.paths, scheme=scheme)
        visitors = Visitors(self.keys, self.sessions, needs_login, self.chats.cookie, self.meter, PATHS)
        guarded = Guard(self.fastapi, allowed=allowed, visitors=visitors, refuse=refusal)
        return AccessLog(guarded, self.metrics)

    async def shut_down(self, grace_s: float) -> None:
        """Let what is at work finish within the grace; then nobody is told anything any more."""
        await self.service.shut_down(grace_s)
        self.chats.stop()

    def _routes(self) -> FastAPI:
        app = FastAPI(title="tenth", version=tenth.__version__, description=DESCRIPTION, docs_url=None, redoc_url=None,
                      lifespan=self._lifespan)
        app.state.service, app.state.resumables, app.state.metrics = self.service, self.resumables, self.metrics
        app.state.responses, app.state.background = self.responses, self.background
        app.state.files, app.state.batches, app.state.worker = self.files, self.batches, self.worker
        app.state.chats = self.chats
        for router in (own.router, *(dialect.router for dialect in DIALECTS), *ROUTERS):
            app.include_router(router, responses=_ERRORS)
        app.include_router(self.page.router)

        @app.get("/docs", include_in_schema=False)
        async def show_docs() -> HTMLResponse:
            """Every route and its fields, without anything from elsewhere."""
            # Made when asked for, and then kept by the app: the document takes some 9 MB.
            return HTMLResponse(docs.page(app), headers={"content-security-policy": docs.POLICY})

        for kind in (TenthError, RequestValidationError, HTTPException, ClientDisconnect, Exception):
            app.add_exception_handler(kind, _on_error)
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self.background.resume()
        tasks = [asyncio.create_task(_for_ever(work)) for work in (
            self.shelf.watch, self.resumables.watch, self.worker.run, self.chats.run)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.chats.close()
            await self.background.close()
            await self.resumables.close()
            await self.shelf.close()
            self.state.close()


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Work beside the requests, which begins again where it fails: else answers were no longer saved, say."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("what runs beside the requests failed, and begins again")
        await asyncio.sleep(RETRY_S)


def ready_models() -> list[str]:
    """Names of the library's models."""
    return [entry.name for entry in list_models() if entry.state in ("ready", "changed")]


_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A field is wrong; the message names it."},
    401: {"description": "A key is needed."}, 403: {"description": "Not from here, or not with this key."},
    404: {"description": "There is no such thing, or it is not yours."},
    409: {"description": "Not as things are now; the message says why."}, 413: {"description": "Too large."},
    415: {"description": "Not JSON."}, 429: {"description": "Too much is waiting; see Retry-After."},
    503: {"description": "Not now; see Retry-After."}, 507: {"description": "The disk is full: nothing was stored."},
}
_ERRORS = {status: {**error, "model": Failed} for status, error in _ERRORS.items()}


def refusal(path: str, failure: Failure) -> Response:
    """A failure as the response that clients of this path expect."""
    return JSONResponse(error_of(path, failure), failure.status, failure.headers)


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        error = explain(error)
    if isinstance(error, ClientDisconnect):
        error = Refused(499, "the client went away")
    if isinstance(error, HTTPException):
        answer = refusal(request.scope["path"], _no_route(request, error))
        answer.headers.update(error.headers or {})  # of a 405, the methods there are
        return answer
    return refusal(request.scope["path"], failure_of(error))


def _no_route(request: Request, error: HTTPException) -> Failure:
    """What is told where the router has nothing; a client whose base URL has /v1 too often or not at all is told so."""
    if error.status_code not in (404, 405):
        return Failure(error.status_code, str(error.detail))
    path, method = request.scope["path"], request.method
    meant = next((other for other in (f"/v1{path}", path.removeprefix("/v1")) if any(
        route.matches({**request.scope, "path": other})[0] is Match.FULL for route in request.app.routes)), None)
    hint = f"there is {meant}: see the client's base URL" if meant else "/docs lists what there is"
    return failure_of(Refused(error.status_code, f"there is no {method} {path[:200]} here", hint))
