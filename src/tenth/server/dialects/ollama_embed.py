"""Ollama's embeddings: POST /api/embed, and the older /api/embeddings, which takes one text.

Field names: the ollama package's types, 0.6.3. Texts that are too long are cut unless ``truncate`` is false. As Ollama
does, the newer route gives vectors of length 1 and the older one what the model computed.
"""

from __future__ import annotations

from typing import Any, ClassVar

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from tenth.gathering import vectors
from tenth.server import reading
from tenth.server.body import Body, JsonRoute, SamplingBody
from tenth.server.dialects.ollama import named
from tenth.server.dialects.ollama_lifetime import keep_alive, note
from tenth.server.dialects.ollama_request import AT_START, Options
from tenth.server.dialects.openai_embeddings import MOST_DIMENSIONS
from tenth.server.failures import Refused
from tenth.server.reading import MOST_TEXTS, Read
from tenth.server.service import get_service

router = APIRouter(route_class=JsonRoute, tags=["Ollama"])

_OF_ANSWERS = {*SamplingBody.model_fields, "num_predict", "repeat_penalty", "num_keep", *Options.unsupported}


class EmbedOptions(Body):
    """Options: all of Ollama's set up an engine or choose tokens, so none but null is taken."""

    unsupported: ClassVar[dict[str, str]] = {
        **dict.fromkeys(sorted(_OF_ANSWERS), "no tokens are chosen here"),
        **{name: why for name, why in Options.unsupported.items() if why == AT_START}, "num_ctx": AT_START,
    }


class EmbedRequest(Body):
    """The body of embed."""

    model: str = Field(min_length=1, max_length=512)
    input: str | list[str]
    truncate: bool | None = Field(default=None, description="Cut what is too long; true unless it is false.")
    dimensions: int | None = Field(default=None, ge=1, le=MOST_DIMENSIONS)
    options: EmbedOptions | None = None
    keep_alive: float | str | None = keep_alive()

    def texts(self) -> list[str | list[int]]:
        """The texts, one by one."""
        texts: list[str | list[int]] = [self.input] if isinstance(self.input, str) else [*self.input]
        if len(texts) > MOST_TEXTS:
            raise Refused(400, f"{len(texts)} texts, expected at most {MOST_TEXTS}", param="input")
        return texts

    def answer(self, read: Read) -> dict[str, Any]:
        """The vectors as the API has them; times in nanoseconds."""
        return {"model": read.name, "embeddings": vectors(read.rows, self.dimensions).tolist(),
                "total_duration": int(read.seconds * 1e9), "load_duration": int(read.load_s * 1e9),
                "prompt_eval_count": read.total_tokens}


class OldEmbedRequest(Body):
    """The body of embeddings."""

    model: str = Field(min_length=1, max_length=512)
    prompt: str
    options: EmbedOptions | None = None
    keep_alive: float | str | None = keep_alive()


@router.post("/api/embed", response_model=None)
async def embed(body: EmbedRequest, request: Request) -> Response:
    """Vectors of texts, of length 1."""
    texts, truncate = body.texts(), body.truncate is not False
    note(request, named(request, body.model), body.keep_alive)
    return await reading.answer(request, get_service(request), named(request, body.model),
                                lambda model: model.prepare_texts(texts, dimensions=body.dimensions, truncate=truncate),
                                body.answer)


@router.post("/api/embeddings", response_model=None)
async def embeddings(body: OldEmbedRequest, request: Request) -> Response:
    """The vector of one text, as the model computed it."""
    note(request, named(request, body.model), body.keep_alive)

    def tell(read: Read) -> dict[str, Any]:
        return {"embedding": read.rows[0].tolist()}

    return await reading.answer(request, get_service(request), named(request, body.model),
                                lambda model: model.prepare_texts([body.prompt], truncate=True), tell)
