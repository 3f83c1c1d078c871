"""Clients of a server, as little work each as can be: they share the machine with what they measure.

One asyncio thread, plain sockets, POST /v1/completions with token ids, streamed. Times are those at which the first and
the last text came in; what came is read when all of it is there.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenth.errors import ResourceError

PATIENCE_S = 600


@dataclass(frozen=True)
class Ask:
    """One request: token ids in, so many tokens out."""

    prompt: Sequence[int]
    max_tokens: int

    def body(self, model: str) -> dict[str, Any]:
        """As tenth, llama.cpp's server and ik_llama.cpp's take it."""
        return {"model": model, "prompt": list(self.prompt), "max_tokens": self.max_tokens, "stream": True,
                "ignore_eos": True, "temperature": 0.0}


@dataclass
class Timed:
    """When things happened, in seconds of time.perf_counter."""

    asked_s: float
    came_s: list[float] = field(default_factory=list)  # of every event with text

    @property
    def first_s(self) -> float:
        """From the request to its first text."""
        return self.came_s[0] - self.asked_s

    @property
    def last_s(self) -> float:
        """From the request to its last text."""
        return self.came_s[-1] - self.asked_s


class _Arrivals(asyncio.Protocol):
    """Notes when bytes come, and looks at none before the end: they come while the server computes what follows."""

    def __init__(self) -> None:
        self.parts: list[tuple[float, bytes]] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.parts.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def lines(self) -> Iterator[tuple[float, bytes]]:
        """Every whole line, and when its end came."""
        rest = b""
        for came_s, data in self.parts:
            *whole, rest = (rest + data).split(b"\n")
            yield from ((came_s, line) for line in whole)


async def ask(port: int, model: str, wanted: Ask) -> Timed:
    """One request to its end. Raises ResourceError when it was not answered."""
    return _timed(*await _exchange(port, model, wanted))


async def _exchange(port: int, model: str, wanted: Ask) -> tuple[float, _Arrivals]:
    """When a request was sent, and all that came."""
    data = json.dumps(wanted.body(model)).encode()
    head = (f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
            f"connection: close\r\ncontent-length: {len(data)}\r\n\r\n").encode()
    transport, arrivals = await asyncio.get_running_loop().create_connection(_Arrivals, "127.0.0.1", port)
    asked_s = time.perf_counter()
    transport.write(head + data)
    try:
        await arrivals.over
    finally:
        transport.abort()
    return asked_s, arrivals


def _timed(asked_s: float, arrivals: _Arrivals) -> Timed:
    lines = list(arrivals.lines())
    if not lines or b" 200 " not in lines[0][1]:
        raise ResourceError(f"the server answered {b''.join(part for _, part in arrivals.parts)[:1000].decode()}")
    timed = Timed(asked_s)
    timed.came_s += [came_s for came_s, line in lines if line.startswith(b"data: {") and _has_text(line[6:])]
    if not timed.came_s:
        raise ResourceError("the server answered nothing")
    return timed


def _has_text(data: bytes) -> bool:
    value = json.loads(data)
    if "error" in value:
        raise ResourceError(f"the server failed: {value['error']}")
    return any(choice.get("text") for choice in value.get("choices", ())) or bool(value.get("content"))


async def clients(port: int, model: str, asks: Sequence[Sequence[Ask]]) -> list[Timed]:
    """What several clients see, each of which makes its requests one after the other."""
    async def one(mine: Sequence[Ask]) -> list[tuple[float, _Arrivals]]:
        return [await _exchange(port, model, wanted) for wanted in mine]

    async with asyncio.timeout(PATIENCE_S):
        found = await asyncio.gather(*map(one, asks))
    return [_timed(*exchange) for mine in found for exchange in mine]


async def gone(port: int, model: str, wanted: Ask, after_s: float) -> float:
    """Seconds from closing the connection of a request, so long after it was sent, until nothing is at work."""
    leaver = asyncio.create_task(ask(port, model, wanted))
    await asyncio.sleep(after_s)
    if leaver.done():
        raise ResourceError("the request was answered before it could be left")
    leaver.cancel()
    start_s = time.perf_counter()
    await asyncio.wait({leaver})
    async with asyncio.timeout(PATIENCE_S):
        while await _is_busy(port):
            await asyncio.sleep(0.002)
    return time.perf_counter() - start_s


async def _is_busy(port: int) -> bool:
    """Whether tenth's server has sequences in its KV cache, or requests at work."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    lines = [line for line in text.splitlines() if line.startswith("tenth_requests_at_work{") or (
        line.startswith("tenth_kv_pages{") and 'state="used"' in line)]
    return any(float(line.rpartition(" ")[2]) for line in lines)


async def newcomer(port: int, model: str, long: Ask, short: Ask, after_s: float) -> tuple[Timed, Timed]:
    """A long prompt, and a short one that comes while it is computed: (long, short)."""
    async with asyncio.timeout(PATIENCE_S):
        first = asyncio.create_task(ask(port, model, long))
        try:
            await asyncio.sleep(after_s)
            second = await ask(port, model, short)
            return await first, second
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
