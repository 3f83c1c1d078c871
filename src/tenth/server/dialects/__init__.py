"""The APIs that are spoken: one file each, one line each in the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from tenth.server.chats import PATHS
from tenth.server.dialects import (
    anthropic,
    ollama,
    ollama_embed,
    ollama_models,
    openai_batches,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_models,
    openai_responses,
    rerank,
    tokens,
)
from tenth.server.dialects.openai import error_body
from tenth.server.failures import Failure


@dataclass(frozen=True)
class Dialect:
    """An API: its routes, the beginnings of its paths, and how it tells a failure (a JSON value)."""

    router: APIRouter
    paths: tuple[str, ...] = ()
    error: Callable[[Failure], dict[str, Any]] = error_body


DIALECTS = (
    Dialect(openai_models.router),
    Dialect(openai_chat.router),
    Dialect(openai_completions.router),
    Dialect(openai_embeddings.router),
    Dialect(openai_responses.router),
    Dialect(openai_batches.forms),
    Dialect(openai_batches.router),
    Dialect(tokens.router),
    Dialect(rerank.router),
    Dialect(anthropic.router, ("/v1/messages",), anthropic.error_body),
    Dialect(APIRouter(), PATHS),  # before Ollama's, whose paths begin in the same way
    Dialect(ollama.router, ("/api/",), ollama.error_body),
    Dialect(ollama_models.router),
    Dialect(ollama_embed.router),
)


def error_of(path: str, failure: Failure) -> dict[str, Any]:
    """A failure as the dialect of a path tells it; OpenAI's way where none is named."""
    tell = next((d.error for d in DIALECTS if d.paths and path.startswith(d.paths)), error_body)
    told = tell(failure)
    if tell is error_body and path.startswith("/api/") and failure.cause is not None:  # the page's: it translates
        told["error"] |= failure.cause.as_data()
    return told
