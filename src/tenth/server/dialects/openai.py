"""What OpenAI's dialects share: errors, usage, log-probabilities, reasons.

Field names: the openai package's types, 3.54. ``timings``, ``reasoning_content`` and ``reasoning`` are extensions that
DeepSeek's, vLLM's and llama.cpp's servers have too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from tenth.server.answers import End
from tenth.server.failures import Failure
from tenth.server.streams import event
from tenth.stream import TokenLogprob
from tenth.text.tokenizer import Tokenizer

LEAST_LOGPROB = -9999.0  # stands for minus infinity, which JSON has not
DONE = event("[DONE]")

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "not_found", 413: "request_too_large", 429: "rate_limit_exceeded",
          507: "insufficient_storage"}


def error_body(failure: Failure) -> dict[str, Any]:
    """A failure as OpenAI's API tells it."""
    kind = _TYPES.get(failure.status, "server_error" if failure.status >= 500 else "invalid_request_error")
    code = "model_not_found" if failure.param == "model" and failure.status == 404 else _CODES.get(failure.status)
    return {"error": {"message": failure.message, "type": kind, "param": failure.param, "code": code}}


def error_event(failure: Failure) -> bytes:
    """A failure after the first event of a stream."""
    return event(error_body(failure))


def usage(n_prompt: int, ends: Iterable[End]) -> dict[str, Any]:
    """Tokens of all choices; the prompt counts once."""
    ends = list(ends)
    n_out = sum(end.usage.completion_tokens for end in ends)
    return {
        "prompt_tokens": n_prompt, "completion_tokens": n_out, "total_tokens": n_prompt + n_out,
        "prompt_tokens_details": {"cached_tokens": min((end.usage.cached_tokens for end in ends), default=0)},
        "completion_tokens_details": {"reasoning_tokens": sum(end.usage.thinking_tokens for end in ends)},
    }


def timings(end: End) -> dict[str, Any]:
    """How long a choice took, as tenth.Timings has it."""
    return asdict(end.timings)


def token_logprob(token: TokenLogprob, tokenizer: Tokenizer, n_top: int) -> dict[str, Any]:
    """One token as chat completions list it."""
    def one(id: int, logprob: float) -> dict[str, Any]:
        data = tokenizer.token_bytes(id)
        return {"token": data.decode(errors="replace"), "logprob": finite(logprob), "bytes": list(data)}

    return {**one(token.token, token.logprob), "top_logprobs": [one(*pair) for pair in token.top[:n_top]]}


def finite(logprob: float) -> float:
    """A log-probability as JSON can have it."""
    return max(logprob, LEAST_LOGPROB)
