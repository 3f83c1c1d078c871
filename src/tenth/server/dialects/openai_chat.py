"""OpenAI's chat completions: POST /v1/chat/completions, whole or as a stream."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from tenth.server import replies
from tenth.server.answers import Choice, Delta, End, reason_of
from tenth.server.body import JsonRoute
from tenth.server.dialects.openai import DONE, error_event, timings, token_logprob, usage
from tenth.server.dialects.openai_chat_request import ChatRequest
from tenth.server.service import Answer, ends, get_service, new_id
from tenth.server.streams import EVENTS, Wire, event, stream, whole
from tenth.stream import CallPart

router = APIRouter(route_class=JsonRoute, tags=["OpenAI"])

@router.post("/v1/chat/completions", response_model=None, responses=replies.of(replies.ChatCompletion, EVENTS))
async def create(body: ChatRequest, request: Request) -> Response:
    """Answer a conversation."""
    answer = await get_service(request).ask(body.ask(), owner=request.state.owner, id=new_id("chatcmpl-"))
    if body.stream:
        return await stream(request, answer, _wire(answer, body), error_event)
    return JSONResponse(await whole(request, answer, lambda answer: completion(answer, body)))


async def completion(answer: Answer, body: ChatRequest) -> dict[str, Any]:
    """The whole answer as the API has it."""
    choices = await answer.whole()
    return {
        **_head(answer, body, "chat.completion"),
        "choices": [_choice(i, choice, answer, body) for i, choice in enumerate(choices)],
        "usage": usage(answer.n_prompt_tokens, ends(choices)),
        "timings": timings(ends(choices)[0]),
    }


def _head(answer: Answer, body: ChatRequest, kind: str) -> dict[str, Any]:
    head = {"id": answer.id, "object": kind, "created": answer.created, "model": answer.name,
            "service_tier": "default"}
    return head | ({"metadata": body.metadata} if body.metadata and kind == "chat.completion" else {})


def _choice(index: int, choice: Choice, answer: Answer, body: ChatRequest) -> dict[str, Any]:
    assert choice.end is not None, "a whole answer has no end"
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.thinking:
        message |= {"reasoning_content": choice.thinking, "reasoning": choice.thinking}
    if choice.calls:
        message["content"] = choice.text or None
        message["tool_calls"] = [{"id": call.id, "type": "function", "function": {
            "name": call.name, "arguments": call.arguments}} for call in choice.calls]
    return {"index": index, "message": message, "finish_reason": reason_of(choice.end, bool(choice.calls)),
            "logprobs": _logprobs(choice.logprobs, answer, body)}


def _logprobs(tokens: list[Any], answer: Answer, body: ChatRequest) -> dict[str, Any] | None:
    if not body.logprobs:
        return None
    content = [token_logprob(token, answer.model.tokenizer, body.top_logprobs or 0)
               for token in tokens if token.kind == "content"]
    return {"content": content, "refusal": None}


async def _wire(answer: Answer, body: ChatRequest) -> Wire:
    """A stream: the role, deltas, the end of each choice, usage if it was asked for, and [DONE]."""
    with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    head = _head(answer, body, "chat.completion.chunk") | ({"usage": None} if with_usage else {})

    def chunk(index: int, delta: dict[str, Any], logprobs: list[Any], **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": _logprobs(logprobs, answer, body),
                  "finish_reason": None, **more}
        return event({**head, "choices": [choice]})

    for index in range(len(answer.prompts)):
        yield chunk(index, {"role": "assistant", "content": ""}, [])
    done: list[End] = []
    calling: set[int] = set()  # choices with calls
    async for piece in answer.events():
        if isinstance(piece, Delta) and piece.call is not None:
            calling.add(piece.index)
            yield chunk(piece.index, {"tool_calls": [_call_delta(piece.call, piece.text)]}, piece.logprobs)
        elif isinstance(piece, Delta):
            names = ("content",) if piece.kind == "content" else ("reasoning_content", "reasoning")
            yield chunk(piece.index, dict.fromkeys(names, piece.text), piece.logprobs)
        else:
            done.append(piece)
            yield chunk(piece.index, {}, piece.logprobs, finish_reason=reason_of(piece, piece.index in calling))
    if with_usage:
        yield event({**head, "choices": [], "usage": usage(answer.n_prompt_tokens, done),
                     "timings": timings(done[0])})
    yield DONE


def _call_delta(call: CallPart, arguments: str) -> dict[str, Any]:
    """A part of a call: its id and name in the first one, then its arguments."""
    begins = {"id": call.id, "type": "function"} if call.name is not None else {}
    name = {"name": call.name} if call.name is not None else {}
    return {"index": call.number, **begins, "function": {**name, "arguments": arguments}}
