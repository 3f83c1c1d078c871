"""/api/chats, their messages and answers, folders, presets, and /api/events."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from tenth.errors import Cause, TenthError
from tenth.server.body import JsonRoute
from tenth.server.chats import bodies
from tenth.server.chats.parts import ChatServer, parts
from tenth.server.chats.rows import AT_WORK, Chat, Message
from tenth.server.chats.search import MOST_HITS
from tenth.server.chats.store import MOST_PAGE
from tenth.server.dialects.openai import error_body
from tenth.server.failures import Failure, Refused
from tenth.server.guard import key_of
from tenth.server.keys import ANYBODY, Caller
from tenth.server.sessions import cookie_of
from tenth.server.streams import StreamResponse, event, nothing

router = APIRouter(route_class=JsonRoute, prefix="/api", tags=["chats"])
Json = dict[str, Any]


def owner_of(request: Request) -> str:
    """Whose things a request may see."""
    owner: str = request.state.owner
    return owner


@router.get("/events", response_class=Response)
async def events(request: Request, last_event_id: Annotated[str | None, Header(max_length=64)] = None) -> Response:
    """Everything that happens to what is yours, as server-sent events."""
    def fail(failure: Failure) -> bytes:
        return event(error_body(failure), "error")

    desk = parts(request)

    async def may() -> bool:
        try:
            return await desk.state.run(still_known, desk, request)
        except TenthError:  # a database that fails for a moment
            return True

    return StreamResponse(desk.hub.open(owner_of(request), last_event_id, may), fail, nothing)


def still_known(desk: ChatServer, request: Request) -> bool:
    """Whether who sent this request would be let in again, as the same one: a session may have ended since."""
    caller: Caller = request.state.caller
    at_lan = desk.lan is not None and request.headers.get("host", "").lower() in desk.lan.hosts
    if not at_lan and not desk.doors.need_login():
        return caller is ANYBODY
    cookie = cookie_of(request.headers.get("cookie", ""), desk.cookie)
    key = desk.doors.keys.find(key_of(dict(request.scope["headers"])))
    found = key.caller if key is not None else desk.doors.sessions.find(cookie) if cookie else None
    return found is not None and found.owner == caller.owner


@router.get("/search")
async def search(request: Request, q: Annotated[str, Query(max_length=500)],
                 limit: Annotated[int, Query(ge=1, le=MOST_HITS)] = 50) -> Json:
    """Chats and messages that have every word of ``q``; words in quotation marks have to follow each other."""
    desk = parts(request)
    return {"hits": await desk.state.run(desk.search.hits, owner_of(request), q, limit)}


# ---- chats

@router.get("/chats")
async def list_chats(request: Request, limit: Annotated[int, Query(ge=1, le=MOST_PAGE)] = 100,
                     before: float | None = None, folder_id: str | None = None, pinned: bool | None = None) -> Json:
    """Your chats, last changed first; ``before``: the updated_at of the last one that you have."""
    desk = parts(request)
    found = await desk.state.run(desk.chats.all, owner_of(request), limit + 1, before, folder_id, pinned)
    return {"chats": found[:limit], "has_more": len(found) > limit}


@router.post("/chats", status_code=201)
async def new_chat(body: bodies.NewChat, request: Request) -> Json:
    """A new chat."""
    desk, owner = parts(request), owner_of(request)
    chat: Chat = await desk.state.run(desk.chats.add, owner, body.title, body.model, body.settings.given(),
                                      body.folder_id)
    desk.hub.tell(owner, "chat", {"chat": chat})
    return chat


@router.get("/chats/{chat_id}")
async def get_chat(chat_id: str, request: Request) -> Json:
    """A chat with all its messages."""
    desk, owner = parts(request), owner_of(request)
    chat = await desk.state.run(desk.chats.get, owner, chat_id)
    messages = await desk.state.run(desk.chats.messages, owner, chat_id)
    return {"chat": chat, "messages": [desk.answering.message(message) for message in messages]}


@router.patch("/chats/{chat_id}")
async def change_chat(chat_id: str, body: bodies.ChatChange, request: Request) -> Json:
    """Change a chat's title, model, settings, folder, pin or the branch that is shown."""
    desk, owner = parts(request), owner_of(request)
    chat: Chat = await desk.state.run(desk.chats.change, owner, chat_id, body.changes())
    desk.hub.tell(owner, "chat", {"chat": chat})
    return chat


