"""What Ollama's chat and generate take, and what it asks for. Field names: the ollama package's types, 0.6.3.

Options that set up an engine (num_gpu, num_thread, …) belong to the command line here and are refused.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from tenth.sampling import MAX_TOP_LOGPROBS
from tenth.server.asking import Ask, Thinking
from tenth.server.body import MOST_TOKENS, TEXT_ONLY, Body, SamplingBody, number
from tenth.server.dialects.ollama_lifetime import keep_alive
from tenth.server.failures import Refused
from tenth.server.streams import dumps
from tenth.text.messages import MAX_MESSAGES
from tenth.text.tools.request import MAX_TOOLS

AT_START = "it is a setting of tenth serve"


class Options(SamplingBody):
    """Sampling options, under Ollama's names; null and the values of ``harmless`` count as not given."""

    num_predict: int | None = Field(default=None, ge=-2, le=MOST_TOKENS, description="-1 and -2: without a bound.")
    repeat_penalty: float | None = number("repetition_penalty")
    num_ctx: int | None = Field(default=None, ge=1, le=MOST_TOKENS, description=(
        "Refused when it is more than the model was opened with; a context is not made smaller."))
    num_keep: int | None = Field(default=None, ge=-1, le=MOST_TOKENS, description=(
        "Accepted: a conversation that is too long is refused, not cut, so everything is kept."))
    unsupported: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("numa", "num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv", "logits_all",
                         "vocab_only", "use_mmap", "use_mlock", "embedding_only", "num_thread"), AT_START),
        "tfs_z": "use top_p or min_p", "typical_p": "use top_p or min_p", "mirostat": "use temperature and top_p",
        "mirostat_tau": "use temperature and top_p", "mirostat_eta": "use temperature and top_p",
        "repeat_last_n": "penalties look at everything", "penalize_newline": "use logit_bias",
    }
    harmless: ClassVar[dict[str, Any]] = {"tfs_z": 1.0, "typical_p": 1.0, "mirostat": 0, "penalize_newline": True,
                                          "repeat_last_n": -1}

    def settings(self) -> dict[str, Any]:
        """As SamplingParams takes them."""
        given = self.sampling()
        if self.repeat_penalty is not None:
            given["repetition_penalty"] = self.repeat_penalty
        if self.num_predict is not None and self.num_predict > 0:
            given["max_tokens"] = self.num_predict
        return given


class AskRequest(Body):
    """What chat and generate share."""

    model: str = Field(min_length=1, max_length=512)
    stream: bool | None = None
    options: Options | None = None
    think: bool | Literal["low", "medium", "high", "max"] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    keep_alive: float | str | None = keep_alive()
    format: Literal["", "json"] | dict[str, Any] | None = None

    def thinking(self) -> Thinking:
        """Yes, no, or an effort."""
        if self.think is None or isinstance(self.think, bool):
            return Thinking(self.think)
        return Thinking(effort=self.think)

    def response_format(self) -> dict[str, Any] | None:
        """The format as OpenAI writes it."""
        if not self.format:
            return None
        if self.format == "json":
            return {"type": "json_object"}
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": self.format}}

    def context_tokens(self) -> int | None:
        """The least context that is asked for."""
        return self.options.num_ctx if self.options else None

    def settings(self) -> dict[str, Any]:
        """As SamplingParams takes them."""
        if self.options is not None and self.options.num_predict == 0:
            raise Refused(400, "num_predict is 0, expected -2, -1 or at least 1", param="num_predict")
        given = self.options.settings() if self.options else {}
        return given | {"top_logprobs": self.top_logprobs or 0}


class CalledFunction(Body):
    """What a call of an earlier answer was."""

    name: str = Field(max_length=256)
    arguments: dict[str, Any]
    index: int | None = None


class Call(Body):
    """A call of an earlier answer."""

    function: CalledFunction
    id: str | None = Field(default=None, max_length=256)
    type: Literal["function"] | None = None

    def as_openai(self) -> dict[str, Any]:
        """The call as OpenAI writes it."""
        return {"id": self.id or "", "type": "function", "function": {
            "name": self.function.name, "arguments": dumps(self.function.arguments)}}


class Message(Body):
    """A message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Call] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_name: str | None = Field(default=None, max_length=256)
    unsupported: ClassVar[dict[str, str]] = {"images": TEXT_ONLY}
    harmless: ClassVar[dict[str, Any]] = {"images": []}

    def plain(self) -> dict[str, Any]:
        """The message as templates know it."""
        message: dict[str, Any] = {"role": self.role, "content": self.content or ""}
        if self.thinking:
            message["reasoning_content"] = self.thinking
        if self.tool_calls:
            message["tool_calls"] = [call.as_openai() for call in self.tool_calls]
        return message | ({"name": self.tool_name} if self.tool_name else {})


class ChatRequest(AskRequest):
    """The body of a chat."""

    messages: list[Message] | None = Field(default=None, max_length=MAX_MESSAGES, description=(
        "Without any the model is only opened."))
    tools: list[dict[str, Any]] | None = Field(default=None, max_length=MAX_TOOLS)


class GenerateRequest(AskRequest):
    """The body of generate. ``raw``: without the model's template."""

    prompt: str | None = Field(default=None, description="Without it the model is only opened.")
    system: str | None = None
    raw: bool | None = None
    unsupported: ClassVar[dict[str, str]] = {
        "suffix": "text cannot be filled in between", "images": TEXT_ONLY,
        "template": "templates come with the model", "context": "send the conversation to /api/chat",
        **dict.fromkeys(("width", "height", "steps"), TEXT_ONLY),
    }
    harmless: ClassVar[dict[str, Any]] = {"suffix": "", "images": [], "template": "", "context": []}

    def ask(self, model: str) -> Ask | None:
        """What it asks for: nothing without a prompt."""
        if not self.prompt:
            return None
        if self.raw:
            if self.system or self.think is not None:
                raise Refused(400, "raw cannot be had with system or think", param="raw")
            return Ask(model, prompt=self.prompt, settings=self.settings(), context=self.context_tokens(),
                       response_format=self.response_format())
        system = [{"role": "system", "content": self.system}] if self.system else []
        return Ask(model, [*system, {"role": "user", "content": self.prompt}], settings=self.settings(),
                   context=self.context_tokens(), thinking=self.thinking(), response_format=self.response_format())
