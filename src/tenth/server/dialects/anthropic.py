"""Anthropic's messages: POST /v1/messages, whole or as events, and /v1/messages/count_tokens.

Field names: the anthropic package's types, 2.12. Thinking comes as thinking blocks; their signature is empty, because
this server checks none. ``temperature``, ``top_p`` and ``top_k`` are taken as ours.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from tenth.sampling import MAX_STOP_STRINGS
from tenth.server import replies
from tenth.server.answers import Choice, Delta, End
from tenth.server.asking import Ask, Thinking, asked_tools
from tenth.server.body import MOST_TOKENS, TEXT_ONLY, Body, JsonRoute, count, effort, number
from tenth.server.failures import Failure, Refused
from tenth.server.service import Answer, ends, get_service, new_id, prepare
from tenth.server.streams import EVENTS, Wire, dumps, event, stream, whole
from tenth.text.messages import MAX_MESSAGES
from tenth.text.tools.request import MAX_TOOLS

router = APIRouter(route_class=JsonRoute, tags=["Anthropic"])

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
          413: "request_too_large", 415: "invalid_request_error", 429: "rate_limit_error", 503: "overloaded_error"}


def error_body(failure: Failure) -> dict[str, Any]:
    """A failure as Anthropic's API tells it."""
    return {"type": "error", "error": {"type": _TYPES.get(failure.status, "api_error"), "message": failure.message}}


def error_event(failure: Failure) -> bytes:
    """A failure after the first event of a stream."""
    return event(error_body(failure), "error")


CACHED = "Accepted: equal beginnings are always found, for as long as there is room."


class CacheControl(Body):
    """Where a beginning ends that will come again."""

    type: Literal["ephemeral"]
    ttl: Literal["5m"] | None = None


class Block(Body):
    """A block of a message: text, the thinking or a call of an earlier answer, or the result of a call."""

    type: Literal["text", "thinking", "tool_use", "tool_result"]
    id: str | None = Field(default=None, max_length=256)
    name: str | None = Field(default=None, max_length=256)
    input: dict[str, Any] | None = None
    tool_use_id: str | None = Field(default=None, max_length=256)
    content: str | list[Block] | None = None
    is_error: bool | None = Field(default=None, description="Accepted; the model sees what the content says.")
    caller: dict[Literal["type"], Literal["direct"]] | None = Field(default=None, description=(
        "Accepted: calls are made by the model only."))
    text: str | None = None
    thinking: str | None = None
    signature: str | None = Field(default=None, description="Accepted: none is checked.")
    cache_control: CacheControl | None = Field(default=None, description=CACHED)
    unsupported: ClassVar[dict[str, str]] = {
        "source": TEXT_ONLY, "citations": "this server cites nothing",
    }


class Message(Body):
    """A message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]

    def plain(self) -> list[dict[str, Any]]:
        """The message as templates know it: results of calls are messages of their own."""
        if isinstance(self.content, str):
            return [{"role": self.role, "content": self.content}]
        blocks: dict[str, list[Block]] = {"text": [], "thinking": [], "tool_use": [], "tool_result": []}
        for block in self.content:
            blocks[block.type].append(block)
        results = [{"role": "tool", "tool_call_id": block.tool_use_id or "", "content": text_of(block.content or "")}
                   for block in blocks["tool_result"]]
        message: dict[str, Any] = {"role": self.role, "content": text_of(blocks["text"])}
        if blocks["thinking"]:
            message["reasoning_content"] = "".join(block.thinking or "" for block in blocks["thinking"])
        if blocks["tool_use"]:
            message["tool_calls"] = [{"id": block.id or "", "type": "function", "function": {
                "name": block.name or "", "arguments": dumps(block.input or {})}} for block in blocks["tool_use"]]
        is_empty = not message["content"] and len(message) == 2
        return results + ([] if results and is_empty else [message])


def text_of(blocks: str | list[Block]) -> str:
    """The text of blocks."""
    return blocks if isinstance(blocks, str) else "".join(block.text or "" for block in blocks)


class ThinkingConfig(Body):
    """Whether to think, and for how many tokens."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    display: Literal["summarized"] | None = None


