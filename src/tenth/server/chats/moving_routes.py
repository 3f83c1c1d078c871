"""/api/export and /api/import."""

from __future__ import annotations

import time
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import StreamingResponse

from tenth.server.chats.exporting import Kind, export
from tenth.server.chats.file_routes import one_file
from tenth.server.chats.importing import import_file
from tenth.server.chats.parts import parts
from tenth.server.chats.routes import owner_of

router = APIRouter(prefix="/api", tags=["chats"])

_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {
    "type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}}}}}


@router.get("/export", response_class=StreamingResponse)
async def get_export(request: Request, format: Kind = "json",
                     chat_id: Annotated[str | None, Query(max_length=64)] = None) -> StreamingResponse:
    """All your chats, or one, as a file: JSON with all branches, which can be imported, or Markdown for reading."""
    desk, owner = parts(request), owner_of(request)
    if chat_id is not None:
        await desk.state.run(desk.chats.get, owner, chat_id)
    ids = [chat_id] if chat_id is not None else await desk.state.run(desk.chats.ids, owner)
    kind, suffix = ("application/json", "json") if format == "json" else ("text/markdown; charset=utf-8", "md")
    name = f"tenth-chats-{time.strftime('%Y-%m-%d')}.{suffix}"
    return StreamingResponse(export(desk, owner, ids, format), media_type=kind, headers={
        "content-disposition": f'attachment; filename="{name}"', "x-content-type-options": "nosniff"})


@router.post("/import", openapi_extra=_BODY)
async def post_import(request: Request) -> dict[str, Any]:
    """Add the chats of a file (a form with ``file``): an export of tenth, ChatGPT, Open WebUI or llama-server."""
    desk, owner = parts(request), owner_of(request)
    file, _ = await one_file(request)
    try:
        spooled = file.file
        if isinstance(spooled, SpooledTemporaryFile):
            spooled.rollover()  # a small one has no descriptor to hand on yet
        spooled.seek(0)
        return await import_file(desk, owner, spooled)
    finally:
        await file.close()
