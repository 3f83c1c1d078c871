"""OpenAI's responses: POST /v1/responses, whole, streamed or in the background; stored unless ``store`` is false.

``previous_response_id`` goes on from a stored response of the same owner. A background response is asked again when the
server was stopped before its end. Field names: the openai package's types, 3.54.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from tenth.sampling import MAX_TOP_LOGPROBS
from tenth.server.answers import Choice, Delta, End
from tenth.server.asking import Ask, Thinking
from tenth.server.body import Body, JsonRoute, SamplingBody, effort
from tenth.server.dialects.openai import error_body, new_id, token_logprob
from tenth.server.dialects.openai_chat import MOST_TOKENS, TEXT_ONLY, get_service
from tenth.server.failures import Failure, Refused, failure_of
from tenth.server.responses import AT_WORK, Message, Responses, Stored
from tenth.server.service import Answer, Service
from tenth.server.streams import Wire, event, stream, whole
from tenth.text.messages import MAX_MESSAGES

router = APIRouter(route_class=JsonRoute, tags=["OpenAI"])

NO_TOOLS = "there are no tools yet"


class Part(Body):
    """A part of an item's content."""

    type: Literal["input_text", "output_text", "text", "refusal", "reasoning_text", "summary_text"]
    text: str | None = None
    refusal: str | None = None
    annotations: list[dict[str, Any]] | None = Field(default=None, max_length=0)
    logprobs: list[dict[str, Any]] | None = None  # as an earlier answer had them
    unsupported: ClassVar[dict[str, str]] = {"image_url": TEXT_ONLY, "file_id": TEXT_ONLY, "file_data": TEXT_ONLY,
                                             "input_audio": TEXT_ONLY, "file_url": TEXT_ONLY}


class Item(Body):
    """An item of the input: a message, or the reasoning of an earlier answer."""

    type: Literal["message", "reasoning"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Part] | None = None
    summary: list[Part] | None = None
    id: str | None = Field(default=None, max_length=128)
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: str | None = Field(default=None, max_length=64)
    unsupported: ClassVar[dict[str, str]] = {"encrypted_content": "nothing is encrypted here", "call_id": NO_TOOLS,
                                             "output": NO_TOOLS, "arguments": NO_TOOLS}

    def text(self) -> str:
        """All its text."""
        if isinstance(self.content, str):
            return self.content
        parts = (self.content or []) + (self.summary or [])
        return "".join(part.text or part.refusal or "" for part in parts)


class ReasoningOption(Body):
    """How much to think."""

    effort: str | None = effort()
    unsupported: ClassVar[dict[str, str]] = {
        "summary": "reasoning comes as it is", "generate_summary": "reasoning comes as it is",
        "context": "give the reasoning items that are wanted", "mode": "there is one mode",
    }
    harmless: ClassVar[dict[str, Any]] = {"summary": "auto", "generate_summary": "auto"}


class TextOption(Body):
    """What the answer has to match."""

    format: dict[str, Any] | None = None
    unsupported: ClassVar[dict[str, str]] = {"verbosity": "ask for it in the prompt"}
    harmless: ClassVar[dict[str, Any]] = {"verbosity": "medium"}

    def response_format(self) -> dict[str, Any] | None:
        """The format as chat completions write it: a schema's fields lie one level deeper there."""
        if self.format is None or self.format.get("type") != "json_schema":
            return self.format
        return {"type": "json_schema", "json_schema": {k: v for k, v in self.format.items() if k != "type"}}


