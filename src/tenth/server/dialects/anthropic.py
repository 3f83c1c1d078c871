"""Anthropic's messages: POST /v1/messages, whole or as events, and /v1/messages/count_tokens.

Field names: the anthropic package's types, 2.12. Thinking comes as thinking blocks; their signature is empty, because
this server checks none.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from tenth.server import replies
from tenth.server.answers import Choice, Delta, End
from tenth.server.asking import Ask
from tenth.server.body import JsonRoute
from tenth.server.dialects.anthropic_request import CountRequest, MessagesRequest
from tenth.server.failures import Failure
from tenth.server.service import Answer, ends, get_service, new_id, prepare
from tenth.server.streams import EVENTS, Wire, event, stream, whole

router = APIRouter(route_class=JsonRoute, tags=["Anthropic"])

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
          413: "request_too_large", 415: "invalid_request_error", 429: "rate_limit_error", 503: "overloaded_error"}


def error_body(failure: Failure) -> dict[str, Any]:
    """A failure as Anthropic's API tells it."""
    return {"type": "error", "error": {"type": _TYPES.get(failure.status, "api_error"), "message": failure.message}}


def error_event(failure: Failure) -> bytes:
    """A failure after the first event of a stream."""
    return event(error_body(failure), "error")


Beta = Annotated[bool | None, Query(description="Accepted: the client's beta methods send it.")]


@router.post("/v1/messages", response_model=None, responses=replies.of(replies.AnthropicMessage, EVENTS))
async def create(body: MessagesRequest, request: Request, beta: Beta = None) -> Response:
    """Answer a conversation."""
    answer = await get_service(request).ask(body.ask(), owner=request.state.owner, id=new_id("msg_"))
    if body.stream:
        return await stream(request, answer, _wire(answer), error_event)
    return await whole(request, answer, _message)


@router.post("/v1/messages/count_tokens")
async def count_tokens(body: CountRequest, request: Request, beta: Beta = None) -> dict[str, int]:
    """How many tokens a conversation has."""
    ask = Ask(body.model, body.conversation(), thinking=body.how_to_think(), tools=body.asked_tools())
    async with get_service(request).shelf.borrow(body.model) as borrowed:
        prepared = await asyncio.to_thread(prepare, borrowed.model, ask)
    return {"input_tokens": len(prepared.ids)}


async def _message(answer: Answer) -> Response:
    (choice,) = await answer.whole()
    (end,) = ends([choice])
    return JSONResponse(_head(answer) | {"content": _content(choice), **_stop(end, bool(choice.calls)),
                                         "usage": _usage(end)})


def _head(answer: Answer) -> dict[str, Any]:
    return {"id": answer.id, "type": "message", "role": "assistant", "model": answer.name, "content": [],
            "stop_reason": None, "stop_sequence": None}


def _content(choice: Choice) -> list[dict[str, Any]]:
    thinking = [{"type": "thinking", "thinking": choice.thinking, "signature": ""}] if choice.thinking else []
    calls = [{"type": "tool_use", "id": call.id, "name": call.name, "input": _read(call.arguments)}
             for call in choice.calls]
    return thinking + ([{"type": "text", "text": choice.text}] if choice.text or not (thinking or calls) else []
                       ) + calls


def _read(arguments: str) -> Any:
    """Arguments as JSON; those that the model made wrongly under a name of their own."""
    try:
        return json.loads(arguments)
    except ValueError:
        return {"invalid_json": arguments}


def _stop(end: End, has_calls: bool) -> dict[str, Any]:
    if has_calls and end.reason == "stop":
        return {"stop_reason": "tool_use", "stop_sequence": None}
    if end.stop_string is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": end.stop_string}
    return {"stop_reason": "max_tokens" if end.reason == "length" else "end_turn", "stop_sequence": None}


def _usage(end: End) -> dict[str, int]:
    usage = end.usage  # input_tokens are those that were not known, as the official API counts
    return {"input_tokens": usage.prompt_tokens - usage.cached_tokens, "cache_read_input_tokens": usage.cached_tokens,
            "cache_creation_input_tokens": 0, "output_tokens": usage.completion_tokens}


async def _wire(answer: Answer) -> Wire:
    """Events: the start, blocks of thinking and text with their deltas, how it ended."""
    def named(name: str, **fields: Any) -> bytes:
        return event({"type": name, **fields}, name)

    index, has_calls = -1, False
    open_kind: Any = None  # of the block that is open: a kind, or the id of a call
    usage = {"input_tokens": answer.n_prompt_tokens, "output_tokens": 0}
    yield named("message_start", message=_head(answer) | {"usage": usage})
    async for piece in answer.events():
        if isinstance(piece, Delta):
            kind = piece.call.id if piece.call else piece.kind
            has_calls = has_calls or piece.call is not None
            if kind != open_kind:
                if open_kind is not None:
                    yield named("content_block_stop", index=index)
                index, open_kind = index + 1, kind
                yield named("content_block_start", index=index, content_block=_block(piece))
            if piece.text:
                yield named("content_block_delta", index=index, delta=_delta(piece))
        else:
            if open_kind is not None:
                yield named("content_block_stop", index=index)
            yield named("message_delta", delta=_stop(piece, has_calls), usage=_usage(piece))
    yield named("message_stop")


def _block(piece: Delta) -> dict[str, Any]:
    """A block at its beginning."""
    if piece.call is not None:
        return {"type": "tool_use", "id": piece.call.id, "name": piece.call.name, "input": {}}
    return ({"type": "thinking", "thinking": "", "signature": ""} if piece.kind == "thinking"
            else {"type": "text", "text": ""})


def _delta(piece: Delta) -> dict[str, Any]:
    """What is new in a block."""
    if piece.call is not None:
        return {"type": "input_json_delta", "partial_json": piece.text}
    return ({"type": "thinking_delta", "thinking": piece.text} if piece.kind == "thinking"
            else {"type": "text_delta", "text": piece.text})