@router.delete("/chats/{chat_id}", status_code=204)
async def delete_chat(chat_id: str, request: Request) -> Response:
    """Delete a chat, for good."""
    desk, owner = parts(request), owner_of(request)
    await desk.state.run(desk.chats.get, owner, chat_id)
    await desk.answering.stop_all(owner, chat_id)
    await desk.state.run(desk.chats.delete, owner, chat_id)
    desk.hub.tell(owner, "chat-deleted", {"id": chat_id})
    return Response(status_code=204)


# ---- messages

@router.post("/chats/{chat_id}/messages", status_code=201)
async def ask(chat_id: str, body: bodies.NewMessage, request: Request) -> Json:
    """Ask: the question and its answer, which is being made when this returns."""
    desk, owner = parts(request), owner_of(request)
    if not body.content.strip() and not body.attachment_ids:
        raise Refused(400, "the message is empty", param="content", cause=Cause("message-empty"))
    chat = await desk.state.run(desk.chats.get, owner, chat_id)
    question = {"parent_id": body.parent_id, "role": "user", "content": body.content, "client_id": body.client_id}
    answer = _answer(desk, chat, body.model, body.settings)
    with _room(desk, request):
        chat, (asked, *answers) = await desk.state.run(desk.chats.add_messages, owner, chat_id, [question, answer],
                                                       body.attachment_ids)
        desk.hub.tell(owner, "chat", {"chat": chat})
        desk.hub.tell(owner, "message", {"message": desk.answering.message(asked)})
        return {"user": desk.answering.message(asked), "answer": _start(desk, owner, answers[0]) if answers else None}


@router.post("/chats/{chat_id}/messages/{message_id}/regenerate", status_code=201)
async def regenerate(chat_id: str, message_id: str, body: bodies.Again, request: Request) -> Json:
    """Answer the same question once more, beside the answer (or to the question) that is named."""
    desk, owner = parts(request), owner_of(request)
    chat = await desk.state.run(desk.chats.get, owner, chat_id)
    old = await desk.state.run(desk.chats.message, owner, chat_id, message_id)
    answer = _answer(desk, chat, body.model, body.settings)
    answer["parent_id"] = old["id"] if old["role"] == "user" else old["parent_id"]
    if answer["parent_id"] is None:  # of an imported chat
        raise Refused(409, "there is no question that this answers", "ask one instead")
    with _room(desk, request):
        chat, (new,) = await desk.state.run(desk.chats.add_messages, owner, chat_id, [answer])
        desk.hub.tell(owner, "chat", {"chat": chat})
        return {"answer": _start(desk, owner, new)}


@router.post("/chats/{chat_id}/messages/{message_id}/continue")
async def go_on(chat_id: str, message_id: str, request: Request) -> Json:
    """Go on with an answer that was stopped, interrupted or cut off."""
    desk, owner = parts(request), owner_of(request)
    old = await desk.state.run(desk.chats.message, owner, chat_id, message_id)
    if old["role"] != "assistant" or message_id in desk.answering.live:
        raise Refused(409, "only an answer that has ended can be gone on with", cause=Cause("continue-not-now"))
    changes = {"status": "queued", "error": None}
    with _room(desk, request):
        rev = await desk.state.run(desk.chats.change_message, owner, chat_id, message_id,
                                   {**changes, "server": desk.answering.server})
        if message_id in desk.answering.live:
            raise Refused(409, "somebody else goes on with it", cause=Cause("continue-not-now"))
        answer = desk.answering.start(owner, {**old, **changes, "rev": rev})
    desk.hub.tell(owner, "message", {"message": answer})
    return {"answer": answer}


@router.post("/chats/{chat_id}/messages/{message_id}/stop")
async def stop(chat_id: str, message_id: str, request: Request) -> Json:
    """End an answer as it is."""
    desk, owner = parts(request), owner_of(request)
    live = desk.answering.find(owner, chat_id, message_id)
    if live is not None:
        await desk.answering.stop(live)
    message = await desk.state.run(desk.chats.message, owner, chat_id, message_id)
    return {"answer": desk.answering.message(message)}


