"""/api/session: who is asking, logging in and out. /api/users: the accounts, for admins. /api/pairing: links."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from tenth.errors import Cause
from tenth.server.accounts import User
from tenth.server.body import Body, JsonRoute
from tenth.server.chats.parts import ChatServer, parts
from tenth.server.failures import Refused
from tenth.server.keys import ANYBODY, Caller
from tenth.server.lan import link_of_page
from tenth.server.sessions import SESSION_S, cookie_of

router = APIRouter(route_class=JsonRoute, prefix="/api", tags=["chats"])
Json = dict[str, Any]


class LogIn(Body):
    """A name with its password, or a key, or what a pairing link has behind its "#"."""

    name: str | None = Field(default=None, max_length=64)
    password: str | None = Field(default=None, max_length=1024)
    key: str | None = Field(default=None, max_length=256)
    pairing: str | None = Field(default=None, max_length=256)


class PasswordChange(Body):
    """The password until now, and the one from now on."""

    old_password: str = Field(max_length=1024)
    password: str = Field(max_length=1024)


class NewUser(Body):
    """A new account. Without a password it can only be used with keys and links."""

    name: str = Field(max_length=64)
    password: str | None = Field(default=None, max_length=1024)
    role: Literal["admin", "member"] = "member"
    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    concurrent: int | None = Field(default=None, ge=1, le=1_000_000)


class UserChange(Body):
    """What to change of an account; a limit that is null is none."""

    password: str | None = Field(default=None, max_length=1024)
    role: Literal["admin", "member"] | None = None
    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    concurrent: int | None = Field(default=None, ge=1, le=1_000_000)


@router.get("/session")
async def get_session(request: Request) -> Json:
    """Who is asking, and whether somebody has to log in."""
    desk = parts(request)
    return await desk.state.run(_session, desk, request.state.caller)


@router.post("/session")
async def log_in(body: LogIn, request: Request) -> Response:
    """Log in: the answer sets a cookie."""
    desk = parts(request)
    doors, address = desk.doors, request.client.host if request.client else ""
    if body.name is not None and body.password is not None:
        secret = await desk.state.run(doors.sessions.log_in, body.name, body.password, address)
    elif body.key is not None:
        secret = await desk.state.run(doors.sessions.log_in_with_key, body.key, address)
    elif body.pairing is not None:
        secret = await desk.state.run(doors.sessions.pair, body.pairing, address)
    else:
        raise Refused(400, "name and password are needed, or key, or pairing")
    caller = await desk.state.run(doors.sessions.find, secret)
    response = JSONResponse(await desk.state.run(_session, desk, caller))
    response.set_cookie(desk.cookie, secret, max_age=int(SESSION_S), httponly=True, samesite="strict",
                        secure=request.scope["scheme"] == "https")
    return response


@router.post("/session/password", status_code=204)
async def change_password(body: PasswordChange, request: Request) -> Response:
    """Change your own password; it ends your sessions, on other devices too."""
    desk, caller = parts(request), request.state.caller
    if caller is None or caller.role == "local" or caller.key_id is not None:
        raise Refused(403, "only who is logged in to an account has a password", cause=Cause("password-nobody"))
    doors, address = desk.doors, request.client.host if request.client else ""
    await desk.state.run(doors.sessions.check_password, caller.name, body.old_password, address)
    await desk.state.run(doors.accounts.change, caller.owner, {"password": body.password})
    return Response(status_code=204)


@router.delete("/session", status_code=204)
async def log_out(request: Request) -> Response:
    """Log out: the cookie counts no more."""
    desk = parts(request)
    secret = cookie_of(request.headers.get("cookie", ""), desk.cookie)
    if secret:
        await desk.state.run(desk.doors.sessions.close, secret)
    response = Response(status_code=204)
    response.delete_cookie(desk.cookie, httponly=True, samesite="strict")
    return response


@router.post("/pairing", status_code=201)
async def pair(body: Body, request: Request) -> Json:
    """A link that logs another device in as you, once and soon: what the QR code of the page says."""
    desk, caller = parts(request), request.state.caller
    host = request.headers.get("host", "")
    return asdict(await desk.state.run(link_of_page, desk.doors.sessions, caller, desk.lan, desk.config, host))


@router.get("/users")
async def list_users(request: Request) -> Json:
    """Every account."""
    desk = parts(request)
    return {"users": [_user(user) for user in await desk.state.run(desk.doors.accounts.all)]}


@router.post("/users", status_code=201)
async def new_user(body: NewUser, request: Request) -> Json:
    """Make an account."""
    desk = parts(request)
    return _user(await desk.state.run(desk.doors.accounts.new, body.name, body.password, body.role,
                                      body.requests_per_minute, body.concurrent))


@router.patch("/users/{id}")
async def change_user(id: str, body: UserChange, request: Request) -> Json:
    """Change an account."""
    desk = parts(request)
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    if changes.get("role", "") is None or changes.get("password", "") is None:
        raise Refused(400, "role and password cannot be null")
    return _user(await desk.state.run(desk.doors.accounts.change, id, changes))


@router.delete("/users/{id}", status_code=204)
async def remove_user(id: str, request: Request) -> Response:
    """Delete an account with all that it owns."""
    desk = parts(request)
    user = await desk.state.run(desk.doors.accounts.get, id)
    await desk.answering.stop_all(user.id)
    await desk.state.run(desk.doors.accounts.remove, id, desk.chats.deletion.delete_all)
    desk.service.abort(user.id)
    await desk.state.run(desk.chats.deletion.sweep)
    return Response(status_code=204)


def _session(desk: ChatServer, caller: Caller | None) -> Json:
    user = None if caller is None else {"id": caller.owner, "name": caller.name, "role": caller.role}
    return {"user": user, "needs_login": caller is None or desk.doors.need_login(),
            "can_manage": caller is not None and "manage" in caller.scopes, "is_open": caller is ANYBODY}


def _user(user: User) -> Json:
    return {"id": user.id, "name": user.name, "role": user.role, "has_password": user.has_password,
            "requests_per_minute": user.requests_per_minute, "concurrent": user.concurrent,
            "created_at": user.created_at}