class Metadata(Body):
    """Accepted; this server keeps no users."""

    user_id: str | None = Field(default=None, max_length=512)


class OutputFormat(Body):
    """What the answer has to match."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    """How much effort goes into the answer, and what it has to match."""

    effort: str | None = effort()
    format: OutputFormat | None = None

    def response_format(self) -> dict[str, Any] | None:
        """The format as OpenAI writes it."""
        named = {"name": "answer", "schema": self.format.schema_} if self.format else None
        return {"type": "json_schema", "json_schema": named} if named else None


class Tool(Body):
    """A function that the model may call."""

    name: str = Field(max_length=256)
    description: str | None = None
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = Field(default=None, description=CACHED)
    eager_input_streaming: bool | None = Field(default=None, description="Accepted: arguments always stream.")

    def as_openai(self) -> dict[str, Any]:
        """The tool as OpenAI writes it."""
        return {"type": "function", "function": {"name": self.name, "description": self.description or "",
                                                 "parameters": self.input_schema, "strict": bool(self.strict)}}


class ToolChoice(Body):
    """Whether a call has to be made."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = Field(default=None, max_length=256)
    disable_parallel_tool_use: bool | None = None

    def as_openai(self) -> str | dict[str, Any]:
        """The choice as OpenAI writes it."""
        if self.type == "tool":
            return {"type": "function", "function": {"name": self.name}}
        return {"auto": "auto", "any": "required", "none": "none"}[self.type]


class CountRequest(Body):
    """What counts as the prompt."""

    model: str = Field(max_length=512)
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: str | list[Block] | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = Field(default=None, description=CACHED)
    speed: Literal["standard"] | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ToolChoice | None = None
    unsupported: ClassVar[dict[str, str]] = {
        "user_profile_id": "this server keeps no users",
        "workspace_id": "this server keeps no workspaces", "container": "this server runs no code",
        "diagnostics": "there are none", "inference_geo": "it is here",
    }

    def conversation(self) -> list[dict[str, Any]]:
        """The messages, the system's first."""
        first = [{"role": "system", "content": text_of(self.system)}] if self.system else []
        return first + [plain for message in self.messages for plain in message.plain()]

    def asked_tools(self) -> dict[str, Any]:
        """Tools as Model.chat takes them."""
        tools = [tool.as_openai() for tool in self.tools] if self.tools else None
        choice = self.tool_choice
        parallel = not (choice and choice.disable_parallel_tool_use)
        return asked_tools(tools, choice.as_openai() if choice else None, parallel)

    def how_to_think(self) -> Thinking:
        """What the two fields about thinking ask for; without any: no thinking, as the official API."""
        effort = self.output_config.effort if self.output_config else None
        if self.thinking is None or self.thinking.type == "adaptive":
            return Thinking(effort=effort) if effort else Thinking(None if self.thinking else False)
        if self.thinking.type == "disabled":
            return Thinking(False)
        if self.thinking.budget_tokens is None:
            raise Refused(400, "thinking of type enabled needs budget_tokens", param="thinking")
        return Thinking(True, self.thinking.budget_tokens)


class MessagesRequest(CountRequest):
    """The body of a message."""

    max_tokens: int = Field(ge=1, le=MOST_TOKENS)
    temperature: float | None = number("temperature")
    top_p: float | None = number("top_p")
    top_k: int | None = count("top_k")
    stop_sequences: list[str] | None = Field(default=None, max_length=MAX_STOP_STRINGS)
    stream: bool | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = Field(default=None, description=(
        "Accepted: there is one tier."))

    def ask(self) -> Ask:
        """What it asks for."""
        settings = {name: getattr(self, name) for name in ("max_tokens", "temperature", "top_p", "top_k")}
        settings["stop"] = self.stop_sequences or ()
        return Ask(self.model, self.conversation(), settings=settings, thinking=self.how_to_think(),
                   response_format=self.output_config.response_format() if self.output_config else None,
                   tools=self.asked_tools())


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
