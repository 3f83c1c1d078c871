"""Routes of the server itself: /health, /metrics, a certificate, streams taken up again, a word to a running answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field
from starlette.responses import JSONResponse, Response

from tenth.server.body import Body, JsonRoute
from tenth.server.dialects import error_of
from tenth.server.failures import Failure, Refused
from tenth.server.lan import AUTHORITY_PATH, Lan
from tenth.server.metrics import Metrics
from tenth.server.service import Service
from tenth.server.streams import Resumables, StreamResponse, event, nothing

router = APIRouter(route_class=JsonRoute, tags=["server"])


@router.get("/health")
async def health(request: Request) -> JSONResponse:
    """Whether requests are accepted: 200 or 503. Open to everyone; it says no more."""
    service: Service = request.app.state.service
    status: dict[str, Any] = {"status": "stopping" if service.is_closing else "ok"}
    return JSONResponse(status, 503 if service.is_closing else 200)


@router.get(AUTHORITY_PATH, response_class=Response)
async def authority(request: Request) -> Response:
    """The certificate of the authority that vouches for the door to the network, to be installed on a device (DER).

    Open to everyone, because devices ask for it before they come in; 404 without that door, or an encrypted one.
    """
    lan: Lan | None = request.app.state.chats.lan
    if lan is None or lan.certificate is None:
        raise Refused(404, "there is no certificate to be installed", "tenth serve --lan makes one")
    return Response(lan.certificate.authority, media_type="application/x-x509-ca-cert",
                    headers={"cache-control": "no-store", "x-content-type-options": "nosniff"})


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    counters: Metrics = request.app.state.metrics
    return Response(counters.page(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/streams/{stream_id}", response_class=Response)
async def resume(stream_id: str, request: Request,
                 last_event_id: Annotated[str | None, Header(max_length=128)] = None) -> Response:
    """Take up a stream that was asked for with X-Tenth-Resumable: 1, behind the event of the header Last-Event-ID."""
    resumables: Resumables = request.app.state.resumables
    wire = resumables.resume(request.state.owner, stream_id, last_event_id)

    def fail(failure: Failure) -> bytes:
        return event(error_of("/v1/streams", failure))

    return StreamResponse(wire, fail, nothing)


class ControlRequest(Body):
    """What a running answer is told."""

    id: str = Field(max_length=128, description="The answer's id, of whatever API; also in the header X-Tenth-Answer.")
    action: Literal["reasoning_end"] = Field(description="End the thinking now and go on to the answer.")
    model: str | None = Field(default=None, max_length=512, description="Accepted: the id says it.")


@router.post("/v1/chat/completions/control")
async def control(body: ControlRequest, request: Request) -> dict[str, Any]:
    """End an answer's thinking now. Path and fields are those of llama.cpp's server."""
    service: Service = request.app.state.service
    if service.find(body.id, request.state.owner).end_thinking():
        return {"success": True}
    return {"success": False, "message": "the answer does not think, or no longer"}