class ResponseRequest(SamplingBody):
    """The body of a response."""

    model: str = Field(max_length=512)
    input: str | list[Item] = Field(description="A text, or messages and reasoning.")
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    previous_response_id: str | None = Field(default=None, max_length=128)
    reasoning: ReasoningOption | None = None
    thinking_budget: int | None = Field(default=None, ge=0, le=MOST_TOKENS)
    store: bool | None = None
    stream: bool | None = None
    background: bool | None = None
    text: TextOption | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    include: list[Literal["message.output_text.logprobs"]] | None = None
    truncation: Literal["disabled"] | None = None
    user: str | None = Field(default=None, max_length=512, description="Accepted; this server keeps no users.")
    safety_identifier: str | None = Field(default=None, max_length=512, description="Accepted; nothing is reported.")
    prompt_cache_key: str | None = Field(default=None, max_length=512, description=(
        "Accepted; equal beginnings are always found."))
    service_tier: Literal["auto", "default"] | None = None
    unsupported: ClassVar[dict[str, str]] = {
        "tools": NO_TOOLS, "tool_choice": NO_TOOLS, "parallel_tool_calls": NO_TOOLS, "max_tool_calls": NO_TOOLS,
        "conversation": "use previous_response_id", "context_management": "conversations are not cut",
        "prompt": "there are no stored prompts", "moderation": "this server judges no text", "image": TEXT_ONLY,
        "access_programs": "there are none", "background_options": "there are none", "stream_options": "there are none",
        "prompt_cache_options": "equal beginnings are always found",
        "prompt_cache_retention": "prefixes are kept while there is room",
    }
    harmless: ClassVar[dict[str, Any]] = {
        "tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "prompt_cache_retention": "in_memory",
        "stream_options": {"include_obfuscation": False},
    }

    def turn(self) -> list[Message]:
        """What the input adds to the conversation."""
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        if not 1 <= len(self.input) <= MAX_MESSAGES:
            raise Refused(400, f"input has {len(self.input)} items, expected 1 to {MAX_MESSAGES}", param="input")
        messages: list[Message] = []
        reasoning = ""
        for item in self.input:
            if item.type == "reasoning":
                reasoning += item.text()
                continue
            if item.role is None:
                raise Refused(400, "an item of the input has no role", param="input")
            role = "system" if item.role == "developer" else item.role
            thought = {"reasoning_content": reasoning} if reasoning and role == "assistant" else {}
            messages.append({"role": role, "content": item.text(), **thought})
            reasoning = ""
        return messages

    def ask(self, before: list[Message]) -> Ask:
        """What it asks for, behind the messages of the responses before."""
        first = [{"role": "system", "content": self.instructions}] if self.instructions else []
        settings = self.sampling() | {"max_tokens": self.max_output_tokens, "top_logprobs": self.top_logprobs or 0}
        thinking = Thinking(None, self.thinking_budget, self.reasoning.effort if self.reasoning else None)
        return Ask(self.model, [*first, *before, *self.turn()], settings=settings, thinking=thinking,
                   response_format=self.text.response_format() if self.text else None)

    def check(self) -> None:
        """Refuses fields that contradict each other."""
        if self.background and (self.stream or self.store is False):
            raise Refused(400, "a background response is stored and not streamed", param="background")
        if self.top_logprobs and "message.output_text.logprobs" not in (self.include or ()):
            raise Refused(400, "top_logprobs needs include to have message.output_text.logprobs", param="top_logprobs")


class Maker:
    """Makes the objects of one response, from its request and its answer."""

    def __init__(self, body: ResponseRequest, id: str, created: int) -> None:
        self._body, self.id, self._created = body, id, created
        self.message_id, self.reasoning_id = new_id("msg_"), new_id("rs_")

    def response(self, status: str, output: list[dict[str, Any]] | None = None, end: End | None = None,
                 failure: Failure | None = None) -> dict[str, Any]:
        """The response object."""
        body = self._body
        error = {"code": "server_error", "message": failure.message} if failure else None
        return {
            "id": self.id, "object": "response", "created_at": self._created, "status": status, "model": body.model,
            "output": output or [], "error": error, "background": bool(body.background),
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions, "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {}, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "previous_response_id": body.previous_response_id, "temperature": body.temperature, "top_p": body.top_p,
            "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
            "text": {"format": (body.text and body.text.format) or {"type": "text"}}, "truncation": "disabled",
            "service_tier": "default", "store": body.store is not False, "usage": _usage(end) if end else None,
        }

    def finished(self, choice: Choice, answer: Answer) -> dict[str, Any]:
        """The response object when its answer is complete."""
        assert choice.end is not None, "a whole answer has no end"
        status = "incomplete" if choice.end.reason == "length" else "completed"
        reasoning = [self.reasoning(choice.thinking, "completed")] if choice.thinking else []
        message = self.message(choice.text, status, self.logprobs(choice.logprobs, answer))
        return self.response(status, [*reasoning, message], choice.end)

    def message(self, text: str | None, status: str, logprobs: list[Any] | None = None) -> dict[str, Any]:
        """The message item; ``text`` None: it has no content yet."""
        content = [] if text is None else [self.part(text, logprobs)]
        return {"id": self.message_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def part(self, text: str, logprobs: list[Any] | None = None) -> dict[str, Any]:
        """The content of the message item."""
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}

    def reasoning(self, text: str, status: str) -> dict[str, Any]:
        """The reasoning item."""
        content = [{"type": "reasoning_text", "text": text}] if text else []
        return {"id": self.reasoning_id, "type": "reasoning", "summary": [], "content": content, "status": status}

    def logprobs(self, tokens: list[Any], answer: Answer) -> list[Any]:
        """Log-probabilities, if they were asked for."""
        if not self._body.include:
            return []
        return [token_logprob(token, answer.model.tokenizer, self._body.top_logprobs or 0)
                for token in tokens if token.kind == "content"]


