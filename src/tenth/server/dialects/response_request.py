"""The body of POST /v1/responses: its fields, and the conversation that its input means. See openai_responses.py."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from tenth.sampling import MAX_TOP_LOGPROBS
from tenth.server.asking import Ask, Thinking, asked_tools
from tenth.server.body import MOST_TOKENS, TEXT_ONLY, Body, SamplingBody, effort
from tenth.server.dialects.openai_chat_request import FunctionDefinition
from tenth.server.failures import Refused
from tenth.server.responses import Message
from tenth.text.messages import MAX_MESSAGES
from tenth.text.tools.request import MAX_TOOLS

LOGPROBS = "message.output_text.logprobs"
NO_PROGRAM = "calls are made by the model only"
Status = Literal["in_progress", "completed", "incomplete"] | None


class Part(Body):
    """A part of an item's content."""

    type: Literal["input_text", "output_text", "text", "refusal", "reasoning_text", "summary_text"]
    text: str | None = None
    refusal: str | None = None
    annotations: list[dict[str, Any]] | None = Field(default=None, max_length=0, description="Accepted: none.")
    logprobs: list[dict[str, Any]] | None = Field(default=None, description="Accepted, as an earlier answer had them.")
    unsupported: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("image_url", "file_id", "file_data", "input_audio", "file_url", "detail", "filename"),
                        TEXT_ONLY),
        "prompt_cache_breakpoint": "equal beginnings are always found",
    }


def text_of(parts: str | list[Part]) -> str:
    """All text of a content."""
    return parts if isinstance(parts, str) else "".join(part.text or part.refusal or "" for part in parts)


class MessageItem(Body):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    id: str | None = Field(default=None, max_length=128, description="Accepted, as an earlier answer had it.")
    status: Status = Field(default=None, description="Accepted, as an earlier answer had it.")
    phase: Literal["commentary", "final_answer"] | None = Field(default=None, description=(
        "Accepted; templates know no phases."))


class ReasoningItem(Body):
    """The reasoning of an earlier answer."""

    type: Literal["reasoning"]
    content: list[Part] | None = None
    summary: list[Part] | None = None
    id: str | None = Field(default=None, max_length=128, description="Accepted, as an earlier answer had it.")
    status: Status = Field(default=None, description="Accepted, as an earlier answer had it.")
    unsupported: ClassVar[dict[str, str]] = {"encrypted_content": "nothing is encrypted here"}


class CallItem(Body):
    """A call of an earlier answer."""

    type: Literal["function_call"]
    call_id: str = Field(max_length=256)
    name: str = Field(max_length=256)
    arguments: str
    id: str | None = Field(default=None, max_length=128, description="Accepted, as an earlier answer had it.")
    status: Status = Field(default=None, description="Accepted, as an earlier answer had it.")
    unsupported: ClassVar[dict[str, str]] = {
        "caller": NO_PROGRAM, "namespace": "tools have no namespaces", "async": "calls are answered in order"}
    harmless: ClassVar[dict[str, Any]] = {"caller": {"type": "direct"}, "async": False}


class ResultItem(Body):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: str = Field(max_length=256)
    output: str | list[Part]
    name: str | None = Field(default=None, max_length=256)
    id: str | None = Field(default=None, max_length=128, description="Accepted, as an earlier answer had it.")
    status: Status = Field(default=None, description="Accepted, as an earlier answer had it.")
    unsupported: ClassVar[dict[str, str]] = {"caller": NO_PROGRAM, "namespace": "tools have no namespaces"}
    harmless: ClassVar[dict[str, Any]] = {"caller": {"type": "direct"}}


def _kind(item: Any) -> str:
    """Which class an item is of; what has neither a type nor more than an id is the official API's item_reference."""
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    if kind is None:
        return "item_reference" if isinstance(item, dict) and set(item) <= {"id", "type"} else "message"
    return kind if isinstance(kind, str) else repr(kind)


Item = Annotated[
    Annotated[MessageItem, Tag("message")] | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[CallItem, Tag("function_call")] | Annotated[ResultItem, Tag("function_call_output")],
    Discriminator(_kind),
]


class ReasoningOption(Body):
    """How much to think."""

    effort: str | None = effort()
    unsupported: ClassVar[dict[str, str]] = {
        "summary": "reasoning comes as it is", "generate_summary": "reasoning comes as it is",
        "context": "give the reasoning items that are wanted", "mode": "there is one mode",
    }
    harmless: ClassVar[dict[str, Any]] = {"summary": "auto", "generate_summary": "auto", "context": "auto",
                                          "mode": "standard"}


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


class FunctionTool(FunctionDefinition):
    """A function that the model may call."""

    type: Literal["function"]
    unsupported: ClassVar[dict[str, str]] = {
        "allowed_callers": NO_PROGRAM, "defer_loading": "there is no search for tools", "async": "calls are answered "
        "in order", "output_schema": "results are passed on as they are",
    }
    harmless: ClassVar[dict[str, Any]] = {"allowed_callers": ["direct"], "defer_loading": False, "async": False}

    def as_chat(self) -> dict[str, Any]:
        """The tool as chat completions write it: its fields lie one level deeper there."""
        return {"type": "function", "function": self.model_dump(exclude={"type"}, exclude_none=True)}


