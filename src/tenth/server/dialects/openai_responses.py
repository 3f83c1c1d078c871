"""OpenAI's responses: POST /v1/responses, whole, streamed or in the background; stored unless ``store`` is false.

``previous_response_id`` goes on from a stored response of the same owner. A background response is asked again when the
server was stopped before its end. The fields are in response_request.py, the answer's form in response_output.py. Field
names: the openai package's types, 3.57.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from tenth.errors import TenthError
from tenth.server import replies
from tenth.server.body import JsonRoute, wrong_field
from tenth.server.dialects.response_output import Maker, Output, error_event
from tenth.server.dialects.response_request import (
    CallItem,
    MessageItem,
    ReasoningItem,
    ResponseRequest,
    ResultItem,
    text_of,
)
from tenth.server.failures import Failure, Refused, failure_of
from tenth.server.pages import OrderedPaging
from tenth.server.responses import AT_WORK, Message, Responses, Stored
from tenth.server.service import Answer, Service, get_service, new_id
from tenth.server.state import RETRY_S, patiently
from tenth.server.streams import EVENTS, Wire, stream, whole

router = APIRouter(route_class=JsonRoute, tags=["OpenAI"])


class Turn:
    """One response from its request to its storage."""

    def __init__(self, body: ResponseRequest, owner: str, responses: Responses, id: str | None = None,
                 created: int | None = None) -> None:
        self.body, self.owner, self.responses = body, owner, responses
        self.maker = Maker(body, id or new_id("resp_"), created or int(time.time()))

    def before(self) -> list[Message]:
        """The conversation that it goes on from."""
        return self.responses.conversation(self.body.previous_response_id, self.owner)

    def begin(self, status: str) -> None:
        """Store it, if it is to be stored."""
        if self.body.store is not False:
            self.responses.add(Stored(
                self.maker.id, self.owner, self.body.previous_response_id, status, self.body.model_dump(
                    exclude_none=True), self.body.turn(), self.maker.response(status)))

    def end(self, response: dict[str, Any], output: Output | None = None) -> None:
        """Store how it ended."""
        if self.body.store is not False:
            said = [output.said()] if output else []
            self.responses.end(self.maker.id, response, [*self.body.turn(), *said])

    async def run(self, answer: Answer) -> dict[str, Any]:
        """The finished response, stored."""
        try:
            output = await self.read(answer)
        except BaseException as error:
            await asyncio.to_thread(self.end, self.failed(error))
            raise
        return await self.store(output)

    async def read(self, answer: Answer) -> Output:
        """The whole output of an answer."""
        output = Output(self.body, answer)
        async for piece in answer.events():
            for _ in output.take(piece):
                pass
        return output

    async def store(self, output: Output) -> dict[str, Any]:
        """The finished response, stored."""
        response = self.maker.finished(output)
        await asyncio.to_thread(self.end, response, output)
        return response

    def failed(self, error: BaseException) -> dict[str, Any]:
        """The response when its answer failed, or was left."""
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            return self.maker.response("cancelled")
        return self.maker.response("failed", failure=failure_of(error))


class Background:
    """Responses that are made while nobody waits for them."""

    def __init__(self, service: Service, responses: Responses) -> None:
        self._service, self._responses = service, responses
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closing = False

    def start(self, turn: Turn, answer: Answer | None = None) -> None:
        """Make a stored response."""
        task = asyncio.create_task(self._make(turn, answer))
        self._tasks[turn.maker.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(turn.maker.id, None))

    def resume(self) -> None:
        """Begin what was interrupted anew; what somebody waited for has failed."""
        for stored in self._responses.at_work():
            with contextlib.suppress(Refused):  # a full disk: at the next start
                self._resume(stored)

    def _resume(self, stored: Stored) -> None:
        try:
            body = _asked(stored)
        except Refused as error:
            told = {"code": "server_error", "message": error.message}
            self._responses.end(stored.id, stored.body | {"status": "failed", "error": told}, stored.messages)
            return
        turn = Turn(body, stored.owner, self._responses, stored.id, stored.body["created_at"])
        if body.background:
            self.start(turn)
        else:
            turn.end(turn.maker.response("failed", failure=Failure(500, "the server was stopped")))

    async def _make(self, turn: Turn, answer: Answer | None) -> None:
        try:
            answer = answer or await self._ask(turn)
            output = await turn.read(answer)
            await patiently(turn.end, turn.maker.finished(output), output)
        except asyncio.CancelledError:
            if not self._is_closing:
                await asyncio.to_thread(turn.end, turn.maker.response("cancelled"))
        except Exception as error:
            if not self._service.is_closing:  # it is made after the next start
                await patiently(turn.end, turn.failed(error))
        finally:
            if answer is not None:
                await answer.close()

    async def _ask(self, turn: Turn) -> Answer:
        """The answer of one that was accepted before the last start: it waits until there is room for it."""
        before = await patiently(turn.before)
        while True:
            try:
                return await self._service.ask(turn.body.ask(before), owner=turn.owner, id=turn.maker.id)
            except TenthError as error:
                if failure_of(error).retry_after_s is None or self._service.is_closing:
                    raise
            await asyncio.sleep(RETRY_S)

    def is_begun(self, id: str) -> bool:
        """Whether one waits for its turn no longer. Nobody stores that: after a stop it waits again."""
        return id in self._tasks and any(answer.id == id and not answer.is_queued for answer in self._service.answers)

    async def cancel(self, id: str) -> None:
        """Cancel one, and wait until that is stored."""
        task = self._tasks.get(id)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def close(self) -> None:
        """Leave what is at work for the next start."""
        self._is_closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _asked(stored: Stored) -> ResponseRequest:
    """The request of a stored response. Refuses (409) one with fields that only another version of tenth knows."""
    try:
        return ResponseRequest.model_validate(stored.request)
    except ValidationError as error:
        raise Refused(409, f"the response {stored.id!r} was asked for of another version of tenth: "
                      f"{wrong_field(error.errors()).message}") from None


def _responses(request: Request) -> Responses:
    responses: Responses = request.app.state.responses
    return responses


@router.post("/v1/responses", response_model=None, responses=replies.of(replies.Response, EVENTS))
async def create(body: ResponseRequest, request: Request) -> Response:
    """Answer, and store the answer."""
    body.check()
    turn = Turn(body, request.state.owner, _responses(request))
    before = await asyncio.to_thread(turn.before)
    answer = await get_service(request).ask(body.ask(before), owner=turn.owner, id=turn.maker.id)
    try:
        await asyncio.to_thread(turn.begin, "queued" if body.background else "in_progress")
    except BaseException:
        await answer.close()
        raise
    if body.background:
        background: Background = request.app.state.background
        background.start(turn, answer)
        return JSONResponse(turn.maker.response("queued"))
    if body.stream:
        return await stream(request, answer, _wire(turn, answer), error_event)
    return JSONResponse(await whole(request, answer, turn.run))


@router.get("/v1/responses/{response_id}", responses=replies.of(replies.Response))
async def get(response_id: str, request: Request) -> dict[str, Any]:
    """A stored response."""
    stored = await asyncio.to_thread(_responses(request).get, response_id, request.state.owner)
    is_begun = stored.status == "queued" and request.app.state.background.is_begun(response_id)
    return stored.body | ({"status": "in_progress"} if is_begun else {})


@router.delete("/v1/responses/{response_id}", responses=replies.of(replies.Deleted))
async def delete(response_id: str, request: Request) -> dict[str, Any]:
    """Delete a stored response; one that is at work is cancelled."""
    await asyncio.to_thread(_responses(request).get, response_id, request.state.owner)
    await request.app.state.background.cancel(response_id)
    await asyncio.to_thread(_responses(request).delete, response_id, request.state.owner)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post("/v1/responses/{response_id}/cancel", responses=replies.of(replies.Response))
async def cancel(response_id: str, request: Request) -> dict[str, Any]:
    """Cancel a background response."""
    stored = await asyncio.to_thread(_responses(request).get, response_id, request.state.owner)
    if not stored.body["background"]:
        raise Refused(400, "only background responses can be cancelled")
    if stored.status in AT_WORK:
        await request.app.state.background.cancel(response_id)
    return (await asyncio.to_thread(_responses(request).get, response_id, request.state.owner)).body


@router.get("/v1/responses/{response_id}/input_items", responses=replies.of(replies.Items))
async def input_items(response_id: str, request: Request, paging: Annotated[OrderedPaging, Depends()]
                      ) -> dict[str, Any]:
    """What the request of a stored response added to the conversation, the last first."""
    stored = await asyncio.to_thread(_responses(request).get, response_id, request.state.owner)
    asked = _asked(stored)
    items = [MessageItem(role="user", content=asked.input)] if isinstance(asked.input, str) else asked.input
    data = [_listed(item, item.id or f"{response_id}_{i}") for i, item in enumerate(items)]
    return paging.page(data[::-1])


def _listed(item: MessageItem | ReasoningItem | CallItem | ResultItem, id: str) -> dict[str, Any]:
    """An item of the input as it is told."""
    if not isinstance(item, MessageItem):
        return item.model_dump(exclude_none=True) | {"id": id, "status": "completed"}
    is_answer = item.role == "assistant"
    part: dict[str, Any] = {"type": "output_text" if is_answer else "input_text", "text": text_of(item.content)}
    return {"id": id, "type": "message", "role": item.role, "status": "completed",
            "content": [part | ({"annotations": []} if is_answer else {})]}


async def _wire(turn: Turn, answer: Answer) -> Wire:
    """The events of a response: the response, its items, their deltas, and how it ended."""
    maker, output = turn.maker, Output(turn.body, answer)
    yield output.named("created", response=maker.response("in_progress"))
    yield output.named("in_progress", response=maker.response("in_progress"))
    has_ended = False
    try:
        async for piece in answer.events():
            for block in output.take(piece):
                yield block
        response, has_ended = await turn.store(output), True
        yield output.named(response["status"], response=response)
    except Exception as error:
        response, has_ended = turn.failed(error), True
        await asyncio.to_thread(turn.end, response)
        yield output.named("failed", response=response)
    finally:
        if not has_ended:  # the reader went
            await asyncio.to_thread(turn.end, maker.response("cancelled"))
