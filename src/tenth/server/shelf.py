"""The models that are served: opened when first asked for, closed when idle or when another needs their memory."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tenth.errors import Cause, ResourceError, TenthError
from tenth.model import Model
from tenth.server.admission import Gate, Room
from tenth.server.failures import Refused

log = logging.getLogger("tenth.server")

WATCH_S = 1.0  # how often it is looked for models that nobody uses
Load = Callable[[str], Model]  # opens a model from what the command line called it; takes seconds


@dataclass
class Served:
    """One model: its name in requests, what to open, and the open model with its queue."""

    name: str
    source: str
    model: Model | None = None
    gate: Gate | None = None
    n_users: int = 0
    last_used_s: float = 0.0
    opened_at: float = 0.0  # seconds of the epoch
    keep_s: float | None = None  # how long it stays open unused, where the last request said so
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Borrowed:
    """An open model, for as long as somebody uses it."""

    name: str
    model: Model
    gate: Gate


class Shelf:
    """All models that requests may name. ``idle_s``: close what was not used for so long, unless asked; 0: never.

    ``stock``: names of models that are served too, as they are at the moment: those of the library.
    """

    def __init__(self, sources: Sequence[tuple[str, str]], load: Load, *, waiting: int, idle_s: float = 0.0,
                 stock: Callable[[], Sequence[str]] | None = None) -> None:
        self.models = {name: Served(name, source) for name, source in sources}
        self._stock = stock
        self._load, self._waiting, self._idle_s = load, waiting, idle_s
        self._loading = asyncio.Lock()  # one at a time: each is measured against what the others have taken
        self._is_closed = False
        self._refreshing = threading.Lock()

    def find(self, name: str) -> Served:
        """The model of this name. Refuses one that is not served (404)."""
        if name not in self.models:
            self.refresh()
        served = self.models.get(name)
        if served is None:
            names = ", ".join(self.models)
            raise Refused(404, f"there is no model {name!r} here", f"there are: {names}" if names else
                          "there is none yet: tenth pull fetches one", param="model",
                          cause=Cause("model-missing", name=name))
        return served

    def has(self, name: str | None) -> bool:
        """Whether a model of this name is served."""
        if name is not None and name not in self.models:
            self.refresh()
        return name in self.models

    @property
    def is_on_demand(self) -> bool:
        """Whether models of the library are served without having been named at the start."""
        return self._stock is not None

    def refresh(self) -> None:
        """Have the models that the library has now; one that is open stays."""
        if self._stock is None:
            return
        names = list(self._stock())
        with self._refreshing:  # it is called from threads too, while others go through the models
            models = {name: served for name, served in self.models.items()
                      if name in names or served.model is not None or served.n_users}
            for name in names:
                models.setdefault(name, Served(name, name))
            self.models = models

    def listed(self) -> list[Served]:
        """The models that requests may name now."""
        self.refresh()
        return list(self.models.values())

    def only(self, name: str | None) -> str:
        """The name given, or that of the only model there is."""
        if name is None and len(self.listed()) > 1:
            raise Refused(400, "the model has to be named", f"there are: {', '.join(self.models)}", param="model")
        return self.choose(None) if name is None else name

    def choose(self, name: str | None) -> str:
        """The name given, or that of the first model. Refuses one that is not served, or none at all."""
        if name is None and not self.models:
            self.refresh()
        if name is None and not self.models:
            raise Refused(409, "there is no model yet", "tenth pull fetches one", param="model",
                          cause=Cause("model-none"))
        return self.find(next(iter(self.models)) if name is None else name).name

    @asynccontextmanager
    async def borrow(self, name: str) -> AsyncIterator[Borrowed]:
        """The open model of this name, opened if need be; it stays open until the block ends."""
        served = self.find(name)
        with self._refreshing:  # a refresh in another thread may just have left it out
            served = self.models.get(name, served)
            self.models = {**self.models, name: served}
            served.n_users += 1
        try:
            async with served.lock:
                if served.model is None:
                    await self._open(served)
            assert served.model is not None, "a model was opened and is not there"
            assert served.gate is not None, "an open model has no queue"
            yield Borrowed(name, served.model, served.gate)
        finally:
            served.n_users -= 1
            served.last_used_s = time.monotonic()

    async def _open(self, served: Served) -> None:
        async with self._loading:
            while True:
                if self._is_closed:
                    raise Refused(503, "the server is shutting down", retry_after_s=5, cause=Cause("closing"))
                try:
                    model = await asyncio.to_thread(self._load, served.source)
                    break
                except ResourceError as error:
                    if not await self._make_room():
                        log.error("cannot load %s: %s", served.name, error.message)
                        raise Refused(503, f"there is not enough memory for the model {served.name!r} now",
                                      retry_after_s=30, cause=Cause("model-memory", name=served.name)) from error
                except TenthError as error:  # its message names files
                    log.error("cannot load %s: %s", served.name, error.message)
                    raise Refused(503, f"the model {served.name!r} cannot be loaded", "the server's log says why",
                                      cause=Cause("model-broken", name=served.name),
                                  ) from error
        self.put(served.name, model)

    def put(self, name: str, model: Model) -> None:
        """Have an open model under its name."""
        served = self.models[name]
        served.model, served.opened_at, served.last_used_s = model, time.time(), time.monotonic()
        served.gate = Gate(Room(model.config.max_sequences, model.kv_tokens, self._waiting))
        log.info("loaded", extra={"fields": {"model": name}})
        for note in getattr(model, "notes", ()):
            log.warning("note: %s", note, extra={"fields": {"model": name}})

    async def _make_room(self) -> bool:
        """Close the model that nobody has used for longest. False: all are in use."""
        idle = [served for served in self.models.values() if served.model is not None and not served.n_users]
        if not idle:
            return False
        await self.unload(min(idle, key=lambda served: served.last_used_s))
        return True

    async def unload(self, served: Served) -> None:
        """Close a model that nobody uses; the next request opens it again."""
        model, served.model, served.gate = served.model, None, None
        if model is not None:
            await asyncio.to_thread(model.close)
            log.info("unloaded", extra={"fields": {"model": served.name}})

    async def watch(self) -> None:
        """Close models that were idle for too long, for ever."""
        while True:
            await asyncio.sleep(min(self._idle_s / 4 or WATCH_S, WATCH_S))
            for served in list(self.models.values()):
                most_s = (self._idle_s or math.inf) if served.keep_s is None else served.keep_s
                is_idle = served.model is not None and not served.n_users
                if is_idle and time.monotonic() - served.last_used_s >= most_s:
                    await self.unload(served)

    def close_gates(self) -> None:
        """Let no request start any more."""
        self._is_closed = True
        for served in self.models.values():
            if served.gate is not None:
                served.gate.close()

    async def close(self) -> None:
        """Close every model."""
        self.close_gates()
        for served in self.models.values():
            await self.unload(served)
