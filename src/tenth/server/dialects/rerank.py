"""Reranking: POST /v1/rerank, /v2/rerank and /rerank, in the form of Jina's and Cohere's APIs.

Scores lie between 0 and 1. Documents that are too long are cut, as both do; ``truncation`` false has them refused.
"""

from __future__ import annotations

from typing import Any, ClassVar

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from tenth.gathering import scores
from tenth.server import reading
from tenth.server.body import Body, JsonRoute
from tenth.server.reading import MOST_TEXTS, Read
from tenth.server.service import get_service, new_id

router = APIRouter(route_class=JsonRoute, tags=["rerank"])


class Document(Body):
    """A document that is an object."""

    text: str


class RerankRequest(Body):
    """The body of rerank. ``model`` may be left out when only one is served."""

    model: str | None = Field(default=None, max_length=512)
    query: str = Field(min_length=1)
    documents: list[str | Document] = Field(min_length=1, max_length=MOST_TEXTS)
    top_n: int | None = Field(default=None, ge=1, description="Only so many of the best.")
    return_documents: bool | None = Field(default=None, description="With the text of each document.")
    truncation: bool | None = Field(default=None, description=(
        "Cut documents that are too long; true unless it is false."))
    max_tokens_per_doc: int | None = Field(default=None, ge=1, le=1 << 24, description=(
        "Cut documents to so many tokens."))
    unsupported: ClassVar[dict[str, str]] = {
        "max_chunks_per_doc": "documents are not cut into chunks", "rank_fields": "documents are texts",
        "return_embeddings": "scores are not made of vectors", "priority": "callers take turns",
    }
    harmless: ClassVar[dict[str, Any]] = {"max_chunks_per_doc": 1, "rank_fields": ["text"], "return_embeddings": False,
                                          "priority": 0}

    def texts(self) -> list[str]:
        """The documents, one by one."""
        return [document if isinstance(document, str) else document.text for document in self.documents]

    def answer(self, read: Read) -> dict[str, Any]:
        """The best first; of equal ones the one that was named first."""
        found, texts = scores(read.rows).tolist(), self.texts()
        best = sorted(range(len(found)), key=lambda i: (-found[i], i))[: self.top_n]
        results = [{"index": i, "relevance_score": found[i]} for i in best]
        if self.return_documents:
            results = [result | {"document": {"text": texts[result["index"]]}} for result in results]
        return {
            "id": new_id("rerank-"), "object": "list", "model": read.name, "results": results,
            "usage": {"prompt_tokens": read.total_tokens, "total_tokens": read.total_tokens},
        }


async def create(body: RerankRequest, request: Request) -> Response:
    """How well each document answers the query, the best first."""
    service, documents, truncate = get_service(request), body.texts(), body.truncation is not False
    return await reading.answer(
        request, service, service.shelf.only(body.model),
        lambda model: model.prepare_pairs(body.query, documents, truncate=truncate,
                                          most_document_tokens=body.max_tokens_per_doc), body.answer)


for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
    router.add_api_route(path, create, methods=["POST"], response_model=None)
