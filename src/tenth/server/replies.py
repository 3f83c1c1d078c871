"""What the routes answer, for the OpenAPI document and /docs: nothing is made or checked by these classes.

Fields that an answer may lack have a default. Tests hold real answers against the document.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

Reason = Literal["stop", "length", "tool_calls"] | None


class Timings(BaseModel):
    """How long it took: seconds, tokens per second."""

    load_s: float
    first_token_s: float | None
    prompt_tokens_per_second: float | None
    generated_tokens_per_second: float | None


class Usage(BaseModel):
    """Tokens of all choices; the prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


class Function(BaseModel):
    """A call: JSON as the model wrote it."""

    name: str
    arguments: str


class Call(BaseModel):
    """A call of a function."""

    id: str
    type: Literal["function"]
    function: Function


class ChatMessage(BaseModel):
    """An answer's text, calls and thinking; the thinking under both its names."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[Call] = []
    reasoning_content: str = ""
    reasoning: str = ""


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    finish_reason: Reason
    logprobs: dict[str, Any] | None


class ChatCompletion(BaseModel):
    """An answer to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    service_tier: Literal["default"]
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings
    metadata: dict[str, str] = {}


class TextChoice(BaseModel):
    """One answer."""

    index: int
    text: str
    finish_reason: Reason
    logprobs: dict[str, Any] | None


class Completion(BaseModel):
    """What goes on from a text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    timings: Timings


class Output(BaseModel):
    """An item of a response: reasoning, a message or a call."""

    id: str
    type: Literal["reasoning", "message", "function_call", "function_call_output"]
    status: Literal["in_progress", "completed", "incomplete"]


class Response(BaseModel):
    """A response, stored or not."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    model: str
    output: list[Output]
    error: dict[str, str] | None
    previous_response_id: str | None
    usage: dict[str, Any] = {}


class Deleted(BaseModel):
    """It is gone."""

    id: str
    object: str
    deleted: Literal[True]


class StoredFile(BaseModel):
    """What is known of a file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]


class Counts(BaseModel):
    """How far a batch is."""

    total: int
    completed: int
    failed: int


class StoredBatch(BaseModel):
    """A batch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    input_file_id: str
    status: Literal["in_progress", "completed", "failed", "cancelled"]
    created_at: int
    request_counts: Counts
    output_file_id: str = ""
    error_file_id: str = ""


class Page(BaseModel):
    """A part of a list."""

    object: Literal["list"]
    has_more: bool
    first_id: str
    last_id: str


class Files(Page):
    """Files."""

    data: list[StoredFile]


class StoredBatches(Page):
    """Batches."""

    data: list[StoredBatch]


class Items(Page):
    """Items of an input."""

    data: list[Output]


class ModelRow(BaseModel):
    """A model; ``meta``: facts about it, once it is open."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["tenth"]
    loaded: bool
    meta: dict[str, Any] = {}


class ModelRows(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[ModelRow]


class AnthropicMessage(BaseModel):
    """An answer in blocks: thinking, text, calls."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: dict[str, int]


class OllamaAnswer(BaseModel):
    """An answer with its figures; times in nanoseconds. /api/chat has a ``message``, /api/generate a ``response``."""

    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "load", "unload"]
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    total_duration: int | None = Field(default=None, ge=0)


class OllamaModel(BaseModel):
    """A model."""

    name: str
    model: str
    size: int
    digest: str
    details: dict[str, Any]


class OllamaModels(BaseModel):
    """Models."""

    models: list[OllamaModel]


class OpenAIError(BaseModel):
    """What is wrong, as OpenAI's API tells it."""

    message: str
    type: str
    param: str | None
    code: str | None
    values: dict[str, str | int | float] | None = None  # of /api: what the code's text names


class Failed(BaseModel):
    """A failure. Paths of Anthropic's and Ollama's APIs have their own forms."""

    error: OpenAIError | str | dict[str, str]


def of(model: type[BaseModel], *streams: str) -> dict[int | str, dict[str, Any]]:
    """For a route's ``responses``: the whole answer, and the media types of the streams it may be instead."""
    content: dict[str, Any] = {media_type: {} for media_type in streams}
    return {200: {"model": model, "content": content, "description": "The answer."}}