class NamedTool(Body):
    """One of the tools."""

    type: Literal["function"]
    name: str = Field(max_length=256)

    def as_chat(self) -> dict[str, Any]:
        """The same in chat completions."""
        return {"type": "function", "function": {"name": self.name}}


class AllowedTools(Body):
    """Some of the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=MAX_TOOLS)

    def as_chat(self) -> dict[str, Any]:
        """The same in chat completions."""
        return {"type": "allowed_tools", "allowed_tools": {
            "mode": self.mode, "tools": [tool.as_chat() for tool in self.tools]}}


class ResponseRequest(SamplingBody):
    """The body of a response."""

    model: str = Field(max_length=512)
    input: str | list[Item] = Field(description="A text, or messages, reasoning, calls and their results.")
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
    tools: list[FunctionTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["auto", "none", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = Field(default=None, ge=1, le=MOST_TOKENS, description=(
        "Accepted: it bounds the calls of tools that a server runs, and this one runs none."))
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = Field(
        default=None, description="Of reasoning.encrypted_content the purpose: reasoning comes, and goes back in, as "
        "it is.")
    truncation: Literal["disabled"] | None = Field(default=None, description=(
        "Accepted: what is too long is refused."))
    user: str | None = Field(default=None, max_length=512, description="Accepted; this server keeps no users.")
    safety_identifier: str | None = Field(default=None, max_length=512, description="Accepted; nothing is reported.")
    prompt_cache_key: str | None = Field(default=None, max_length=512, description=(
        "Accepted; equal beginnings are always found."))
    service_tier: Literal["auto", "default"] | None = Field(default=None, description="Accepted: there is one tier.")
    unsupported: ClassVar[dict[str, str]] = {
        "conversation": "use previous_response_id", "context_management": "conversations are not cut",
        "prompt": "there are no stored prompts", "moderation": "this server judges no text", "image": TEXT_ONLY,
        "access_programs": "there are none", "background_options": "there are none", "stream_options": "there are none",
        "prompt_cache_options": "equal beginnings are always found",
        "prompt_cache_retention": "prefixes are kept while there is room",
    }
    harmless: ClassVar[dict[str, Any]] = {
        "prompt_cache_retention": "in_memory", "stream_options": {"include_obfuscation": False},
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
            if isinstance(item, ReasoningItem):
                reasoning += text_of([*(item.content or []), *(item.summary or [])])
            elif isinstance(item, CallItem):
                _said(messages, reasoning).setdefault("tool_calls", []).append({
                    "id": item.call_id, "type": "function", "function": {"name": item.name,
                                                                         "arguments": item.arguments}})
                reasoning = ""
            elif isinstance(item, ResultItem):
                name = {"name": item.name} if item.name is not None else {}
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": text_of(item.output), **name})
            else:
                role = "system" if item.role == "developer" else item.role
                thought = {"reasoning_content": reasoning} if reasoning and role == "assistant" else {}
                messages.append({"role": role, "content": text_of(item.content), **thought})
                reasoning = ""
        if not messages:
            raise Refused(400, "input has reasoning only, expected a message", param="input")
        return messages

    def chat_tools(self) -> list[dict[str, Any]] | None:
        """The tools as chat completions write them."""
        return [tool.as_chat() for tool in self.tools] if self.tools else None

    def ask(self, before: list[Message]) -> Ask:
        """What it asks for, behind the messages of the responses before."""
        first = [{"role": "system", "content": self.instructions}] if self.instructions else []
        settings = self.sampling() | {"max_tokens": self.max_output_tokens, "top_logprobs": self.top_logprobs or 0}
        thinking = Thinking(None, self.thinking_budget, self.reasoning.effort if self.reasoning else None)
        choice = self.tool_choice if isinstance(self.tool_choice, str | None) else self.tool_choice.as_chat()
        return Ask(self.model, [*first, *before, *self.turn()], settings=settings, thinking=thinking,
                   response_format=self.text.response_format() if self.text else None,
                   tools=asked_tools(self.chat_tools(), choice, self.parallel_tool_calls))

    def check(self) -> None:
        """Refuses fields that contradict each other."""
        if self.background and (self.stream or self.store is False):
            raise Refused(400, "a background response is stored and not streamed", param="background")
        if self.top_logprobs and LOGPROBS not in (self.include or ()):
            raise Refused(400, f"top_logprobs needs include to have {LOGPROBS}", param="top_logprobs")


def _said(messages: list[Message], reasoning: str) -> Message:
    """The assistant's message that a call belongs to: the last one, or a new one."""
    if not messages or messages[-1]["role"] != "assistant" or reasoning:
        thought = {"reasoning_content": reasoning} if reasoning else {}
        messages.append({"role": "assistant", "content": "", **thought})
    return messages[-1]
