"""OpenAI's older completions: POST /v1/completions, text or token ids to go on from, without a template."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from tenth.sampling import MAX_TOP_LOGPROBS
from tenth.server import replies
from tenth.server.answers import Delta, End
from tenth.server.asking import MAX_CHOICES, Ask
from tenth.server.body import MOST_TOKENS, JsonRoute, SamplingBody
from tenth.server.dialects.openai import DONE, error_event, finite, timings, usage
from tenth.server.dialects.openai_chat_request import StreamOptions
from tenth.server.failures import Refused
from tenth.server.service import Answer, ends, get_service, new_id
from tenth.server.streams import EVENTS, Wire, event, stream, whole
from tenth.stream import TokenLogprob

router = APIRouter(route_class=JsonRoute, tags=["OpenAI"])

USUAL_TOKENS = 16  # the official default of max_tokens


class CompletionRequest(SamplingBody):
    """The body of a completion."""

    model: str = Field(max_length=512)
    prompt: str | list[str] | list[int] | list[list[int]] = Field(description=(
        f"Text, token ids, or a list of those; with n, at most {MAX_CHOICES} answers together."))
    max_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    best_of: int | None = Field(default=None, ge=1, le=MAX_CHOICES, description="Only when equal to n.")
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: dict[str, Any] | None = Field(default=None, description="As for chat completions; an extension.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, max_length=512, description="Accepted; this server keeps no users.")
    unsupported: ClassVar[dict[str, str]] = {"suffix": "text cannot be filled in between"}
    harmless: ClassVar[dict[str, Any]] = {"suffix": ""}

    def asks(self) -> list[Ask]:
        """What it asks for, one per prompt."""
        n = self.n or 1
        if self.best_of not in (None, n):
            raise Refused(400, "best_of is supported only when it equals n", param="best_of")
        if self.echo and self.logprobs is not None:
            raise Refused(400, "echo cannot be had with logprobs", param="echo")
        if self.stream_options is not None and not self.stream:
            raise Refused(400, "stream_options needs stream to be true", param="stream_options")
        settings = self.sampling() | {"max_tokens": self.max_tokens or USUAL_TOKENS,
                                      "top_logprobs": self.logprobs or 0}
        prompts = self.prompts()
        if not 1 <= len(prompts) * n <= MAX_CHOICES:
            raise Refused(400, f"{len(prompts)} prompts with n = {n}, expected 1 to {MAX_CHOICES} answers",
                          param="prompt")
        return [Ask(self.model, prompt=prompt, settings=settings, n=n, response_format=self.response_format)
                for prompt in prompts]

    def prompts(self) -> list[str | list[int]]:
        """The prompts, one by one."""
        if isinstance(self.prompt, str) or (self.prompt and isinstance(self.prompt[0], int)):
            one: Any = self.prompt
            return [one]
        return list(self.prompt)  # type: ignore[arg-type]


@router.post("/v1/completions", response_model=None, responses=replies.of(replies.Completion, EVENTS))
async def create(body: CompletionRequest, request: Request) -> Response:
    """Go on from a text."""
    answer = await get_service(request).ask(*body.asks(), owner=request.state.owner, id=new_id("cmpl-"))
    if body.stream:
        return await stream(request, answer, _wire(answer, body), error_event)
    return JSONResponse(await whole(request, answer, lambda answer: completion(answer, body)))


async def completion(answer: Answer, body: CompletionRequest) -> dict[str, Any]:
    """The whole answer as the API has it."""
    choices = await answer.whole()
    return {
        **_head(answer),
        "choices": [{"index": i, "text": _echoed(i, answer, body) + choice.text, "finish_reason": end.reason,
                     "logprobs": _logprobs(choice.logprobs, 0, answer, body)}
                    for i, (choice, end) in enumerate(zip(choices, ends(choices), strict=True))],
        "usage": usage(answer.n_prompt_tokens, ends(choices)),
        "timings": timings(ends(choices)[0]),
    }


def _head(answer: Answer) -> dict[str, Any]:
    kind: Literal["text_completion"] = "text_completion"
    return {"id": answer.id, "object": kind, "created": answer.created, "model": answer.name}


def _echoed(index: int, answer: Answer, body: CompletionRequest) -> str:
    return answer.model.detokenize(answer.prompts[index]) if body.echo else ""


def _logprobs(tokens: list[TokenLogprob], offset: int, answer: Answer, body: CompletionRequest) -> Any:
    """Four lists, as the official API has them; offsets count characters of the answer."""
    if body.logprobs is None:
        return None
    texts = [answer.model.tokenizer.token_bytes(token.token).decode(errors="replace") for token in tokens]
    offsets = [offset + sum(map(len, texts[:i])) for i in range(len(texts))]
    tops = [{answer.model.tokenizer.token_bytes(id).decode(errors="replace"): finite(logprob)
             for id, logprob in token.top[: body.logprobs]} for token in tokens]
    return {"tokens": texts, "token_logprobs": [finite(token.logprob) for token in tokens], "top_logprobs": tops,
            "text_offset": offsets}


async def _wire(answer: Answer, body: CompletionRequest) -> Wire:
    """A stream: the echo if it was asked for, text, the end of each choice, usage, [DONE]."""
    with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    head = _head(answer) | ({"usage": None} if with_usage else {})
    offsets = [0] * len(answer.prompts)

    def chunk(index: int, text: str, tokens: list[TokenLogprob], reason: str | None = None) -> bytes:
        logprobs = _logprobs(tokens, offsets[index], answer, body)
        offsets[index] += len(text)
        return event({**head, "choices": [
            {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}]})

    if body.echo:
        for index in range(len(answer.prompts)):
            yield chunk(index, _echoed(index, answer, body), [])
    done: list[End] = []
    async for piece in answer.events():
        if isinstance(piece, Delta):
            yield chunk(piece.index, piece.text, piece.logprobs)
        else:
            done.append(piece)
            yield chunk(piece.index, "", piece.logprobs, piece.reason)
    if with_usage:
        yield event({**head, "choices": [], "usage": usage(answer.n_prompt_tokens, done), "timings": timings(done[0])})
    yield DONE
