"""Everything that serves conversations, put together: what the app knows of this package."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from tenth.config import EngineConfig
from tenth.errors import TenthError
from tenth.server.accounts import Accounts
from tenth.server.chats.answering import Answering
from tenth.server.chats.attachments import Attachments
from tenth.server.chats.deleting import TRACES
from tenth.server.chats.events import Hub
from tenth.server.chats.looking import Insides
from tenth.server.chats.preferences import Preferences
from tenth.server.chats.pulls import Pulls
from tenth.server.chats.search import Search, SqliteIndex, open_index
from tenth.server.chats.shelves import Shelves
from tenth.server.chats.stock import Stock
from tenth.server.chats.store import Chats
from tenth.server.chats.watching import Watching
from tenth.server.config import ServerConfig
from tenth.server.databases import EVERYBODY
from tenth.server.keys import Keys, Meter
from tenth.server.lan import Lan
from tenth.server.service import Service
from tenth.server.sessions import Sessions
from tenth.server.state import State

ERASE_S = 5.0  # after a deletion, at most
ELSEWHERE_S = 1.0


@dataclass(frozen=True)
class Doors:
    """Who may come in, for the routes that tell and change it."""

    keys: Keys
    accounts: Accounts
    sessions: Sessions
    need_login: Callable[[], bool]
    meter: Meter


class ChatServer:
    """The parts. ``run`` goes on while the server does; ``stop`` ends the pages' streams, ``close`` the rest."""

    def __init__(self, service: Service, state: State, doors: Doors, engine: EngineConfig,
                 config: ServerConfig) -> None:
        self.service, self.state, self.doors, self.engine, self.config = service, state, doors, engine, config
        self.lan: Lan | None = None  # the door to the network, if there is one
        self.cookie = ""  # the name of this server's, once the port is known
        self.hub = Hub()
        self.index = open_index(state)
        self.chats, self.shelves, self.search = Chats(state, self.index), Shelves(state), Search(state, self.index)
        self.attachments = Attachments(state, service.shelf)
        self.answering = Answering(service, state, self.chats, self.hub)

        self.watching = Watching(self.answering, service.shelf, self.hub, engine)
        self.answering.before_cost = self.watching.look
        self.stock, self.pulls = Stock(service.shelf, engine), Pulls(service.shelf, self.hub)
        self.importing = asyncio.Semaphore(1)  # files that are read at a time: one may take 4 GiB
        self.preferences, self.insides = Preferences(state), Insides(state)

    async def run(self) -> None:
        """What runs beside the requests."""
        await self.state.run(self.answering.recover)
        if await self.state.run(self.chats.deletion.has_traces):  # the last server was ended before it erased them
            self.chats.deletion.was_deleted.set()
        await self.state.run(self.attachments.forget_orphans)
        async with asyncio.TaskGroup() as tasks:
            for work in (self.answering.run, self.watching.run, self._erase, self._look_elsewhere):
                tasks.create_task(work())

    async def _look_elsewhere(self) -> None:
        """Have pages read again what another process wrote (``tenth chat``), or left unfinished when it died."""
        while True:
            with contextlib.suppress(TenthError):  # a disk that fails for a while: looked at again
                changed = await self.state.run(self.state.engine.changed_elsewhere)
                changed |= await self.state.run(self.answering.recover)
                for owner in self.hub.owners:
                    if not changed.isdisjoint((owner, EVERYBODY)):
                        self.hub.tell(owner, "reset", {})
            await asyncio.sleep(ELSEWHERE_S)

    async def _erase(self) -> None:
        """Remove the traces of what was deleted from the files, for ever."""
        while True:
            await asyncio.sleep(ERASE_S)
            if self.chats.deletion.was_deleted.is_set():
                self.chats.deletion.was_deleted.clear()
                await self.state.run(self.chats.deletion.sweep)
                with contextlib.suppress(TenthError):  # a disk that fails: tried again after the next start
                    if not await self.state.run(erase, self.state):
                        self.chats.deletion.was_deleted.set()

    def stop(self) -> None:
        """Let nobody listen any more."""
        self.hub.close()

    async def close(self) -> None:
        """End what is left."""
        self.stop()
        await self.answering.close()
        await self.pulls.close()
        await self.stock.close()


def erase(state: State) -> bool:
    """Leave nothing in the files of what was deleted: in the index, and in the database's log. False: not now."""
    index = open_index(state)
    if isinstance(index, SqliteIndex):
        while index.merge():
            pass
    if not state.engine.forget():
        return False
    with state.transaction() as db:  # last: what is not finished is done after the next start
        db.execute("DELETE FROM preferences WHERE owner = ? AND name = ?", TRACES)
    return True


def parts(request: Request) -> ChatServer:
    """The parts of the app that a request came to."""
    found: ChatServer = request.app.state.chats
    return found
