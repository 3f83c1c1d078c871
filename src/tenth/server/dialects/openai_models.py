"""OpenAI's list of models: GET /v1/models and /v1/models/NAME."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from tenth.server import replies
from tenth.server.body import StrictRoute
from tenth.server.service import get_service
from tenth.server.shelf import Served

router = APIRouter(route_class=StrictRoute, tags=["OpenAI"])


@router.get("/v1/models", responses=replies.of(replies.ModelRows))
async def list_models(request: Request) -> dict[str, Any]:
    """The models that requests may name."""
    return {"object": "list", "data": [_row(served) for served in get_service(request).shelf.listed()]}


@router.get("/v1/models/{name:path}", responses=replies.of(replies.ModelRow))
async def show(name: str, request: Request) -> dict[str, Any]:
    """One of them."""
    return _row(get_service(request).shelf.find(name))


def _row(served: Served) -> dict[str, Any]:
    row: dict[str, Any] = {"id": served.name, "object": "model", "created": int(served.opened_at),
                           "owned_by": "tenth", "loaded": served.model is not None}
    return row | ({"meta": served.model.description} if served.model is not None else {})
