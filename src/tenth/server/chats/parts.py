"""Everything that serves conversations, put together: what the app knows of this package."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from tenth.server.accounts import Accounts
from tenth.server.chats.answering import Answering
from tenth.server.chats.events import Hub
from tenth.server.chats.shelves import Shelves
from tenth.server.chats.store import Chats
from tenth.server.keys import Keys
from tenth.server.service import Service
from tenth.server.sessions import Sessions
from tenth.server.state import State


@dataclass(frozen=True)
class Doors:
    """Who may come in, for the routes that tell and change it."""

    keys: Keys
    accounts: Accounts
    sessions: Sessions
    need_login: Callable[[], bool]


class ChatServer:
    """The parts. ``run`` goes on while the server does; ``stop`` ends the pages' streams, ``close`` the rest."""

    def __init__(self, service: Service, state: State, doors: Doors) -> None:
        self.service, self.state, self.doors = service, state, doors
        self.cookie = ""  # the name of this server's, once the port is known
        self.hub = Hub()
        self.chats, self.shelves = Chats(state), Shelves(state)
        self.answering = Answering(service, state, self.chats, self.hub)

    async def run(self) -> None:
        """What runs beside the requests."""
        await self.state.run(self.answering.recover)
        await asyncio.gather(self.answering.run())

    def stop(self) -> None:
        """Let nobody listen any more."""
        self.hub.close()

    async def close(self) -> None:
        """End what is left."""
        self.stop()
        await self.answering.close()


def parts(request: Request) -> ChatServer:
    """The parts of the app that a request came to."""
    found: ChatServer = request.app.state.chats
    return found
