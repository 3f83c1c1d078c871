"""Listening and stopping: uvicorn around the app, with a stop that finishes or fails every request cleanly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from tenth.errors import ResourceError
from tenth.server.app import App
from tenth.server.config import ServerConfig
from tenth.server.connections import Connection
from tenth.server.lan import Lan

IDLE_S = 75  # a connection is closed after this without another request
CLOSE_S = 5  # for writing what is left, after the grace


class Server(uvicorn.Server):
    """uvicorn's server, which lets the app end its answers before the connections are closed."""

    def __init__(self, app: App, sock: socket.socket, ready: Callable[[], None] | None = None,
                 lan: Lan | None = None) -> None:
        super().__init__(_config(app.asgi(sock.getsockname()[1]), app.config.tls_cert, app.config.tls_key))
        self._app, self._sock, self._ready, self._lan = app, sock, ready, lan

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets=[self._sock])
        if self._lan is not None and self.started:
            await self._open(self._lan)
        if self._ready is not None and self.started:
            self._ready()

    async def _open(self, lan: Lan) -> None:
        """Listen at the second door too. Its connections count among the first one's, and are closed with them."""
        file = str(lan.certificate.file) if lan.certificate else None
        config = _config(self._app.lan_asgi(lan), file, file)
        config.load()

        def protocol() -> asyncio.Protocol:
            return cast(asyncio.Protocol, cast(Any, config.http_protocol_class)(
                config=config, server_state=self.server_state, app_state=self.lifespan.state))

        self.servers.append(await asyncio.get_running_loop().create_server(protocol, sock=lan.sock, ssl=config.ssl))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what comes, wait for what is at work, then close."""
        for server in self.servers:
            server.close()
        stopping = asyncio.create_task(self._app.shut_down(self._app.config.grace))
        while not stopping.done() and not self.force_exit:  # a second signal ends the grace
            await asyncio.sleep(0.02)
        stopping.cancel()
        await self._app.shut_down(0)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: stop; a second one: at once. Unlike uvicorn's, it is not raised again after a clean stop."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def _config(app: ASGIApp, certificate: str | None, key: str | None) -> uvicorn.Config:
    return uvicorn.Config(app, log_config=None, access_log=False, server_header=False, date_header=False,
                          timeout_keep_alive=IDLE_S, timeout_graceful_shutdown=CLOSE_S, lifespan="on",
                          ws="none", http=Connection, ssl_certfile=certificate, ssl_keyfile=key)


def listen(config: ServerConfig) -> socket.socket:
    """A socket at the address. Raises ResourceError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        raise ResourceError(f"cannot listen at {config.host} port {config.port}: {error.strerror or error}",
                            "is another server running? --port takes another") from None
    return sock
