"""Answers over HTTP: whole or as a stream, cancelled when the client goes, or kept so that it can come back.

A resumable stream (the request's header ``X-Tenth-Resumable: 1``) goes on without its reader for a while. Its events
carry ids; GET /v1/streams/ID with the header Last-Event-ID gives those that follow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tenth.server.failures import Failure, Refused, failure_of
from tenth.server.service import Answer

T = TypeVar("T")
Wire = AsyncGenerator[bytes, None]  # what goes over the line, in blocks

KEEP_ALIVE_S = 15.0
KEPT_S = 60.0  # how long a resumable stream goes on, or is remembered, without a reader
MOST_KEPT_BYTES = 16 << 20  # of one stream
MOST_KEPT = 64
MOST_OF_ONE = 32  # of these, so that nobody keeps others out
EVENTS, LINES = "text/event-stream", "application/x-ndjson"


def dumps(value: Any) -> str:
    """JSON as it goes over the line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def event(value: Any, name: str | None = None) -> bytes:
    """A server-sent event. There is one for each token of each answer: pydantic's JSON takes a fifth of json's time."""
    head = b"event: %b\n" % name.encode() if name else b""
    return b"%bdata: %b\n\n" % (head, value.encode() if isinstance(value, str) else to_json(value, inf_nan_mode="null"))


async def whole(request: Request, answer: Answer, then: Callable[[Answer], Awaitable[T]]) -> T:
    """What ``then`` makes of an answer; the answer is cancelled when the client goes."""
    async def work() -> T:
        try:
            return await then(answer)
        finally:
            await answer.close()

    return await unless_gone(request, work())


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is cancelled when the client goes. Raises Refused (499) then."""
    doing, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Refused(499, "the client went away")
        return doing.result()
    finally:
        for task in (gone, doing):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class StreamResponse(Response):
    """A wire as an HTTP response. ``fail``: the last block, for a failure after the first one; ``done``: clean up."""

    def __init__(self, wire: Wire, fail: Callable[[Failure], bytes], done: Callable[[], Awaitable[None]],
                 media_type: str = EVENTS) -> None:
        super().__init__(media_type=media_type, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        self._wire, self._fail, self._done = wire, fail, done
        self._sent_s = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        tasks = [asyncio.ensure_future(work) for work in (self._send(send), _gone(receive), self._keep_alive(send))]
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._wire.aclose()
            await self._done()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for block in self._wire:
                await send({"type": "http.response.body", "body": block, "more_body": True})
                self._sent_s = time.monotonic()
        except Exception as error:
            await send({"type": "http.response.body", "body": self._fail(failure_of(error)), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_alive(self, send: Send) -> None:
        """Comments while nothing else comes, so that nobody on the way gives up on a long prompt."""
        while self.media_type == EVENTS:
            await asyncio.sleep(KEEP_ALIVE_S / 3)
            if time.monotonic() - self._sent_s > KEEP_ALIVE_S:
                await send({"type": "http.response.body", "body": b": waiting\n\n", "more_body": True})
                self._sent_s = time.monotonic()


@dataclass(eq=False)
class Kept:
    """A resumable stream: its blocks so far, and the task that goes on making them."""

    id: str
    owner: str
    blocks: list[bytes] = field(default_factory=list)
    n_bytes: int = 0
    has_ended: bool = False
    n_readers: int = 0
    left_s: float = field(default_factory=time.monotonic)  # when the last reader went
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def add(self, block: bytes) -> None:
        """A block, with its id."""
        self.blocks.append(f"id: {self.id}:{len(self.blocks)}\n".encode() + block)
        self.n_bytes += len(block)
        self._tell()

    def end(self) -> None:
        """Nothing more comes."""
        self.has_ended = True
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def read(self, first: int) -> Wire:
        """The blocks from this number on, as they come."""
        self.n_readers += 1
        try:
            while True:
                while first < len(self.blocks):
                    yield self.blocks[first]
                    first += 1
                if self.has_ended:
                    return
                await self.changed.wait()
        finally:
            self.n_readers -= 1
            self.left_s = time.monotonic()


class Resumables:
    """Streams that outlive their connections, for a while."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}

    def keep(self, owner: str, wire: Wire, fail: Callable[[Failure], bytes],
             done: Callable[[], Awaitable[None]]) -> Kept:
        """Go on with a wire whatever becomes of the connection."""
        self.forget_old()
        mine = sum(kept.owner == owner for kept in self._kept.values())
        if len(self._kept) >= MOST_KEPT or mine >= MOST_OF_ONE:
            raise Refused(429, f"{len(self._kept)} resumable streams are kept already, {mine} of them yours",
                          retry_after_s=int(KEPT_S))
        kept = Kept("stream_" + secrets.token_hex(12), owner)
        self._kept[kept.id] = kept
        kept.task = asyncio.create_task(_pump(kept, wire, fail, done))
        return kept

    def resume(self, owner: str, id: str, last: str | None) -> Wire:
        """What follows the event of id ``last`` (None: everything). Refuses (404) what is not there, or not theirs."""
        self.forget_old()
        kept = self._kept.get(id)
        if kept is None or kept.owner != owner:
            raise Refused(404, f"there is no stream {id!r}", "it may have ended more than a minute ago")
        if last is None:
            return kept.read(0)
        name, _, number = last.rpartition(":")
        if name != id or not number.isdecimal() or int(number) >= len(kept.blocks):
            raise Refused(400, f"Last-Event-ID is {last!r}, which is no event of this stream")
        return kept.read(int(number) + 1)

    def forget_old(self) -> None:
        """Drop streams that nobody has read for a while; those still at work are cancelled."""
        for id, kept in list(self._kept.items()):
            is_old = not kept.n_readers and time.monotonic() - kept.left_s > KEPT_S
            if is_old or kept.n_bytes > MOST_KEPT_BYTES:
                if kept.task is not None:
                    kept.task.cancel()
                del self._kept[id]

    async def watch(self) -> None:
        """Forget what is old, for ever."""
        while True:
            await asyncio.sleep(KEPT_S / 4)
            self.forget_old()

    async def close(self) -> None:
        """Cancel everything."""
        tasks = [kept.task for kept in self._kept.values() if kept.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(kept: Kept, wire: Wire, fail: Callable[[Failure], bytes], done: Callable[[], Awaitable[None]]) -> None:
    try:
        async for block in wire:
            kept.add(block)
            if kept.n_bytes > MOST_KEPT_BYTES:
                raise Refused(400, "the stream became too long to be kept")
    except Exception as error:
        kept.add(fail(failure_of(error)))
    finally:
        kept.end()
        await wire.aclose()
        await done()


async def nothing() -> None:
    """No cleaning up."""


async def stream(request: Request, answer: Answer, wire: Wire, fail: Callable[[Failure], bytes],
                 media_type: str = EVENTS) -> StreamResponse:
    """The response that streams an answer, resumable when the request's header asks for it."""
    wanted = request.headers.get("x-tenth-resumable", "0")
    if wanted == "0":
        response = StreamResponse(wire, fail, answer.close, media_type)
        response.headers["x-tenth-answer"] = answer.id
        return response
    try:
        if wanted != "1" or media_type != EVENTS:
            raise Refused(400, "X-Tenth-Resumable is 0 or 1, and only for streams of events")
        resumables: Resumables = request.app.state.resumables
        kept = resumables.keep(request.state.owner, wire, fail, answer.close)
    except Refused:
        await answer.close()
        raise
    response = StreamResponse(kept.read(0), fail, nothing)
    response.headers["x-tenth-answer"], response.headers["x-tenth-stream"] = answer.id, kept.id
    return response
