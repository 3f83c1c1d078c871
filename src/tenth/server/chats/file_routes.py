"""/api/attachments: files beside questions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tenth.server.body import Body, parse, wrong_field
from tenth.server.chats.attachments import MOST_NAME, Attachment
from tenth.server.chats.parts import parts
from tenth.server.chats.routes import owner_of
from tenth.server.failures import Refused

router = APIRouter(prefix="/api", tags=["chats"])

_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {
    "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {
        "file": {"type": "string", "format": "binary"}, "model": {"type": "string"}}}},
    "application/json": {"schema": {"type": "object", "required": ["name", "text"], "properties": {
        "name": {"type": "string"}, "text": {"type": "string"}, "model": {"type": "string"}}}}}}}


class Pasted(Body):
    """A text that is to be a file."""

    name: str = Field(max_length=MOST_NAME)
    text: str
    model: str | None = Field(default=None, max_length=512)


@router.post("/attachments", status_code=201, openapi_extra=_BODY)
async def add(request: Request) -> Attachment:
    """Keep the text of a file (a form with ``file``) or a text (JSON with name and text); it can be sent then."""
    desk, owner = parts(request), owner_of(request)
    if request.headers["content-type"].startswith("multipart/form-data"):
        file, fields = await one_file(request, "model")
        try:
            name, data = file.filename or "file", await file.read()
        finally:
            await file.close()
        return await desk.attachments.add_file(owner, name, data, fields.get("model"))
    try:
        pasted = Pasted.model_validate(parse(await request.body()))
    except ValidationError as error:
        raise wrong_field(error.errors()) from None
    return await desk.attachments.add_text(owner, pasted.name, pasted.text, pasted.model)


@router.get("/attachments/{id}/text", response_class=Response)
async def text(id: str, request: Request) -> Response:
    """The text of an attachment, as models see it."""
    desk = parts(request)
    found = await desk.state.run(desk.attachments.text, owner_of(request), id)
    return Response(found, media_type="text/plain; charset=utf-8", headers={
        "x-content-type-options": "nosniff", "content-security-policy": "default-src 'none'; sandbox"})


@router.delete("/attachments/{id}", status_code=204)
async def delete(id: str, request: Request) -> Response:
    """Delete an attachment that was not sent."""
    desk = parts(request)
    await desk.state.run(desk.attachments.delete, owner_of(request), id)
    await desk.state.run(desk.chats.deletion.note_traces)
    return Response(status_code=204)


async def one_file(request: Request, *others: str) -> tuple[UploadFile, dict[str, str]]:
    """The only file of a form, and those of its other fields that may be there. Refuses (400) a form with more."""
    try:
        form = await request.form(max_files=1, max_fields=8, max_part_size=1 << 16)
    except HTTPException as error:
        raise Refused(400, f"the form cannot be read: {str(error.detail)[:200]}") from None
    file = form.get("file")
    if not isinstance(file, UploadFile):
        await form.close()
        raise Refused(400, "the form has no file", param="file")
    if extra := set(form) - {"file", *others}:
        await form.close()
        raise Refused(400, f"there is no field {min(extra)[:100]!r} here", param=min(extra)[:100])
    return file, {name: value for name, value in form.items() if isinstance(value, str)}
