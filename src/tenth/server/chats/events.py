"""What happens to an owner's things, told to every page that is open: GET /api/events.

Each owner has a ring of the last events. They carry ids, so that who lost the connection gets what it missed; who
missed more than is kept gets ``reset`` and reads everything again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tenth.server.streams import Wire, event

MOST_EVENTS, MOST_BYTES = 4096, 2 << 20  # kept of one owner
ASKED_S = 3.0  # between looks at whether a reader is still let in
KEPT_S = 300.0  # how long an owner's ring is kept without a reader


async def _always() -> bool:
    return True


@dataclass(eq=False)
class Ring:
    """The last events of an owner; ``first`` is the number of the oldest."""

    blocks: deque[bytes] = field(default_factory=deque)
    first: int = 1
    n_bytes: int = 0
    n_readers: int = 0
    left_s: float = field(default_factory=time.monotonic)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def end(self) -> int:
        """The number that the next event gets."""
        return self.first + len(self.blocks)

    def add(self, block: bytes) -> None:
        """An event, with its id before it."""
        self.blocks.append(block)
        self.n_bytes += len(block)
        while len(self.blocks) > MOST_EVENTS or self.n_bytes > MOST_BYTES:
            self.n_bytes -= len(self.blocks.popleft())
            self.first += 1
        self.changed.set()
        self.changed = asyncio.Event()


class Hub:
    """All rings. Everything here runs on the event loop's thread."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(4)  # of this run of the server: numbers of another mean nothing
        self._rings: dict[str, Ring] = {}
        self._is_closed = False

    def tell(self, owner: str, name: str, value: Any) -> None:
        """Something happened. Nobody is told who was not there lately."""
        ring = self._rings.get(owner)
        if ring is not None:
            ring.add(f"id: {self.id}:{ring.end}\n".encode() + event(value, name))

    def has_reader(self, owner: str) -> bool:
        """Whether somebody listens."""
        ring = self._rings.get(owner)
        return ring is not None and ring.n_readers > 0

    @property
    def owners(self) -> list[str]:
        """Owners of whom somebody listens."""
        return [owner for owner, ring in self._rings.items() if ring.n_readers]

    def open(self, owner: str, last: str | None, may: Callable[[], Awaitable[bool]] = _always) -> Wire:
        """The events behind the one of this id, as they come. The first is ``hello``, or ``reset`` if some are gone.

        ``may``: whether whoever reads is still let in; asked now and then, and the end once it is not so.
        """
        self._forget_old()
        ring = self._rings.setdefault(owner, Ring())
        name, _, number = (last or "").rpartition(":")
        is_known = name == self.id and number.isdecimal() and ring.first - 1 <= int(number) < ring.end
        first = int(number) + 1 if is_known else ring.end
        return self._read(ring, first, "hello" if is_known or last is None else "reset", may)

    async def _read(self, ring: Ring, at: int, greeting: str, may: Callable[[], Awaitable[bool]]) -> Wire:
        ring.n_readers += 1
        asked_s = time.monotonic()
        try:
            yield self._greeting(greeting, at)
            while not self._is_closed:
                if time.monotonic() - asked_s >= ASKED_S:
                    if not await may():
                        return
                    asked_s = time.monotonic()
                if at < ring.first:  # this reader is too slow
                    at = ring.end
                    yield self._greeting("reset", at)
                while ring.first <= at < ring.end:
                    block = ring.blocks[at - ring.first]
                    at += 1
                    yield block
                if at == ring.end:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(ring.changed.wait(), ASKED_S)
        finally:
            ring.n_readers -= 1
            ring.left_s = time.monotonic()

    def _greeting(self, name: str, at: int) -> bytes:
        return f"id: {self.id}:{at - 1}\n".encode() + event({}, name)

    def _forget_old(self) -> None:
        for owner, ring in list(self._rings.items()):
            if not ring.n_readers and time.monotonic() - ring.left_s > KEPT_S:
                del self._rings[owner]

    def close(self) -> None:
        """End every reader's stream."""
        self._is_closed = True
        for ring in self._rings.values():
            ring.changed.set()
