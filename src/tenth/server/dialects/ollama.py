"""Ollama's API: POST /api/chat, /api/generate, /api/show, /api/pull; GET /api/tags, /api/ps, /api/version.

Field names: the ollama package's types, 0.6.3. Answers stream as JSON lines unless ``stream`` is false. Options that
set up an engine (num_gpu, num_thread, …) belong to the command line here and are refused. A pull downloads models of
tenth's catalogue only: no request names an address.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

import tenth
from tenth.errors import TenthError
from tenth.library import CATALOGUE, list_models, pull
from tenth.sampling import MAX_TOP_LOGPROBS
from tenth.server import replies
from tenth.server.answers import Choice, Delta, End
from tenth.server.asking import Ask, Thinking
from tenth.server.body import Body, JsonRoute, SamplingBody, number
from tenth.server.dialects import ollama_lifetime
from tenth.server.dialects.ollama_lifetime import keep_alive
from tenth.server.dialects.openai import token_logprob
from tenth.server.dialects.openai_chat import MOST_TOKENS, TEXT_ONLY, asked_tools, get_service
from tenth.server.failures import Failure, Refused
from tenth.server.service import Answer, ends
from tenth.server.shelf import Served
from tenth.server.streams import LINES, StreamResponse, Wire, dumps, nothing, stream, whole
from tenth.stream import ToolCall
from tenth.text.messages import MAX_MESSAGES
from tenth.text.tools.request import MAX_TOOLS

router = APIRouter(route_class=JsonRoute, tags=["Ollama"])

CAPABILITIES = {"generate": ["completion"], "embed": ["embedding"], "rerank": ["rerank"]}  # by Model.task
AT_START = "it is a setting of tenth serve"


def error_body(failure: Failure) -> dict[str, Any]:
    """A failure as Ollama tells it."""
    return {"error": failure.message}


def line(value: dict[str, Any]) -> bytes:
    """A line of a stream."""
    return (dumps(value) + "\n").encode()


def error_line(failure: Failure) -> bytes:
    """A failure after the first line of a stream."""
    return line(error_body(failure))


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
    return {"model": body.model, "created_at": _iso(time.time())}


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


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def _details(served: Served) -> dict[str, Any]:
    about = served.model.description if served.model is not None else {}
    formats = list(about.get("formats", {}))
    n_parameters = about.get("parameters")
    return {"parent_model": "", "format": "gguf", "family": about.get("architecture", ""),
            "families": [about["architecture"]] if about else [],
            "parameter_size": f"{n_parameters / 1e6:.0f}M" if n_parameters else "",
            "quantization_level": formats[0] if formats else ""}


def _row(served: Served, file_bytes: int = 0) -> dict[str, Any]:
    size = served.model.memory().get("weights_bytes", 0) if served.model is not None else file_bytes
    return {"name": served.name, "model": served.name, "size": size, "digest": "", "details": _details(served)}


@router.get("/api/tags", responses=replies.of(replies.OllamaModels))
async def tags(request: Request) -> dict[str, Any]:
    """The models that requests may name."""
    here = {entry.name: entry.size_bytes for entry in await asyncio.to_thread(list_models)}
    return {"models": [_row(served, here.get(served.source, 0)) | {"modified_at": _iso(served.opened_at)}
                       for served in get_service(request).shelf.listed()]}


@router.get("/api/ps", responses=replies.of(replies.OllamaModels))
async def ps(request: Request) -> dict[str, Any]:
    """The models that are open."""
    models = [served for served in get_service(request).shelf.models.values() if served.model is not None]
    return {"models": [_row(served) | {"size_vram": 0, "context_length": served.model.description["context_tokens"]}
                       for served in models if served.model is not None]}


@router.get("/api/version")
async def version() -> dict[str, str]:
    """The version of tenth."""
    return {"version": tenth.__version__}


class NameRequest(Body):
    """A model's name. ``name`` is the older spelling."""

    model: str | None = Field(default=None, max_length=512)
    name: str | None = Field(default=None, max_length=512)

    def given(self) -> str:
        """Whichever was given."""
        found = self.model or self.name
        if self.name not in (None, found):
            raise Refused(400, "model and name differ", param="name")
        if not found:
            raise Refused(400, "the model has to be named", param="model")
        return found


class ShowRequest(NameRequest):
    """The body of show."""

    verbose: bool | None = Field(default=None, description="Accepted: all that is known is told.")
    unsupported: ClassVar[dict[str, str]] = {"system": "it comes with a request", "template": "it comes with the model",
                                             "options": "they come with a request"}


@router.post("/api/show")
async def show(body: ShowRequest, request: Request) -> dict[str, Any]:
    """Facts about a model, which is opened for it."""
    shelf = get_service(request).shelf
    async with shelf.borrow(named(request, body.given())) as borrowed:
        about = borrowed.model.description
        return {"details": _details(shelf.models[borrowed.name]), "capabilities": CAPABILITIES[borrowed.model.task],
                "model_info": {"general.architecture": about["architecture"],
                               "general.parameter_count": about["parameters"],
                               f"{about['architecture']}.context_length": about["context_tokens"]},
                "modified_at": _iso(shelf.models[borrowed.name].opened_at)}


class PullRequest(NameRequest):
    """The body of pull."""

    stream: bool | None = None
    insecure: Literal[False] | None = None


@router.post("/api/pull", response_model=None)
async def pull_model(body: PullRequest) -> Response:
    """Download a model of tenth's catalogue. It is served when tenth serve is started with its name."""
    name = body.given().removesuffix(":latest")
    if name not in CATALOGUE:
        raise Refused(404, f"there is no model {name!r} in the catalogue", f"there are: {', '.join(CATALOGUE)}",
                      param="model")
    if body.stream is not False:
        return StreamResponse(_pulling(name), error_line, nothing, LINES)
    async for _ in _pulling(name):
        pass
    return JSONResponse({"status": "success"})


async def _pulling(name: str) -> Wire:
    """Lines of progress, at most ten a second. The download ends with the request."""
    progress: dict[str, int] = {}
    is_left = False

    def note(what: str, done: int, total: int) -> None:
        if is_left:
            raise Refused(499, "the client went away")
        progress.update(completed=done, total=total)

    task = asyncio.create_task(asyncio.to_thread(pull, name, progress=note))
    told: dict[str, int] = {}
    try:
        yield line({"status": f"pulling {name}"})
        while not task.done():
            await asyncio.wait({task}, timeout=0.1)
            if progress != told:
                told = dict(progress)
                yield line({"status": f"pulling {name}", **told})
        try:
            await task
        except TenthError as error:  # its message may name files
            raise Refused(503, f"the model {name!r} could not be pulled", "the server's log says why") from error
        yield line({"status": "success"})
    finally:
        is_left = True
