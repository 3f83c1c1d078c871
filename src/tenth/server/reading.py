"""Texts that are read and not answered: a request waits for its turn at its model's gate, then all its results come.

So many requests of a model are at work together as may generate together; each has a few of its texts with the engine
at a time (tenth.gathering), so that one who sends thousands delays nobody for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from pydantic_core import to_json
from starlette.responses import Response

from tenth.batch import F32
from tenth.gathering import Gathering
from tenth.model import Model
from tenth.server.admission import Need
from tenth.server.failures import Refused
from tenth.server.service import SHUTTING_DOWN, Service
from tenth.server.streams import unless_gone

MOST_TEXTS = 2048  # of one request, as OpenAI has it
ONE_REQUEST = Need(1, 0)

Prepare = Callable[[Model], list[list[int]]]


@dataclass(frozen=True)
class Read:
    """What was read: the model's name, its results [n, width], tokens of each text, and how long all of it took."""

    name: str
    rows: F32
    n_tokens: list[int]
    load_s: float
    seconds: float

    @property
    def total_tokens(self) -> int:
        """Of all texts."""
        return sum(self.n_tokens)


async def answer(
    request: Request, service: Service, name: str, prepare: Prepare, tell: Callable[[Read], dict[str, object]]
) -> Response:
    """A response made of what a model reads; given up when the client goes. ``prepare``: the texts as tokens."""
    async def work() -> bytes:
        found = await read(service, name, prepare, request.state.owner)
        return await asyncio.to_thread(lambda: to_json(tell(found)))

    return Response(await unless_gone(request, work()), media_type="application/json")


async def read(service: Service, name: str, prepare: Prepare, owner: str) -> Read:
    """Have a model read texts, when it is this owner's turn. Raises what is wrong with them, or what failed."""
    if service.is_closing:
        raise Refused(503, SHUTTING_DOWN, retry_after_s=5)
    async with service.shelf.borrow(name) as borrowed:
        started_s = time.monotonic()
        prompts = await asyncio.to_thread(prepare, borrowed.model)
        ticket = borrowed.gate.enter(owner, ONE_REQUEST)
        try:
            async with borrowed.gate.turn(ticket):
                rows = await _rows(service, borrowed.model, prompts)
        finally:
            borrowed.gate.leave(ticket)
        service.metrics.read(borrowed.name, sum(map(len, prompts)), len(prompts))
        load_s = borrowed.model.load_costs()["seconds"]
        return Read(borrowed.name, rows, [len(prompt) for prompt in prompts], load_s, time.monotonic() - started_s)


async def _rows(service: Service, model: Model, prompts: list[list[int]]) -> F32:
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(done.set)

    gathering: Gathering = model.begin(prompts, wake)
    service.readings.add(gathering)
    try:
        await done.wait()
    finally:
        gathering.cancel()
        service.readings.discard(gathering)
    if gathering.was_given_up:
        raise Refused(503, SHUTTING_DOWN if service.is_closing else "the model was closed", retry_after_s=5)
    return gathering.rows()