def _usage(end: End) -> dict[str, Any]:
    usage = end.usage
    return {"input_tokens": usage.prompt_tokens, "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens}


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

    def end(self, response: dict[str, Any], choice: Choice | None = None) -> None:
        """Store how it ended."""
        if self.body.store is False:
            return
        said = []
        if choice is not None:
            thought = {"reasoning_content": choice.thinking} if choice.thinking else {}
            said = [{"role": "assistant", "content": choice.text, **thought}]
        self.responses.end(self.maker.id, response, [*self.body.turn(), *said])

    async def run(self, answer: Answer) -> dict[str, Any]:
        """The finished response, stored."""
        try:
            (choice,) = await answer.whole()
        except BaseException as error:
            await asyncio.to_thread(self.end, self.failed(error))
            raise
        response = self.maker.finished(choice, answer)
        await asyncio.to_thread(self.end, response, choice)
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
            turn = Turn(ResponseRequest.model_validate(stored.request), stored.owner, self._responses, stored.id,
                        stored.body["created_at"])
            if turn.body.background:
                self.start(turn)
            else:
                turn.end(turn.maker.response("failed", failure=Failure(500, "the server was stopped")))

    async def _make(self, turn: Turn, answer: Answer | None) -> None:
        try:
            if answer is None:
                before = await asyncio.to_thread(turn.before)
                answer = await self._service.ask(turn.body.ask(before), owner=turn.owner)
            (choice,) = await answer.whole()
            await asyncio.to_thread(turn.end, turn.maker.finished(choice, answer), choice)
        except asyncio.CancelledError:
            if not self._is_closing:
                turn.end(turn.maker.response("cancelled"))
        except Exception as error:
            if not self._service.is_closing:  # it is made after the next start
                await asyncio.to_thread(turn.end, turn.failed(error))
        finally:
            if answer is not None:
                await answer.close()

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


def _responses(request: Request) -> Responses:
    responses: Responses = request.app.state.responses
    return responses


@router.post("/v1/responses", response_model=None)
async def create(body: ResponseRequest, request: Request) -> Response:
    """Answer, and store the answer."""
    body.check()
    turn = Turn(body, request.state.owner, _responses(request))
    before = await asyncio.to_thread(turn.before)
    answer = await get_service(request).ask(body.ask(before), owner=turn.owner)
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
        return await stream(request, answer, _wire(turn, answer), _error_event)
    return JSONResponse(await whole(request, answer, turn.run))


@router.get("/v1/responses/{response_id}")
async def get(response_id: str, request: Request) -> dict[str, Any]:
    """A stored response."""
    stored = await asyncio.to_thread(_responses(request).get, response_id, request.state.owner)
    return stored.body


@router.delete("/v1/responses/{response_id}")
async def delete(response_id: str, request: Request) -> dict[str, Any]:
    """Delete a stored response; one that is at work is cancelled."""
    await asyncio.to_thread(_responses(request).get, response_id, request.state.owner)
    await request.app.state.background.cancel(response_id)
    await asyncio.to_thread(_responses(request).delete, response_id, request.state.owner)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post("/v1/responses/{response_id}/cancel")
async def cancel(response_id: str, request: Request) -> dict[str, Any]:
    """Cancel a background response."""
    stored = await asyncio.to_thread(_responses(request).get, response_id, request.state.owner)
    if not stored.body["background"]:
        raise Refused(400, "only background responses can be cancelled")
    if stored.status in AT_WORK:
        await request.app.state.background.cancel(response_id)
    return (await asyncio.to_thread(_responses(request).get, response_id, request.state.owner)).body


@router.get("/v1/responses/{response_id}/input_items")
async def input_items(response_id: str, request: Request) -> dict[str, Any]:
    """What the request of a stored response added to the conversation."""
    stored = await asyncio.to_thread(_responses(request).get, response_id, request.state.owner)
    turn = ResponseRequest.model_validate(stored.request).turn()
    data = [{"id": f"{response_id}_{i}", "type": "message", "role": message["role"], "status": "completed",
             "content": [{"type": "output_text" if message["role"] == "assistant" else "input_text",
                          "text": message["content"], **({"annotations": []} if message["role"] == "assistant"
                                                         else {})}]} for i, message in enumerate(turn)]
    return {"object": "list", "data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}


def _error_event(failure: Failure) -> bytes:
    error = error_body(failure)["error"]
    return event({"type": "error", "sequence_number": 0, "code": error["code"], "message": error["message"],
                  "param": error["param"]}, "error")


async def _wire(turn: Turn, answer: Answer) -> Wire:
    """The events of a response: the response, its items, their deltas, and how it ended."""
    maker, choice, number = turn.maker, Choice(), -1

    def named(name: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return event({"type": f"response.{name}", "sequence_number": number, **fields}, f"response.{name}")

    yield named("created", response=maker.response("in_progress"))
    yield named("in_progress", response=maker.response("in_progress"))
    has_ended = False
    try:
        async for block in _items(maker, answer, choice, named):
            yield block
        response = maker.finished(choice, answer)
        await asyncio.to_thread(turn.end, response, choice)
        has_ended = True
        yield named(response["status"], response=response)
    except Exception as error:
        response, has_ended = turn.failed(error), True
        await asyncio.to_thread(turn.end, response)
        yield named("failed", response=response)
    finally:
        if not has_ended:  # the reader went
            turn.end(maker.response("cancelled"))


async def _items(maker: Maker, answer: Answer, choice: Choice, named: Any) -> Wire:
    """The events of the items of an answer, which ``choice`` takes in meanwhile."""
    index = -1
    kind: str | None = None

    def opened() -> list[bytes]:
        if kind == "thinking":
            return [named("output_item.added", output_index=index, item=maker.reasoning("", "in_progress"))]
        at = {"output_index": index, "item_id": maker.message_id, "content_index": 0}
        return [named("output_item.added", output_index=index, item=maker.message(None, "in_progress")),
                named("content_part.added", part=maker.part(""), **at)]

    def closed() -> list[bytes]:
        if kind == "thinking":
            at = {"output_index": index, "item_id": maker.reasoning_id, "content_index": 0}
            return [named("reasoning_text.done", text=choice.thinking, **at),
                    named("output_item.done", output_index=index, item=maker.reasoning(choice.thinking, "completed"))]
        at = {"output_index": index, "item_id": maker.message_id, "content_index": 0}
        logprobs = maker.logprobs(choice.logprobs, answer)
        return [named("output_text.done", text=choice.text, logprobs=logprobs, **at),
                named("content_part.done", part=maker.part(choice.text, logprobs), **at),
                named("output_item.done", output_index=index,
                      item=maker.message(choice.text, "completed", logprobs))]

    async for piece in answer.events():
        if not isinstance(piece, Delta):
            choice.add(piece)
            break
        if piece.kind != kind:
            for block in closed() if kind else []:
                yield block
            index, kind = index + 1, piece.kind
            for block in opened():
                yield block
        choice.add(piece)
        if kind == "thinking":
            yield named("reasoning_text.delta", output_index=index, item_id=maker.reasoning_id, content_index=0,
                        delta=piece.text)
        else:
            yield named("output_text.delta", output_index=index, item_id=maker.message_id, content_index=0,
                        delta=piece.text, logprobs=maker.logprobs(piece.logprobs, answer))
    if kind != "content":  # an answer without text has an empty message
        for block in closed() if kind else []:
            yield block
        index, kind = index + 1, "content"
        for block in opened():
            yield block
    for block in closed():
        yield block
