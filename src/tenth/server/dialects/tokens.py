"""Tokens: POST /tokenize and /detokenize, with llama.cpp's field names (``content``, ``tokens``)."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from tenth.server.body import Body, JsonRoute
from tenth.server.failures import Refused
from tenth.server.service import get_service
from tenth.server.shelf import Borrowed

router = APIRouter(route_class=JsonRoute, tags=["tokens"])

MOST_IDS = 1 << 20
MOST_TEXT = 1 << 22  # characters
MOST_PIECES = 1 << 17  # each takes some hundreds of bytes


class TokenizeRequest(Body):
    """A text. ``model`` may be left out when only one is served."""

    content: str = Field(max_length=MOST_TEXT)
    model: str | None = Field(default=None, max_length=512)
    add_special: bool = Field(default=False, description="With the begin and end tokens that the file asks for.")
    with_pieces: bool = Field(default=False, description="Also the bytes of each token.")


class DetokenizeRequest(Body):
    """Token ids."""

    tokens: list[int] = Field(max_length=MOST_IDS)
    model: str | None = Field(default=None, max_length=512)


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, request: Request) -> dict[str, Any]:
    """The token ids of a text."""
    def work(borrowed: Borrowed) -> dict[str, Any]:
        ids = borrowed.model.tokenize(body.content, body.add_special)
        if not body.with_pieces:
            return {"tokens": ids}
        if len(ids) > MOST_PIECES:
            raise Refused(400, f"the text has {len(ids)} tokens, with_pieces is for at most {MOST_PIECES}",
                          param="with_pieces")
        pieces = [borrowed.model.tokenizer.token_bytes(id) for id in ids]
        return {"tokens": [{"id": id, "piece": piece.decode(errors="replace"), "bytes": list(piece)}
                           for id, piece in zip(ids, pieces, strict=True)]}

    shelf = get_service(request).shelf
    async with shelf.borrow(shelf.only(body.model)) as borrowed:
        return await asyncio.to_thread(work, borrowed)


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, request: Request) -> dict[str, Any]:
    """The text of token ids."""
    shelf = get_service(request).shelf
    async with shelf.borrow(shelf.only(body.model)) as borrowed:
        return {"content": await asyncio.to_thread(borrowed.model.detokenize, body.tokens)}
