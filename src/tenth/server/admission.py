"""Who may start, and who is next: a bounded queue in front of one model, fair between its callers.

A request takes places (one per choice) and tokens of the KV cache: its prompt and what it will probably write. What
does not fit waits; callers take turns, however much one of them has queued. When too much waits, a request is refused
at once, with the time after which to come again. All of it runs on the event loop's thread; nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tenth.errors import Cause
from tenth.server.failures import Refused

EXPECTED_TOKENS = 256  # of an answer whose bound is greater: who writes more may be preempted, which keeps the text
LONGEST_RETRY_S = 60
FIRST_GUESS_S = 2.0  # how long a request takes, before one was measured


@dataclass(frozen=True)
class Room:
    """What a model has: sequences at a time, tokens in its KV cache; and how many requests may wait."""

    places: int
    tokens: int
    waiting: int


@dataclass(frozen=True)
class Need:
    """What a request takes."""

    places: int
    tokens: int


@dataclass(eq=False)
class Ticket:
    """A request in the queue or at work. ``admitted`` is set when it may start."""

    owner: str
    need: Need
    admitted: asyncio.Event = field(default_factory=asyncio.Event)


class Gate:
    """The queue in front of one model."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.is_closed = False
        self._waiting: OrderedDict[str, deque[Ticket]] = OrderedDict()  # of each owner; whose turn is next comes first
        self._at_work: set[Ticket] = set()
        self._usual_s = FIRST_GUESS_S

    @property
    def n_waiting(self) -> int:
        """Requests that wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def n_at_work(self) -> int:
        """Requests that were let in and have not left."""
        return len(self._at_work)

    def enter(self, owner: str, need: Need) -> Ticket:
        """Queue a request, which may start at once. Raises Refused (429, 503) when it cannot be queued."""
        if self.is_closed:
            raise Refused(503, "the server is shutting down", retry_after_s=5, cause=Cause("closing"))
        others = [name for name in self._waiting if name != owner]
        mine = len(self._waiting.get(owner, ()))
        full = self.n_waiting >= self.room.waiting and not (others and mine == 0)
        if full or (others and mine >= max(1, self.room.waiting // 2)):  # nobody keeps others out of the queue
            raise Refused(429, f"{self.n_waiting} requests are waiting already", "come again later",
                          retry_after_s=self._retry_after_s(), cause=Cause("waiting-many", n=self.n_waiting))
        ticket = Ticket(owner, need)
        self._waiting.setdefault(owner, deque()).append(ticket)
        self._admit()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """A request has ended, or gives up waiting. May be called twice."""
        self._at_work.discard(ticket)
        queue = self._waiting.get(ticket.owner)
        if queue is not None and ticket in queue:
            queue.remove(ticket)
            if not queue:
                del self._waiting[ticket.owner]
        self._admit()

    @asynccontextmanager
    async def turn(self, ticket: Ticket) -> AsyncIterator[None]:
        """Wait for a ticket's turn; the block is the work. Raises Refused when the gate is closed meanwhile."""
        try:
            await ticket.admitted.wait()
            if ticket not in self._at_work:
                raise Refused(503, "the server is shutting down", retry_after_s=5, cause=Cause("closing"))
            started_s = time.monotonic()
            yield
            self._usual_s += 0.2 * (time.monotonic() - started_s - self._usual_s)
        finally:
            self.leave(ticket)

    def close(self) -> None:
        """Let nobody in any more; those that wait are refused."""
        self.is_closed = True
        for queue in self._waiting.values():
            for ticket in queue:
                ticket.admitted.set()
        self._waiting.clear()

    def _admit(self) -> None:
        while self._waiting:
            owner, queue = next(iter(self._waiting.items()))
            ticket = queue[0]
            if not self._fits(ticket.need):
                return
            queue.popleft()
            del self._waiting[owner]
            if queue:
                self._waiting[owner] = queue  # at the end: the others come first now
            self._at_work.add(ticket)
            ticket.admitted.set()

    def _fits(self, need: Need) -> bool:
        places = sum(ticket.need.places for ticket in self._at_work)
        tokens = sum(ticket.need.tokens for ticket in self._at_work)
        return not self._at_work or (
            places + need.places <= self.room.places and tokens + need.tokens <= self.room.tokens)

    def _retry_after_s(self) -> int:
        rounds = self.n_waiting / max(1, self.room.places)
        return max(1, min(LONGEST_RETRY_S, round(self._usual_s * rounds)))
