"""What OpenAI's chat completions take, and what they ask for.

Every field of the official request is honoured or refused by name (``unsupported``). Extensions: top_k, min_p,
repetition_penalty, ignore_eos, ``thinking`` (as Anthropic, DeepSeek and GLM spell it), ``thinking_budget`` (tokens) and
``chat_template_kwargs`` with the switches of thinking only.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from tenth.sampling import MAX_TOP_LOGPROBS
from tenth.server.asking import MAX_CHOICES, Ask, Thinking, asked_tools
from tenth.server.body import MOST_TOKENS, TEXT_ONLY, Body, SamplingBody, effort
from tenth.server.failures import Refused
from tenth.text.messages import MAX_MESSAGES
from tenth.text.tools.request import MAX_TOOLS


class Part(Body):
    """A part of a message's content."""

    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None
    unsupported: ClassVar[dict[str, str]] = {"image_url": TEXT_ONLY, "input_audio": TEXT_ONLY, "file": TEXT_ONLY}

    def plain(self) -> str:
        """Its text."""
        text = self.text if self.type == "text" else self.refusal
        if text is None:
            raise Refused(400, f"a part of type {self.type} has no {self.type}", param="messages")
        return text


class CalledFunction(Body):
    """What a call of an earlier answer was."""

    name: str = Field(max_length=256)
    arguments: str


class Call(Body):
    """A call of an earlier answer."""

    id: str = Field(max_length=256)
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None
    unsupported: ClassVar[dict[str, str]] = {"custom": "calls are of functions"}


class Message(Body):
    """A message. The thinking of an earlier answer may come back under any of its three names."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = Field(default=None, max_length=256)
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    tool_calls: list[Call] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_call_id: str | None = Field(default=None, max_length=256)
    unsupported: ClassVar[dict[str, str]] = {
        "audio": TEXT_ONLY, "function_call": "use tool_calls", "annotations": "there is no search",
        "prompt_cache_breakpoint": "prefixes are found by themselves",
    }
    harmless: ClassVar[dict[str, Any]] = {"annotations": []}

    def plain(self) -> dict[str, Any]:
        """The message as templates know it."""
        content = self.content if not isinstance(self.content, list) else "".join(p.plain() for p in self.content)
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self.refusal or "" if content is None else content}
        thinking = self.reasoning_content or self.reasoning or self.thinking
        if thinking:
            message["reasoning_content"] = thinking
        if self.name is not None:
            message["name"] = self.name
        if self.tool_calls:
            message["tool_calls"] = [call.model_dump(exclude={"index"}) for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


class StreamOptions(Body):
    """What a stream tells beside the text."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class ThinkingOption(Body):
    """Thinking as other servers spell it."""

    type: Literal["enabled", "disabled"]
    budget_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)


class FunctionDefinition(Body):
    """A function that the model may call. ``strict``: its arguments are kept to the schema by a grammar."""

    name: str = Field(max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="A JSON schema.")
    strict: bool | None = None


class Tool(Body):
    """A tool: a function."""

    type: Literal["function"]
    function: FunctionDefinition
    unsupported: ClassVar[dict[str, str]] = {"custom": "tools are functions"}


class NamedFunction(Body):
    """The name of a function."""

    name: str = Field(max_length=256)


class NamedTool(Body):
    """One of the tools."""

    type: Literal["function"]
    function: NamedFunction
    unsupported: ClassVar[dict[str, str]] = {"custom": "tools are functions"}


class AllowedNames(Body):
    """Some of the tools, and whether one of them has to be called."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=MAX_TOOLS)


class AllowedTools(Body):
    """The choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedNames


class TemplateSwitches(Body):
    """Variables of chat templates that a request may set."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


class ChatRequest(SamplingBody):
    """The body of a chat completion."""

    model: str = Field(max_length=512)
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    reasoning_effort: str | None = effort()
    response_format: dict[str, Any] | None = Field(default=None, description=(
        "Of type text, json_object, json_schema, and here also regex and lark."))
    thinking_budget: int | None = Field(default=None, ge=0, le=MOST_TOKENS)
    thinking: ThinkingOption | None = None
    chat_template_kwargs: TemplateSwitches | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["auto", "none", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = Field(default=None, max_length=1, description="Accepted: text is all.")
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    user: str | None = Field(default=None, max_length=512, description="Accepted; this server keeps no users.")
    safety_identifier: str | None = Field(default=None, max_length=512, description="Accepted; nothing is reported.")
    prompt_cache_key: str | None = Field(default=None, max_length=512, description=(
        "Accepted; equal beginnings are always found."))
    service_tier: Literal["auto", "default"] | None = Field(default=None, description="Accepted: there is one tier.")
    store: Literal[False] | None = None
    unsupported: ClassVar[dict[str, str]] = {
        "audio": TEXT_ONLY, "moderation": "this server judges no text", "prediction": "guesses are made by themselves",
        "web_search_options": "this server searches nothing", "verbosity": "ask for it in the prompt",
        "prompt_cache_options": "equal beginnings are always found", "prompt_cache_retention": "prefixes are kept "
        "while there is room", "functions": "use tools", "function_call": "use tool_choice",
    }
    harmless: ClassVar[dict[str, Any]] = {
        "verbosity": "medium", "prompt_cache_retention": "in_memory", "functions": [], "function_call": "none",
    }

    def ask(self) -> Ask:
        """What it asks for. Refuses fields that contradict each other."""
        if self.max_tokens is not None and self.max_completion_tokens is not None and (
                self.max_tokens != self.max_completion_tokens):
            raise Refused(400, "max_tokens and max_completion_tokens differ", param="max_tokens")
        if self.top_logprobs and not self.logprobs:
            raise Refused(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
        if self.stream_options is not None and not self.stream:
            raise Refused(400, "stream_options needs stream to be true", param="stream_options")
        settings = self.sampling() | {"max_tokens": self.max_completion_tokens or self.max_tokens,
                                      "top_logprobs": self.top_logprobs or 0}
        wanted, budget = self._thinking()
        tools = [tool.model_dump(exclude_none=True) for tool in self.tools] if self.tools else None
        choice = self.tool_choice if isinstance(self.tool_choice, str | None) else self.tool_choice.model_dump()
        return Ask(self.model, [message.plain() for message in self.messages], settings=settings, n=self.n or 1,
                   thinking=Thinking(wanted, budget, self.reasoning_effort), response_format=self.response_format,
                   tools=asked_tools(tools, choice, self.parallel_tool_calls))

    def _thinking(self) -> tuple[bool | None, int | None]:
        """Whether to think and how much, from fields that may say it twice but not differently."""
        kwargs, option = self.chat_template_kwargs or TemplateSwitches(), self.thinking
        says = [kwargs.enable_thinking, kwargs.thinking, option.type == "enabled" if option else None]
        budgets = [self.thinking_budget, option.budget_tokens if option else None]
        wanted, budget = {x for x in says if x is not None}, {x for x in budgets if x is not None}
        if len(wanted) > 1 or len(budget) > 1:
            raise Refused(400, "the fields about thinking contradict each other", param="thinking")
        return next(iter(wanted), None), next(iter(budget), None)
