"""OpenAI's embeddings: POST /v1/embeddings, vectors of texts or of token ids."""

from __future__ import annotations

import base64
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from tenth.gathering import vectors
from tenth.server import reading
from tenth.server.body import Body, JsonRoute
from tenth.server.failures import Refused
from tenth.server.reading import MOST_TEXTS, Prepare, Read
from tenth.server.service import Service, get_service

router = APIRouter(route_class=JsonRoute, tags=["OpenAI"])

MOST_DIMENSIONS = 1 << 16


class EmbeddingRequest(Body):
    """The body of embeddings."""

    model: str = Field(max_length=512)
    input: str | list[str] | list[int] | list[list[int]] = Field(description=(
        f"Text, token ids, or a list of at most {MOST_TEXTS} of those; one that is too long is refused."))
    encoding_format: Literal["float", "base64"] | None = Field(default=None, description=(
        "base64: the numbers as float32, little-endian."))
    dimensions: int | None = Field(default=None, ge=1, le=MOST_DIMENSIONS, description=(
        "The first so many numbers, made to length 1 again; for models that were trained for it."))
    user: str | None = Field(default=None, max_length=512, description="Accepted; this server keeps no users.")

    def prepare(self) -> Prepare:
        """What makes tokens of its texts."""
        texts = self.texts()
        return lambda model: model.prepare_texts(texts, dimensions=self.dimensions)

    def texts(self) -> list[str | list[int]]:
        """The texts, one by one."""
        given: Any = self.input
        texts = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given
        if not 1 <= len(texts) <= MOST_TEXTS:
            raise Refused(400, f"{len(texts)} texts, expected 1 to {MOST_TEXTS}", param="input")
        return texts

    def answer(self, read: Read) -> dict[str, Any]:
        """The vectors as the API has them."""
        rows = vectors(read.rows, self.dimensions)
        if self.encoding_format == "base64":
            listed: list[Any] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
        else:
            listed = rows.tolist()
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(listed)],
            "model": read.name,
            "usage": {"prompt_tokens": read.total_tokens, "total_tokens": read.total_tokens},
        }


@router.post("/v1/embeddings", response_model=None)
async def create(body: EmbeddingRequest, request: Request) -> Response:
    """Vectors of texts, of length 1."""
    return await reading.answer(request, get_service(request), body.model, body.prepare(), body.answer)


async def embeddings(service: Service, body: EmbeddingRequest, owner: str) -> dict[str, Any]:
    """The whole answer, for a batch."""
    return body.answer(await reading.read(service, body.model, body.prepare(), owner))
