"""Ollama's API: POST /api/chat and /api/generate. Answers stream as JSON lines unless ``stream`` is false.

Field names: the ollama package's types, 0.6.3. Models are in ollama_models.py, vectors in ollama_embed.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from tenth.server import replies
from tenth.server.answers import Choice, Delta, End
from tenth.server.asking import Ask, asked_tools
from tenth.server.body import JsonRoute
from tenth.server.dialects import ollama_lifetime
from tenth.server.dialects.ollama_request import AskRequest, ChatRequest, GenerateRequest
from tenth.server.dialects.openai import token_logprob
from tenth.server.failures import Failure
from tenth.server.service import Answer, ends, get_service
from tenth.server.streams import LINES, Wire, dumps, stream, whole
from tenth.stream import ToolCall

router = APIRouter(route_class=JsonRoute, tags=["Ollama"])


def error_body(failure: Failure) -> dict[str, Any]:
    """A failure as Ollama tells it."""
    return {"error": failure.message}


def line(value: dict[str, Any]) -> bytes:
    """A line of a stream."""
    return (dumps(value) + "\n").encode()


def error_line(failure: Failure) -> bytes:
    """A failure after the first line of a stream."""
    return line(error_body(failure))


def named(request: Request, name: str) -> str:
    """The name of a served model; Ollama's clients may put ":latest" behind it."""
    plain = name.removesuffix(":latest")
    return plain if get_service(request).shelf.has(plain) else name


@router.post("/api/chat", response_model=None, responses=replies.of(replies.OllamaAnswer, LINES))
async def chat(body: ChatRequest, request: Request) -> Response:
    """Answer a conversation."""
    ask = Ask(named(request, body.model), [message.plain() for message in body.messages], settings=body.settings(),
              context=body.context_tokens(),
              thinking=body.thinking(), response_format=body.response_format(),
              tools=asked_tools(body.tools, None, None)) if body.messages else None

    def part(text: str, thinking: str, calls: Sequence[ToolCall] = ()) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = [_call(call) for call in calls]
        return {"message": message | ({"thinking": thinking} if thinking else {})}

    return await _answer(request, body, ask, part)


@router.post("/api/generate", response_model=None, responses=replies.of(replies.OllamaAnswer, LINES))
async def generate(body: GenerateRequest, request: Request) -> Response:
    """Answer one prompt."""
    def part(text: str, thinking: str, _: Sequence[ToolCall] = ()) -> dict[str, Any]:
        return {"response": text} | ({"thinking": thinking} if thinking else {})

    return await _answer(request, body, body.ask(named(request, body.model)), part)


async def _answer(request: Request, body: AskRequest, ask: Ask | None, part: Any) -> Response:
    name = named(request, body.model)
    ollama_lifetime.note(request, name, body.keep_alive)
    if ask is None:
        end = await ollama_lifetime.only_open(request, name, body.keep_alive)
        return JSONResponse(_head(body) | part("", "") | end)
    answer = await get_service(request).ask(ask, owner=request.state.owner)
    if body.stream is not False:
        return await stream(request, answer, _wire(answer, body, part), error_line, LINES)

    async def one(answer: Answer) -> Response:
        (choice,) = await answer.whole()
        (end,) = ends([choice])
        return JSONResponse(_head(body) | part(choice.text, choice.thinking, choice.calls) | _end(answer, end)
                            | _logprobs(choice, answer, body))

    return await whole(request, answer, one)


async def _wire(answer: Answer, body: AskRequest, part: Any) -> Wire:
    """Lines: deltas, calls when they are complete, then the figures."""
    choice = Choice()
    async for piece in answer.events():
        choice.add(piece)
        if isinstance(piece, Delta) and piece.call is not None:
            if piece.call.ended:
                yield line(_head(body) | part("", "", choice.calls[-1:]) | {"done": False})
        elif isinstance(piece, Delta):
            text, thinking = (piece.text, "") if piece.kind == "content" else ("", piece.text)
            yield line(_head(body) | part(text, thinking) | {"done": False} | _logprobs(piece, answer, body))
        else:
            yield line(_head(body) | part("", "") | _end(answer, piece))


def _head(body: AskRequest) -> dict[str, Any]:
    return {"model": body.model, "created_at": iso(time.time())}


def _logprobs(piece: Delta | Choice, answer: Answer, body: AskRequest) -> dict[str, Any]:
    if not body.logprobs:
        return {}
    return {"logprobs": [token_logprob(token, answer.model.tokenizer, body.top_logprobs or 0)
                         for token in piece.logprobs if token.kind == "content"]}


def _end(answer: Answer, end: End) -> dict[str, Any]:
    """Ollama's figures, in nanoseconds."""
    usage, timings = end.usage, end.timings
    first_s = timings.first_token_s or 0.0
    rate = timings.generated_tokens_per_second
    eval_s = (usage.completion_tokens - 1) / rate if rate else 0.0
    nanoseconds = {"total_duration": first_s + eval_s, "load_duration": timings.load_s,
                   "prompt_eval_duration": first_s, "eval_duration": eval_s}
    return {"done": True, "done_reason": end.reason, "prompt_eval_count": usage.prompt_tokens,
            "eval_count": usage.completion_tokens, **{name: int(s * 1e9) for name, s in nanoseconds.items()}}


def _call(call: ToolCall) -> dict[str, Any]:
    """A call with its arguments as an object; those that the model made wrongly under a name of their own."""
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = {"invalid_json": call.arguments}
    return {"function": {"name": call.name, "arguments": arguments}}


def iso(at_s: float) -> str:
    """Seconds since 1970 as a time in the form of ISO 8601."""
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
