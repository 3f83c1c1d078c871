"""An Ask becomes an Answer: the model is found, the prompt checked and queued, its streams started and watched."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial

from starlette.requests import Request

from tenth.errors import Cause
from tenth.gathering import Gathering
from tenth.model import Model
from tenth.preparing import Prepared
from tenth.server import logs
from tenth.server.admission import EXPECTED_TOKENS, Need, Ticket
from tenth.server.answers import Choice, Delta, End, Event, events_of, merged
from tenth.server.asking import MAX_CHOICES, Ask
from tenth.server.failures import Refused
from tenth.server.metrics import Metrics
from tenth.server.shelf import Borrowed, Shelf
from tenth.stream import Stream
from tenth.text.grammar import response_grammar

SHUTTING_DOWN = "the server is shutting down"


class Service:
    """What the routes call."""

    def __init__(self, shelf: Shelf, metrics: Metrics, *, log_text: bool = False) -> None:
        self.shelf, self.metrics, self.log_text = shelf, metrics, log_text
        self.answers: set[Answer] = set()  # that were accepted and have not ended
        self.readings: set[Gathering] = set()  # texts that are read, not answered
        self.is_closing = False

    async def ask(self, *asks: Ask, owner: str, id: str | None = None) -> Answer:
        """Accept requests that are answered together, or raise what is wrong with them. Close the answer in the end.

        The asks name the same model; the choices of the first are numbered first. ``id``: what the client is told.
        """
        if self.is_closing:
            raise Refused(503, SHUTTING_DOWN, retry_after_s=5, cause=Cause("closing"))
        n_choices = sum(ask.n for ask in asks)
        if not 1 <= n_choices <= MAX_CHOICES:
            raise Refused(400, f"{n_choices} answers were asked for, expected 1 to {MAX_CHOICES}", param="n")
        async with AsyncExitStack() as stack:
            borrowed = await stack.enter_async_context(self.shelf.borrow(asks[0].model))
            prepared = await asyncio.to_thread(lambda: [prepare(borrowed.model, ask) for ask in asks])
            need = Need(n_choices, sum(_tokens(p) + (ask.n - 1) * EXPECTED_TOKENS
                                       for p, ask in zip(prepared, asks, strict=True)))
            ticket = borrowed.gate.enter(owner, need)
            stack.callback(borrowed.gate.leave, ticket)
            answer = Answer(self, id or new_id("answer_"), borrowed, ticket)
            for one, ask in zip(prepared, asks, strict=True):
                answer.add(one, ask.n)
                if self.log_text:
                    logs.asked(answer.id, owner, one.asked.prompt if one.asked else ask.prompt)
            self.answers.add(answer)
            stack.callback(self.answers.discard, answer)
            answer.stack = stack.pop_all()
        return answer

    def find(self, id: str, owner: str) -> Answer:
        """The answer at work whose client was told this id. Refuses (404) what is not there, or not theirs."""
        found = next((answer for answer in self.answers if answer.id == id and answer.owner == owner), None)
        if found is None:
            raise Refused(404, f"no answer {id!r} is at work", "it may have ended already", param="id")
        return found

    def abort(self, owner: str) -> None:
        """End what is at work for somebody, batches included, with an error to whoever reads it."""
        for answer in list(self.answers):
            if answer.owner.partition(" ")[0] == owner:  # a batch's is "OWNER BATCH"
                answer.abort("the account is gone")

    async def shut_down(self, grace_s: float) -> None:
        """Refuse what comes and what waits, let what runs finish within the grace, end the rest with an error."""
        self.is_closing = True
        self.shelf.close_gates()
        deadline = time.monotonic() + grace_s
        while (self.answers or self.readings) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for answer in list(self.answers):
            answer.abort(SHUTTING_DOWN)
        for reading in list(self.readings):
            reading.cancel()


def new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return prefix + secrets.token_hex(12)


def prepare(model: Model, ask: Ask) -> Prepared:
    """The checked tokens of an ask. Raises RequestError."""
    has = model.loaded.runtime.context_tokens
    if ask.context is not None and ask.context > has:
        raise Refused(400, f"a context (num_ctx) of {ask.context} tokens is asked for, the model was opened with {has}",
                      "--context is a setting of tenth serve", param="num_ctx")
    if ask.messages is not None:
        return model.prepare_chat(
            ask.messages, think=ask.thinking.wanted, thinking_budget=ask.thinking.budget,
            reasoning_effort=ask.thinking.effort, response_format=ask.response_format, begun=ask.begun,
            **ask.tools, **ask.settings)
    assert ask.prompt is not None, "an ask has neither messages nor a prompt"
    return model.prepare(ask.prompt, grammar=response_grammar(ask.response_format), **ask.settings)


def _tokens(prepared: Prepared) -> int:
    most = prepared.params.max_tokens
    return len(prepared.ids) + (EXPECTED_TOKENS if most is None else min(most, EXPECTED_TOKENS))


class Answer:
    """An accepted request. Read it with ``events`` or ``whole``, once; ``close`` ends it in whatever phase it is."""

    def __init__(self, service: Service, id: str, borrowed: Borrowed, ticket: Ticket) -> None:
        self.id, self.owner, self.name, self.model = id, ticket.owner, borrowed.name, borrowed.model
        self.prompts: list[list[int]] = []  # token ids, of each choice
        self.n_prompt_tokens = 0  # of each ask once, however many choices it has
        self.created = int(time.time())
        self.stack = AsyncExitStack()
        self._service, self._gate, self._ticket = service, borrowed.gate, ticket
        self._starts: list[Callable[[], Stream]] = []
        self._streams: list[Stream] = []
        self._asked_s = time.monotonic()
        self._aborted: str | None = None  # why, if it was
        self._is_stopped = self._thinks_enough = False

    def add(self, prepared: Prepared, n: int) -> None:
        """Have n choices for this prompt, of which the first has the seed that was asked for."""
        seed = prepared.params.seed or 0
        self.n_prompt_tokens += len(prepared.ids)
        self.prompts += [prepared.ids] * n
        self._starts += [partial(self._start, prepared, (seed + i) % (1 << 64)) for i in range(n)]

    def _start(self, prepared: Prepared, seed: int) -> Stream:
        stream = self.model.start(prepared, seed=seed)
        self._streams.append(stream)
        if self._thinks_enough:
            stream.end_thinking()
        return stream

    async def admitted(self) -> None:
        """Wait for its turn."""
        await self._ticket.admitted.wait()

    @property
    def is_queued(self) -> bool:
        """Whether it waits for its turn."""
        return not self._ticket.admitted.is_set()

    async def events(self) -> AsyncGenerator[Event, None]:
        """Deltas and ends of all choices. Raises what failed."""
        watch = self._service.metrics.watch(self.name, self._asked_s)
        try:
            async with self._gate.turn(self._ticket):
                if self._aborted:
                    raise Refused(503, self._aborted, retry_after_s=5, cause=Cause("closing"))
                streams = events_of(self._starts[0](), 0) if len(self._starts) == 1 else merged(self._starts)
                if self._service.log_text:
                    streams = self._logged(streams)
                async for event in streams:
                    if isinstance(event, Delta):
                        watch.delta(event.index, len(event.logprobs))
                    elif event.reason == "cancelled" and not self._is_stopped:
                        raise Refused(503, self._aborted or "the model was closed", retry_after_s=5,
                                      cause=Cause("closing") if self._aborted else Cause("model-closed"))
                    else:
                        watch.end(event)
                    yield event
        finally:
            for stream in self._streams:
                stream.cancel()
            watch.done()

    async def _logged(self, events: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
        """The same events, with what each choice says in the log when it ends, or is left."""
        choices = [Choice() for _ in self._starts]
        try:
            async for event in events:
                choices[event.index].add(event)
                yield event
        finally:
            for index, choice in enumerate(choices):
                logs.answered(self.id, index, choice)

    async def whole(self) -> list[Choice]:
        """Every choice when all are complete."""
        choices = [Choice() for _ in self._starts]
        async for event in self.events():
            choices[event.index].add(event)
        return choices

    def end_thinking(self) -> bool:
        """Have every choice end its thinking and go on to its answer. False: none thinks, or will."""
        self._thinks_enough = True
        ended = [stream.end_thinking() for stream in self._streams]
        return any(ended) or len(ended) < len(self._starts)

    def abort(self, why: str) -> None:
        """End it with an error to whoever reads it."""
        self._aborted = why
        for stream in self._streams:
            stream.cancel()

    def expert_counts(self) -> list[list[int]] | None:
        """How many tokens of the first choice used each expert, by layer, once it has ended; None where unknown."""
        return self._streams[0].expert_counts if self._streams else None

    def stop(self) -> None:
        """End what is at work as it is: whoever reads it gets an end of reason "cancelled"."""
        self._is_stopped = True
        for stream in self._streams:
            stream.cancel()

    async def close(self) -> None:
        """Give back what it holds: its place in the queue, its streams, its model. May be called twice."""
        for stream in self._streams:
            stream.cancel()
        await self.stack.aclose()


def ends(choices: list[Choice]) -> list[End]:
    """The ends of complete choices."""
    return [choice.end for choice in choices if choice.end is not None]


def get_service(request: Request) -> Service:
    """The service of the app that a request came to."""
    service: Service = request.app.state.service
    return service
