"""The answer of POST /v1/responses: its object, its items, the events by which they grow. See openai_responses.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tenth.server.answers import Choice, Delta, End, Event
from tenth.server.dialects.openai import error_body, token_logprob
from tenth.server.dialects.response_request import LOGPROBS, ResponseRequest
from tenth.server.failures import Failure
from tenth.server.service import Answer, new_id
from tenth.server.streams import event
from tenth.stream import CallPart, TokenLogprob

_PREFIX = {"thinking": "rs_", "content": "msg_", "call": "fc_"}


@dataclass
class Item:
    """A part of the output: reasoning, a message or a call, which grows while the answer is made."""

    kind: Literal["thinking", "content", "call"]
    index: int
    text: str = ""
    call: CallPart | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    id: str = ""

    def __post_init__(self) -> None:
        self.id = new_id(_PREFIX[self.kind])


class Output:
    """The items of one answer. ``take`` gives the events by which they grew."""

    def __init__(self, body: ResponseRequest, answer: Answer) -> None:
        self.choice = Choice()
        self._items: list[Item] = []
        self._answer, self._n_top = answer, body.top_logprobs or 0
        self._with_logprobs = LOGPROBS in (body.include or ())
        self._number = -1

    def named(self, name: str, /, **fields: Any) -> bytes:
        """An event, numbered."""
        self._number += 1
        return event({"type": f"response.{name}", "sequence_number": self._number, **fields}, f"response.{name}")

    def take(self, piece: Event) -> Iterator[bytes]:
        """Take in what has come."""
        self.choice.add(piece)
        if isinstance(piece, End):
            if not any(item.kind != "thinking" for item in self._items):
                yield from self._open(Item("content", len(self._items)))  # an answer without text has an empty message
            yield from self._close()
            return
        last = self._items[-1] if self._items else None
        if last is None or last.kind != piece.kind or (last.call and piece.call and last.call.id != piece.call.id):
            yield from self._close()
            yield from self._open(Item(piece.kind, len(self._items), call=piece.call))
        yield from self._grow(self._items[-1], piece)

    def _open(self, item: Item) -> Iterator[bytes]:
        self._items.append(item)
        yield self.named("output_item.added", output_index=item.index, item=self._object(item, "in_progress"))
        if item.kind == "content":
            yield self.named("content_part.added", part=self._part(item), **self._at(item))

    def _grow(self, item: Item, piece: Delta) -> Iterator[bytes]:
        item.text += piece.text
        item.logprobs += piece.logprobs
        at = self._at(item)
        if item.kind == "thinking":
            yield self.named("reasoning_text.delta", delta=piece.text, **at)
        elif item.kind == "content":
            yield self.named("output_text.delta", delta=piece.text, logprobs=self._listed(piece.logprobs), **at)
        elif piece.text:
            yield self.named("function_call_arguments.delta", delta=piece.text, **at)

    def _close(self) -> Iterator[bytes]:
        """The events at the end of the last item."""
        if not self._items:
            return
        item = self._items[-1]
        at = self._at(item)
        if item.kind == "thinking":
            yield self.named("reasoning_text.done", text=item.text, **at)
        elif item.kind == "content":
            yield self.named("output_text.done", text=item.text, logprobs=self._listed(item.logprobs), **at)
            yield self.named("content_part.done", part=self._part(item), **at)
        else:
            yield self.named("function_call_arguments.done", arguments=item.text, name=self._name(item), **at)
        yield self.named("output_item.done", output_index=item.index, item=self._object(item, "completed"))

    @staticmethod
    def _at(item: Item) -> dict[str, Any]:
        where = {"output_index": item.index, "item_id": item.id}
        return where if item.kind == "call" else where | {"content_index": 0}

    @staticmethod
    def _name(item: Item) -> str:
        assert item.call is not None, "a call's item has no call"
        return item.call.name or ""

    def objects(self, status: str) -> list[dict[str, Any]]:
        """The items as the API has them; ``status``: of the last one."""
        return [self._object(item, status if item is self._items[-1] else "completed") for item in self._items]

    def _object(self, item: Item, status: str) -> dict[str, Any]:
        is_new = status == "in_progress"
        if item.kind == "thinking":
            content = [] if is_new else [{"type": "reasoning_text", "text": item.text}]
            return {"id": item.id, "type": "reasoning", "summary": [], "content": content, "status": status}
        if item.kind == "content":
            return {"id": item.id, "type": "message", "role": "assistant", "status": status,
                    "content": [] if is_new else [self._part(item)]}
        assert item.call is not None, "a call's item has no call"
        return {"id": item.id, "type": "function_call", "call_id": item.call.id, "name": self._name(item),
                "arguments": "" if is_new else item.text, "status": status}

    def _part(self, item: Item) -> dict[str, Any]:
        return {"type": "output_text", "text": item.text, "annotations": [], "logprobs": self._listed(item.logprobs)}

    def _listed(self, tokens: list[TokenLogprob]) -> list[Any]:
        """Log-probabilities, if they were asked for."""
        if not self._with_logprobs:
            return []
        return [token_logprob(token, self._answer.model.tokenizer, self._n_top)
                for token in tokens if token.kind == "content"]

    def said(self) -> dict[str, Any]:
        """The answer as a message of the conversation."""
        choice = self.choice
        message: dict[str, Any] = {"role": "assistant", "content": choice.text}
        if choice.thinking:
            message["reasoning_content"] = choice.thinking
        if choice.calls:
            message["tool_calls"] = [{"id": call.id, "type": "function", "function": {
                "name": call.name, "arguments": call.arguments}} for call in choice.calls]
        return message


class Maker:
    """Makes the objects of one response, from its request and its answer."""

    def __init__(self, body: ResponseRequest, id: str, created: int) -> None:
        self._body, self.id, self._created = body, id, created

    def response(self, status: str, output: list[dict[str, Any]] | None = None, end: End | None = None,
                 failure: Failure | None = None) -> dict[str, Any]:
        """The response object."""
        body = self._body
        error = {"code": "server_error", "message": failure.message} if failure else None
        choice = body.tool_choice or "auto"
        return {
            "id": self.id, "object": "response", "created_at": self._created, "status": status, "model": body.model,
            "output": output or [], "error": error, "background": bool(body.background),
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions, "max_output_tokens": body.max_output_tokens,
            "max_tool_calls": body.max_tool_calls, "metadata": body.metadata or {},
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [tool.model_dump() for tool in body.tools or ()],
            "previous_response_id": body.previous_response_id, "temperature": body.temperature, "top_p": body.top_p,
            "top_logprobs": body.top_logprobs or 0, **body.model_dump(
                include={"user", "safety_identifier", "prompt_cache_key"}, exclude_none=True),
            "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
            "text": {"format": (body.text and body.text.format) or {"type": "text"}}, "truncation": "disabled",
            "service_tier": "default", "store": body.store is not False, **({"usage": _usage(end)} if end else {}),
        }

    def finished(self, output: Output) -> dict[str, Any]:
        """The response object when its answer is complete."""
        end = output.choice.end
        assert end is not None, "a whole answer has no end"
        status = "incomplete" if end.reason == "length" else "completed"
        return self.response(status, output.objects(status), end)


def _usage(end: End) -> dict[str, Any]:
    usage = end.usage
    return {"input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens}


def error_event(failure: Failure) -> bytes:
    """A failure that comes in place of a response's own events."""
    error = error_body(failure)["error"]
    return event({"type": "error", "sequence_number": 0, "code": error["code"], "message": error["message"],
                  "param": error["param"]}, "error")
