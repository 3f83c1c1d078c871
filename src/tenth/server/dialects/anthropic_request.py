"""What Anthropic's messages take, and what they ask for. Field names: the anthropic package's types, 2.12.

``temperature``, ``top_p`` and ``top_k`` are taken as ours.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from tenth.sampling import MAX_STOP_STRINGS
from tenth.server.asking import Ask, Thinking, asked_tools
from tenth.server.body import MOST_TOKENS, TEXT_ONLY, Body, count, effort, number
from tenth.server.failures import Refused
from tenth.server.streams import dumps
from tenth.text.messages import MAX_MESSAGES
from tenth.text.tools.request import MAX_TOOLS

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
