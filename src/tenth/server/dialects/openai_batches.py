"""OpenAI's files and batches: a batch is a JSONL file of requests, whose answers survive restarts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from pydantic import Field, ValidationError
from starlette.responses import Response

from tenth.server import replies
from tenth.server.body import Body, JsonRoute, StrictRoute, parse, wrong_field
from tenth.server.dialects import openai_chat, openai_chat_request, openai_completions, openai_embeddings
from tenth.server.dialects.openai import error_body
from tenth.server.failures import Refused, failure_of
from tenth.server.files import MOST_LINES, Batches, Files
from tenth.server.pages import OrderedPaging, Paging
from tenth.server.service import Service, new_id
from tenth.server.state import RETRY_S, patiently

forms = APIRouter(route_class=StrictRoute, tags=["OpenAI"])
router = APIRouter(route_class=JsonRoute, tags=["OpenAI"])

log = logging.getLogger("tenth.server")

AT_ONCE = 4  # lines of one batch; the queue gives others their turns between them


async def _chat(service: Service, value: dict[str, Any], owner: str) -> dict[str, Any]:
    body = openai_chat_request.ChatRequest.model_validate(value)
    if body.stream:
        raise Refused(400, "stream cannot be had in a batch", param="stream")
    answer = await service.ask(body.ask(), owner=owner, id=new_id("chatcmpl-"))
    try:
        return await openai_chat.completion(answer, body)
    finally:
        await answer.close()


async def _complete(service: Service, value: dict[str, Any], owner: str) -> dict[str, Any]:
    body = openai_completions.CompletionRequest.model_validate(value)
    if body.stream:
        raise Refused(400, "stream cannot be had in a batch", param="stream")
    answer = await service.ask(*body.asks(), owner=owner, id=new_id("cmpl-"))
    try:
        return await openai_completions.completion(answer, body)
    finally:
        await answer.close()


async def _embed(service: Service, value: dict[str, Any], owner: str) -> dict[str, Any]:
    body = openai_embeddings.EmbeddingRequest.model_validate(value)
    return await openai_embeddings.embeddings(service, body, owner)


ENDPOINTS: dict[str, Callable[[Service, dict[str, Any], str], Awaitable[dict[str, Any]]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _complete,
    "/v1/embeddings": _embed,
}


class BatchRequest(Body):
    """The body of a batch."""

    input_file_id: str = Field(max_length=128)
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
    completion_window: Literal["24h"] = Field(description="Accepted: it is done as soon as it can be.")
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    unsupported: ClassVar[dict[str, str]] = {"output_expires_after": "files are kept until they are deleted"}


class Worker:
    """Answers the lines of batches, of each owner one batch after the other, until it is closed."""

    def __init__(self, service: Service, batches: Batches) -> None:
        self._service, self._batches = service, batches
        self._news = asyncio.Event()
        self._busy: set[str] = set()  # owners of batches at work

    def wake(self) -> None:
        """There is a new batch, or one has ended."""
        self._news.set()

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._news.clear()
                for id, owner, endpoint in await patiently(self._batches.at_work):
                    if owner not in self._busy:
                        self._busy.add(owner)
                        tasks.create_task(self._work(id, owner, endpoint))
                await self._news.wait()

    async def _work(self, id: str, owner: str, endpoint: str) -> None:
        try:
            while lines := await patiently(self._batches.next_lines, id, AT_ONCE):
                async with asyncio.TaskGroup() as at_once:  # where one fails unforeseen, the others end too
                    for n, body in lines:
                        at_once.create_task(self._line(id, owner, endpoint, n, body))
            await patiently(self._batches.end, id, owner, "completed")
            self.wake()
        except Exception:  # others' batches go on; this one is tried again with the next
            log.exception("a batch cannot go on")
        finally:
            self._busy.discard(owner)

    async def _line(self, id: str, owner: str, endpoint: str, n: int, value: dict[str, Any]) -> None:
        while True:
            try:
                code, answer = 200, await ENDPOINTS[endpoint](self._service, value, f"{owner} {id}")
            except Exception as error:
                failure = failure_of(wrong_field(error.errors()) if isinstance(error, ValidationError) else error)
                if failure.retry_after_s is not None:  # not the line's fault
                    await asyncio.sleep(RETRY_S)
                    if await patiently(self._batches.is_at_work, id):
                        continue
                    return
                code, answer = failure.status, error_body(failure)
            await patiently(self._batches.answer, id, n, code, answer)
            return


def _files(request: Request) -> Files:
    files: Files = request.app.state.files
    return files


def _batches(request: Request) -> Batches:
    batches: Batches = request.app.state.batches
    return batches


@forms.post("/v1/files", responses=replies.of(replies.StoredFile))
async def upload(request: Request, file: Annotated[UploadFile, File()], purpose: Annotated[str, Form()]
                 ) -> dict[str, Any]:
    """Store a file of requests, at most 64 MiB. Its name is kept as a label only."""
    if purpose != "batch":
        raise Refused(400, f"the purpose is {purpose[:100]!r}, expected batch", param="purpose")
    if extra := set(await request.form()) - {"file", "purpose"}:
        raise Refused(400, f"{min(extra)[:100]} is not supported: files are kept until they are deleted",
                      param=min(extra)[:100])
    name = (file.filename or "")[:256]
    content = await file.read()
    return await asyncio.to_thread(_files(request).add, request.state.owner, name, purpose, content)


@router.get("/v1/files", responses=replies.of(replies.Files))
async def list_files(request: Request, paging: Annotated[OrderedPaging, Depends()],
                     purpose: Annotated[str | None, Query(max_length=64)] = None) -> dict[str, Any]:
    """All files, newest first, or those of one purpose."""
    files = await asyncio.to_thread(_files(request).all, request.state.owner)
    return paging.page([file for file in files if purpose in (None, file["purpose"])])


@router.get("/v1/files/{file_id}", responses=replies.of(replies.StoredFile))
async def get_file(file_id: str, request: Request) -> dict[str, Any]:
    """What is known of a file."""
    return await asyncio.to_thread(_files(request).get, file_id, request.state.owner)


@router.get("/v1/files/{file_id}/content", response_class=Response)
async def get_content(file_id: str, request: Request) -> Response:
    """The bytes of a file."""
    content = await asyncio.to_thread(_files(request).content, file_id, request.state.owner)
    return Response(content, media_type="application/octet-stream", headers={"x-content-type-options": "nosniff"})


@router.delete("/v1/files/{file_id}", responses=replies.of(replies.Deleted))
async def delete_file(file_id: str, request: Request) -> dict[str, Any]:
    """Delete a file."""
    await asyncio.to_thread(_files(request).delete, file_id, request.state.owner)
    return {"id": file_id, "object": "file", "deleted": True}


@router.post("/v1/batches", responses=replies.of(replies.StoredBatch))
async def create(body: BatchRequest, request: Request) -> dict[str, Any]:
    """Answer every line of a file. It is stored before this is answered, and goes on after a stop."""
    owner, batches = request.state.owner, _batches(request)

    def store() -> dict[str, Any]:
        lines = read_lines(_files(request).content(body.input_file_id, owner), body.endpoint)
        id = batches.add(owner, body.input_file_id, body.endpoint, body.metadata or {}, lines)
        return batches.get(id, owner)

    batch = await asyncio.to_thread(store)
    request.app.state.worker.wake()
    return batch


def read_lines(content: bytes, endpoint: str) -> list[tuple[str, dict[str, Any]]]:
    """(custom id, body) of each line. Refuses (400) a file with a line that is no request."""
    found: dict[str, dict[str, Any]] = {}
    for n, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        with contextlib.suppress(Refused):
            value = parse(line)
            if (isinstance(value, dict) and set(value) == {"custom_id", "method", "url", "body"}
                    and value["method"] == "POST" and value["url"] == endpoint and isinstance(value["body"], dict)
                    and isinstance(value["custom_id"], str) and value["custom_id"] not in found):
                found[value["custom_id"]] = value["body"]
                continue
        raise Refused(400, f"line {n} of the file is no request: expected custom_id (used once), method POST, url "
                      f"{endpoint} and body", param="input_file_id")
    if not 1 <= len(found) <= MOST_LINES:
        raise Refused(400, f"the file has {len(found)} requests, expected 1 to {MOST_LINES}", param="input_file_id")
    return list(found.items())


@router.get("/v1/batches", responses=replies.of(replies.StoredBatches))
async def list_batches(request: Request, paging: Annotated[Paging, Depends()]) -> dict[str, Any]:
    """All batches, newest first."""
    return paging.page(await asyncio.to_thread(_batches(request).all, request.state.owner))


@router.get("/v1/batches/{batch_id}", responses=replies.of(replies.StoredBatch))
async def get(batch_id: str, request: Request) -> dict[str, Any]:
    """A batch, with how far it is."""
    return await asyncio.to_thread(_batches(request).get, batch_id, request.state.owner)


@router.delete("/v1/batches/{batch_id}", responses=replies.of(replies.Deleted))
async def delete_batch(batch_id: str, request: Request) -> dict[str, Any]:
    """Delete a batch that has ended, but not its files; an extension."""
    await asyncio.to_thread(_batches(request).delete, batch_id, request.state.owner)
    return {"id": batch_id, "object": "batch", "deleted": True}


@router.post("/v1/batches/{batch_id}/cancel", responses=replies.of(replies.StoredBatch))
async def cancel(batch_id: str, request: Request) -> dict[str, Any]:
    """End a batch; what was answered stays."""
    batches, owner = _batches(request), request.state.owner
    await asyncio.to_thread(batches.get, batch_id, owner)
    await asyncio.to_thread(batches.end, batch_id, owner, "cancelled")
    return await asyncio.to_thread(batches.get, batch_id, owner)
