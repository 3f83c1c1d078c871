"""Fetching and removing models from the page: one pull at a time each, told to every page that is open."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from tenth.errors import Cause, TenthError
from tenth.library import catalogue, pull, remove
from tenth.library.sources.hub import HubModel
from tenth.server.chats.events import Hub
from tenth.server.failures import Refused
from tenth.server.shelf import Shelf

log = logging.getLogger("tenth.server")

TELL_S = 0.25
MOST_PULLS = 4


@dataclass
class Pull:
    """How far a pull is. ``state``: running, done, failed or cancelled."""

    name: str
    what: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    state: str = "running"
    error: str | None = None
    cause: dict[str, Any] | None = None


class _Cancelled(Exception):
    pass


class Pulls:
    """The pulls of this server. Those that have ended are remembered until the next one of their name."""

    def __init__(self, shelf: Shelf, hub: Hub) -> None:
        self._shelf, self._hub = shelf, hub
        self.all: dict[str, Pull] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, threading.Event] = {}

    def start(self, name: str) -> Pull:
        """Begin to fetch a model. Refuses (400, 409, 429); one that is being fetched goes on."""
        if name.lower().startswith("hf:"):
            name = HubModel.parse(name).name
        elif name not in catalogue.CATALOGUE:  # no request names an address
            raise Refused(400, f"{name!r} is neither in the catalogue nor like hf:ORG/REPO:QUANT",
                          f"the catalogue has: {', '.join(catalogue.CATALOGUE)}", param="name",
                          cause=Cause("model-unknown", name=name))
        if name in self._tasks:
            return self.all[name]
        if len(self._tasks) >= MOST_PULLS:
            raise Refused(429, f"{MOST_PULLS} models are being fetched already", "wait for one", retry_after_s=30,
                          cause=Cause("pulls-many", n=MOST_PULLS))
        found = self.all[name] = Pull(name)
        self._ends[name] = threading.Event()
        self._tasks[name] = asyncio.create_task(self._run(found))
        return found

    async def cancel(self, name: str) -> Pull:
        """End a pull; what came so far stays for the next one. Refuses (404)."""
        if name not in self._tasks:
            raise Refused(404, f"{name!r} is not being fetched", param="name", cause=Cause("pull-over", name=name))
        self._ends[name].set()
        await asyncio.wait({self._tasks[name]})
        return self.all[name]

    async def remove(self, name: str) -> int:
        """Delete a model of the library; gives the bytes that became free. Refuses (404, 409)."""
        served = self._shelf.models.get(name)
        if name in self._tasks or (served is not None and served.n_users):
            raise Refused(409, f"{name!r} is in use", "wait until it is not", cause=Cause("model-in-use", name=name))
        if served is not None:
            await self._shelf.unload(served)
        try:
            removed = await asyncio.to_thread(remove, name)
        except TenthError as error:
            raise Refused(404, f"there is no model {name!r} in the library",
                          cause=Cause("model-missing", name=name)) from error
        self.all.pop(name, None)
        self._shelf.refresh()
        self.tell_all("library", {})
        return removed.size_bytes

    async def _run(self, found: Pull) -> None:
        told_s, loop = 0.0, asyncio.get_running_loop()

        def note(what: str, done: int, total: int) -> None:
            nonlocal told_s
            if self._ends[found.name].is_set():
                raise _Cancelled
            found.what, found.done_bytes, found.total_bytes = what, done, total
            if time.monotonic() - told_s > TELL_S:
                told_s = time.monotonic()
                loop.call_soon_threadsafe(self._tell, found)

        try:
            self._tell(found)
            await asyncio.to_thread(pull, found.name, progress=note)
            found.state = "done"
        except _Cancelled:
            found.state = "cancelled"
        except TenthError as error:  # its message may name files of this machine, which whoever pulls may know
            found.state, found.error = "failed", error.message
            found.cause = error.cause.as_data() if error.cause else None
            log.error("cannot pull %s: %s", found.name, error.message)
        except Exception:
            found.state, found.error, found.cause = "failed", "the server's log says why", Cause("fault").as_data()
            log.exception("cannot pull %s", found.name)
        finally:
            del self._tasks[found.name]
            self._shelf.refresh()
            self._tell(found)
            self.tell_all("library", {})

    def _tell(self, found: Pull) -> None:
        self.tell_all("pull", asdict(found))

    def tell_all(self, name: str, value: dict[str, object]) -> None:
        """Tell every page that is open."""
        for owner in self._hub.owners:
            self._hub.tell(owner, name, value)

    async def close(self) -> None:
        """End every pull."""
        for end in self._ends.values():
            end.set()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
