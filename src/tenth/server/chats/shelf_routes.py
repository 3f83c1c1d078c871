"""/api/folders and /api/presets."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tenth.server.body import JsonRoute
from tenth.server.chats import bodies
from tenth.server.chats.parts import parts
from tenth.server.chats.routes import owner_of

router = APIRouter(route_class=JsonRoute, prefix="/api", tags=["chats"])
Json = dict[str, Any]


@router.get("/folders")
async def list_folders(request: Request) -> Json:
    """Your folders."""
    return {"folders": await _list(request, "folder")}


@router.post("/folders", status_code=201)
async def new_folder(body: bodies.Folder, request: Request) -> Json:
    """A new folder."""
    return await _add(request, "folder", {"name": body.name})


@router.patch("/folders/{id}")
async def change_folder(id: str, body: bodies.Folder, request: Request) -> Json:
    """Give a folder another name."""
    return await _change(request, "folder", id, {"name": body.name})


@router.delete("/folders/{id}", status_code=204)
async def delete_folder(id: str, request: Request) -> Response:
    """Delete a folder; its chats stay."""
    return await _delete(request, "folder", id)


@router.get("/presets")
async def list_presets(request: Request) -> Json:
    """Your presets."""
    return {"presets": await _list(request, "preset")}


@router.post("/presets", status_code=201)
async def new_preset(body: bodies.Preset, request: Request) -> Json:
    """A new preset."""
    return await _add(request, "preset", {"name": body.name, "model": body.model, "settings": body.settings.given()})


@router.patch("/presets/{id}")
async def change_preset(id: str, body: bodies.PresetChange, request: Request) -> Json:
    """Change a preset; its settings are replaced whole."""
    fields = {name: getattr(body, name) for name in body.model_fields_set}
    if body.settings is not None:
        fields["settings"] = body.settings.given()
    fields = {name: value for name, value in fields.items() if value is not None or name == "model"}
    return await _change(request, "preset", id, fields)


@router.delete("/presets/{id}", status_code=204)
async def delete_preset(id: str, request: Request) -> Response:
    """Delete a preset."""
    return await _delete(request, "preset", id)


async def _list(request: Request, what: str) -> list[Json]:
    desk = parts(request)
    return await desk.state.run(desk.shelves.all, what, owner_of(request))


async def _add(request: Request, what: str, fields: Json) -> Json:
    desk, owner = parts(request), owner_of(request)
    new = await desk.state.run(desk.shelves.add, what, owner, fields)
    desk.hub.tell(owner, what, {what: new})
    return new


async def _change(request: Request, what: str, id: str, fields: Json) -> Json:
    desk, owner = parts(request), owner_of(request)
    changed = await desk.state.run(desk.shelves.change, what, owner, id, fields)
    desk.hub.tell(owner, what, {what: changed})
    return changed


async def _delete(request: Request, what: str, id: str) -> Response:
    desk, owner = parts(request), owner_of(request)
    await desk.state.run(desk.shelves.delete, what, owner, id)
    await desk.state.run(desk.chats.deletion.note_traces)
    desk.hub.tell(owner, f"{what}-deleted", {"id": id})
    return Response(status_code=204)