@router.post("/chats/{chat_id}/messages/{message_id}/end-thinking")
async def end_thinking(chat_id: str, message_id: str, request: Request) -> Json:
    """Have the model end its thinking and go on to its answer."""
    desk, owner = parts(request), owner_of(request)
    live = desk.answering.find(owner, chat_id, message_id)
    if live is None:
        await desk.state.run(desk.chats.message, owner, chat_id, message_id)
        return {"has_ended": False}
    return {"has_ended": desk.answering.end_thinking(live)}


@router.get("/chats/{chat_id}/messages/{message_id}/tokens")
async def look_inside(chat_id: str, message_id: str, request: Request) -> Json:
    """The tokens of an answer with what else was likely, and how often each expert of each layer ran."""
    desk, owner = parts(request), owner_of(request)
    await desk.state.run(desk.chats.message, owner, chat_id, message_id)
    return await desk.state.run(desk.insides.get, message_id)


@router.patch("/chats/{chat_id}/messages/{message_id}")
async def change_message(chat_id: str, message_id: str, body: bodies.MessageChange, request: Request) -> Json:
    """Change the text of a message, or how it is rated."""
    desk, owner = parts(request), owner_of(request)
    old = await desk.state.run(desk.chats.message, owner, chat_id, message_id)
    if body.content is not None and message_id in desk.answering.live:
        raise Refused(409, "the answer is being made", "stop it first", cause=Cause("answer-at-work"))
    changes = body.model_dump(exclude_none=True)
    if changes:
        await _change(desk, owner, old, changes)
    if live := desk.answering.live.get(message_id):
        live.change(changes)
    else:
        old = await desk.state.run(desk.chats.message, owner, chat_id, message_id)
    message = desk.answering.message(old)
    desk.hub.tell(owner, "message", {"message": message})
    return message


async def _change(desk: ChatServer, owner: str, old: Message, changes: Json) -> None:
    """Change a message in the database; once more if it ended meanwhile: then the end was told without the change."""
    change = functools.partial(desk.state.run, desk.chats.change_message, owner, old["chat_id"], old["id"], changes)
    was_at_work = old["id"] in desk.answering.live
    await change()
    if was_at_work and old["id"] not in desk.answering.live:
        await change()
    if changes.get("content", old["content"]) != old["content"]:
        await desk.state.run(desk.insides.forget, old["id"])


@router.delete("/chats/{chat_id}/messages/{message_id}", status_code=204)
async def delete_message(chat_id: str, message_id: str, request: Request) -> Response:
    """Delete a message with everything that follows it."""
    desk, owner = parts(request), owner_of(request)
    below = await desk.state.run(desk.chats.below, owner, chat_id, message_id)
    await desk.answering.stop_all(owner, chat_id, below)
    chat, ids = await desk.state.run(desk.chats.delete_message, owner, chat_id, message_id)
    for id in ids:
        desk.hub.tell(owner, "message-deleted", {"chat_id": chat_id, "id": id})
    desk.hub.tell(owner, "chat", {"chat": chat})
    return Response(status_code=204)


@contextlib.contextmanager
def _room(desk: ChatServer, request: Request) -> Iterator[None]:
    """Room for an answer. Refuses (429) one too many: at work, or in this minute."""
    caller: Caller = request.state.caller
    with desk.answering.room(caller.owner, caller.concurrent):
        desk.doors.meter.count(caller)
        yield


def _answer(desk: ChatServer, chat: Chat, model: str | None, settings: bodies.Settings) -> Message:
    """The answer that is to be made, with a model that is there: the chat's may have gone, or be the shell's."""
    shelf = desk.service.shelf
    name = shelf.choose(model) if model is not None or not shelf.has(chat["model"]) else chat["model"]
    return desk.answering.new(name, {**chat["settings"], **settings.given()})


def _start(desk: ChatServer, owner: str, message: Message) -> Message:
    """Begin with a stored answer; one that was begun before (the message was sent twice) is left alone."""
    if message["status"] not in AT_WORK or message["id"] in desk.answering.live:
        return desk.answering.message(message)
    answer = desk.answering.start(owner, message)
    desk.hub.tell(owner, "message", {"message": answer})
    return answer
