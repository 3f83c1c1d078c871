"""An answer while it is made: the streams of its choices, as deltas and ends in the order in which they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby

from tenth.engine.request import FinishReason
from tenth.stream import CallPart, Kind, Stream, Timings, TokenLogprob, ToolCall, Usage


@dataclass(frozen=True)
class Delta:
    """New text of one choice, of one kind, and the sampled tokens that became known with it.

    The text of a ``call`` is a part of its arguments; see tenth.stream.Piece.
    """

    index: int
    kind: Kind
    text: str
    logprobs: list[TokenLogprob] = field(default_factory=list)
    call: CallPart | None = None


@dataclass(frozen=True)
class End:
    """A choice is complete. ``logprobs``: tokens that no delta has told of."""

    index: int
    reason: FinishReason
    usage: Usage
    timings: Timings
    logprobs: list[TokenLogprob]
    stop_string: str | None = None  # which of the request's ended it


Event = Delta | End


def reason_of(end: End, has_calls: bool) -> str:
    """Why a choice ended, as OpenAI's API says it."""
    return "tool_calls" if has_calls and end.reason == "stop" else end.reason


@dataclass
class Choice:
    """One whole answer."""

    text: str = ""
    thinking: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    end: End | None = None

    def add(self, event: Event) -> None:
        """Take in an event of this choice."""
        self.logprobs += event.logprobs
        if isinstance(event, End):
            self.end = event
        elif event.call is not None:
            if event.call.name is not None:
                self.calls.append(ToolCall(event.call.id, event.call.name, ""))
            self.calls[-1] = replace(self.calls[-1], arguments=self.calls[-1].arguments + event.text)
        elif event.kind == "thinking":
            self.thinking += event.text
        else:
            self.text += event.text


async def events_of(stream: Stream, index: int) -> AsyncIterator[Event]:
    """Deltas of a stream, all that is ready in one, then its end. Raises what failed. Leaving early cancels it."""
    n_told = 0
    try:
        while pieces := await stream.ready():
            logprobs = stream.logprobs_from(n_told)
            n_told += len(logprobs)
            for (kind, call), group in groupby(pieces, lambda piece: (piece.kind, piece.call)):
                yield Delta(index, kind, "".join(group), [token for token in logprobs if token.kind == kind], call)
                logprobs = [token for token in logprobs if token.kind != kind]
        yield End(index, stream.finish_reason, stream.usage, stream.timings, stream.logprobs_from(n_told),
                  stream.stop_string)
    finally:
        stream.cancel()


async def merged(starts: list[Callable[[], Stream]]) -> AsyncIterator[Event]:
    """Events of several streams as they come. The first one begins alone, so that the others find its prompt known."""
    first = starts[0]()
    queue: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
    async with _tasks() as tasks:
        tasks.append(asyncio.create_task(_feed(queue, first, 0)))
        rest = starts[1:]
        n_open = len(starts)
        while n_open:
            event = await queue.get()
            if rest:
                streams = [start() for start in rest]
                tasks += [asyncio.create_task(_feed(queue, stream, i)) for i, stream in enumerate(streams, 1)]
                rest = []
            if event is None:
                n_open -= 1
            elif isinstance(event, Exception):
                raise event
            else:
                yield event


async def _feed(queue: asyncio.Queue[Event | Exception | None], stream: Stream, index: int) -> None:
    try:
        async for event in events_of(stream, index):
            queue.put_nowait(event)
        queue.put_nowait(None)
    except Exception as error:
        queue.put_nowait(error)


class _tasks:
    """A list of tasks that do not outlive the block."""

    async def __aenter__(self) -> list[asyncio.Task[None]]:
        self.tasks: list[asyncio.Task[None]] = []
        return self.tasks

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            with suppress(asyncio.CancelledError):
                await task
