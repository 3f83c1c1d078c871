"""/api/library, /api/machine, /api/stats and /api/price: what runs here, and what it takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

import tenth
from tenth.server.body import Body, JsonRoute
from tenth.server.chats.parts import parts
from tenth.server.chats.routes import owner_of

router = APIRouter(route_class=JsonRoute, prefix="/api", tags=["chats"])
Json = dict[str, Any]


class Named(Body):
    """A model's name."""

    name: str = Field(max_length=300)


class Price(Body):
    """What a million tokens cost elsewhere, to compare with."""

    in_per_million: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    out_per_million: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    currency: str = Field(min_length=1, max_length=8)


@router.get("/library")
async def library(request: Request) -> Json:
    """Every model, here or to be had, with what is to be expected of it on this machine."""
    desk = parts(request)
    desk.stock.probe(lambda: desk.pulls.tell_all("library", {}))
    found = await desk.state.run(desk.stock.models)
    return {**found, "pulls": [asdict(one) for one in desk.pulls.all.values()]}


@router.post("/library/pull", status_code=202)
async def pull(body: Named, request: Request) -> Json:
    """Begin to fetch a model; ``pull`` events tell how far it is, ``library`` when there is something new."""
    return asdict(parts(request).pulls.start(body.name))


@router.post("/library/cancel")
async def cancel(body: Named, request: Request) -> Json:
    """End fetching a model; what came so far stays for the next time."""
    return asdict(await parts(request).pulls.cancel(body.name))


@router.delete("/library/{name:path}")
async def remove(name: str, request: Request) -> Json:
    """Delete a model from this machine."""
    return {"name": name, "freed_bytes": await parts(request).pulls.remove(name)}


@router.get("/machine")
async def machine(request: Request) -> Json:
    """This machine, and your price to compare with."""
    from tenth.bench.machine import read_machine
    from tenth.weights.budget import memory_budget

    desk = parts(request)
    about, budget = read_machine(), memory_budget(desk.engine.memory_bytes)
    return {"cpu": about.cpu, "n_threads": desk.engine.threads or about.cores, "memory_bytes": about.memory_bytes,
            "budget_bytes": budget.n_bytes, "budget_source": budget.source, "version": tenth.__version__,
            "energy": "measured" if desk.watching.meter.is_measured else "estimated",
            "price": await desk.state.run(desk.preferences.get, owner_of(request), "price")}


@router.put("/price")
async def set_price(body: Price, request: Request) -> Json:
    """Set the price that your answers are compared with."""
    desk, value = parts(request), body.model_dump()
    await desk.state.run(desk.preferences.set, owner_of(request), "price", value)
    return value


@router.get("/stats")
async def stats(request: Request) -> Json:
    """Your running answers, and the machine at this moment."""
    return parts(request).watching.stats(owner_of(request))
