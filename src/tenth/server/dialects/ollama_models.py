"""Ollama's API about models: GET /api/tags, /api/ps, /api/version; POST /api/show, /api/pull.

A pull downloads models of tenth's catalogue only: no request names an address.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

import tenth
from tenth.errors import TenthError
from tenth.library import CATALOGUE, list_models, pull
from tenth.server import replies
from tenth.server.body import Body, JsonRoute
from tenth.server.dialects.ollama import error_line, iso, line, named
from tenth.server.failures import Refused
from tenth.server.service import get_service
from tenth.server.shelf import Served
from tenth.server.streams import LINES, StreamResponse, Wire, nothing

router = APIRouter(route_class=JsonRoute, tags=["Ollama"])

CAPABILITIES = {"generate": ["completion"], "embed": ["embedding"], "rerank": ["rerank"]}  # by Model.task


def _details(served: Served) -> dict[str, Any]:
    about = served.model.description if served.model is not None else {}
    formats = list(about.get("formats", {}))
    n_parameters = about.get("parameters")
    return {"parent_model": "", "format": "gguf", "family": about.get("architecture", ""),
            "families": [about["architecture"]] if about else [],
            "parameter_size": f"{n_parameters / 1e6:.0f}M" if n_parameters else "",
            "quantization_level": formats[0] if formats else ""}


def _row(served: Served, file_bytes: int = 0) -> dict[str, Any]:
    size = served.model.memory().get("weights_bytes", 0) if served.model is not None else file_bytes
    return {"name": served.name, "model": served.name, "size": size, "digest": "", "details": _details(served)}


@router.get("/api/tags", responses=replies.of(replies.OllamaModels))
async def tags(request: Request) -> dict[str, Any]:
    """The models that requests may name."""
    here = {entry.name: entry.size_bytes for entry in await asyncio.to_thread(list_models)}
    return {"models": [_row(served, here.get(served.source, 0)) | {"modified_at": iso(served.opened_at)}
                       for served in get_service(request).shelf.listed()]}


@router.get("/api/ps", responses=replies.of(replies.OllamaModels))
async def ps(request: Request) -> dict[str, Any]:
    """The models that are open."""
    models = [served for served in get_service(request).shelf.models.values() if served.model is not None]
    return {"models": [_row(served) | {"size_vram": 0, "context_length": served.model.description["context_tokens"]}
                       for served in models if served.model is not None]}


@router.get("/api/version")
async def version() -> dict[str, str]:
    """The version of tenth."""
    return {"version": tenth.__version__}


class NameRequest(Body):
    """A model's name. ``name`` is the older spelling."""

    model: str | None = Field(default=None, max_length=512)
    name: str | None = Field(default=None, max_length=512)

    def given(self) -> str:
        """Whichever was given."""
        found = self.model or self.name
        if self.name not in (None, found):
            raise Refused(400, "model and name differ", param="name")
        if not found:
            raise Refused(400, "the model has to be named", param="model")
        return found


class ShowRequest(NameRequest):
    """The body of show."""

    verbose: bool | None = Field(default=None, description="Accepted: all that is known is told.")
    unsupported: ClassVar[dict[str, str]] = {"system": "it comes with a request", "template": "it comes with the model",
                                             "options": "they come with a request"}


@router.post("/api/show")
async def show(body: ShowRequest, request: Request) -> dict[str, Any]:
    """Facts about a model, which is opened for it."""
    shelf = get_service(request).shelf
    async with shelf.borrow(named(request, body.given())) as borrowed:
        about = borrowed.model.description
        return {"details": _details(shelf.models[borrowed.name]), "capabilities": CAPABILITIES[borrowed.model.task],
                "model_info": {"general.architecture": about["architecture"],
                               "general.parameter_count": about["parameters"],
                               f"{about['architecture']}.context_length": about["context_tokens"]},
                "modified_at": iso(shelf.models[borrowed.name].opened_at)}


class PullRequest(NameRequest):
    """The body of pull."""

    stream: bool | None = None
    insecure: Literal[False] | None = None


@router.post("/api/pull", response_model=None)
async def pull_model(body: PullRequest) -> Response:
    """Download a model of tenth's catalogue. It is served when tenth serve is started with its name."""
    name = body.given().removesuffix(":latest")
    if name not in CATALOGUE:
        raise Refused(404, f"there is no model {name!r} in the catalogue", f"there are: {', '.join(CATALOGUE)}",
                      param="model")
    if body.stream is not False:
        return StreamResponse(_pulling(name), error_line, nothing, LINES)
    async for _ in _pulling(name):
        pass
    return JSONResponse({"status": "success"})


async def _pulling(name: str) -> Wire:
    """Lines of progress, at most ten a second. The download ends with the request."""
    progress: dict[str, int] = {}
    is_left = False

    def note(what: str, done: int, total: int) -> None:
        if is_left:
            raise Refused(499, "the client went away")
        progress.update(completed=done, total=total)

    task = asyncio.create_task(asyncio.to_thread(pull, name, progress=note))
    told: dict[str, int] = {}
    try:
        yield line({"status": f"pulling {name}"})
        while not task.done():
            await asyncio.wait({task}, timeout=0.1)
            if progress != told:
                told = dict(progress)
                yield line({"status": f"pulling {name}", **told})
        try:
            await task
        except TenthError as error:  # its message may name files
            raise Refused(503, f"the model {name!r} could not be pulled", "the server's log says why") from error
        yield line({"status": "success"})
    finally:
        is_left = True
