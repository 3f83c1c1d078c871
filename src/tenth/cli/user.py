"""``tenth user new|list|change|logout|remove``: accounts of the server's chats."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenth.cli.prompt import checked, read_input
from tenth.cli.terminal import is_terminal, message, table, write_json, write_line
from tenth.errors import RequestError

if TYPE_CHECKING:
    from tenth.server.accounts import Accounts, User
    from tenth.server.state import State

NAMED = ("new", "change", "remove")  # actions that need a name
_WAYS = "type it, pipe it in, or --no-password"


def command(
    action: Annotated[str, typer.Argument(help="new, list, change, logout or remove.", metavar="ACTION")],
    name: Annotated[str | None, typer.Argument(help="The account's name.", show_default=False)] = None,
    admin: Annotated[bool | None, typer.Option("--admin/--member", help=(
        "May keep accounts and models, or only chat; the first account has to be an admin's."))] = None,
    password: Annotated[bool | None, typer.Option(help=(
        "Ask for a password (or read it from standard input); without one, keys and links log in. "
        "Default: a new account gets one."))] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=0, help=(
        "Most requests in a minute; 0 means no limit."))] = None,
    concurrent: Annotated[int | None, typer.Option(min=0, help="Most requests at work at a time; 0: no limit.")] = None,
    database: Annotated[str | None, typer.Option(help="As for tenth serve.", metavar="URL")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make, list, change or remove accounts of the server.

    From the first account on, everybody has to log in, also to a server that runs. The first one takes over the chats
    that are there. "logout" ends the sessions of an account; without a name those of everybody. "remove" deletes all
    that the account owns.
    """
    from tenth.server.accounts import Accounts
    from tenth.server.state import State, state_place

    if action not in (*NAMED, "list", "logout") or (name is None if action in NAMED else name and action == "list"):
        raise RequestError(f"tenth user {action} cannot be done", "tenth user new NAME --admin, tenth user list, "
                           "tenth user change NAME, tenth user logout [NAME], tenth user remove NAME")
    checked(name or "", "the name")
    limits = {key: value or None for key, value in (("requests_per_minute", requests_per_minute),
                                                    ("concurrent", concurrent)) if value is not None}
    state = State(state_place(database))
    try:
        accounts = Accounts(state)
        if action == "new":
            secret = _password(name or "") if password is not False else None
            _show(accounts.new(name or "", secret, "admin" if admin else "member", **limits), as_json)
        elif action == "change":
            changes: dict[str, Any] = {**limits}
            if admin is not None:
                changes["role"] = "admin" if admin else "member"
            if password:
                changes["password"] = _password(name or "")
            _show(accounts.change(name or "", changes), as_json)
        elif action == "remove":
            _remove(state, accounts, name or "", as_json)
        elif action == "logout":
            n_ended = accounts.log_out(name)
            write_json({"ended_sessions": n_ended}) if as_json else write_line(f"ended {n_ended} sessions")
        else:
            _list(accounts.all(), as_json)
    finally:
        state.close()


def _password(name: str) -> str:
    """A password that is typed twice, or the first line of standard input."""
    if is_terminal(sys.stdin):
        return checked(_typed(name), "the password")
    line, _, _ = read_input().partition("\n")
    if not line:
        raise RequestError("a password is needed", _WAYS)
    return line


def _typed(name: str) -> str:
    from getpass import getpass

    try:
        secret = getpass(f"password for {name}: ")
        again = getpass("once more: ")
    except EOFError:
        raise RequestError("a password is needed", _WAYS) from None
    if again != secret:
        raise RequestError("the two passwords differ")
    return secret


def _remove(state: State, accounts: Accounts, name: str, as_json: bool) -> None:
    from tenth.server.chats.parts import erase
    from tenth.server.chats.search import open_index
    from tenth.server.chats.store import Chats

    chats = Chats(state, open_index(state))
    user = accounts.remove(name, chats.deletion.delete_all)
    chats.deletion.sweep()
    erase(state)
    write_json(asdict(user)) if as_json else write_line(f"removed {user.name} ({user.id}) with all that it owned")


def _show(user: User, as_json: bool) -> None:
    if as_json:
        write_json(asdict(user))
        return
    write_line(f"{user.name} ({user.id}): {user.role}")
    if not user.has_password:
        message(f"it has no password; tenth key new NAME --account {user.name} makes a key for it")


def _list(users: list[User], as_json: bool) -> None:
    if as_json:
        write_json([asdict(user) for user in users])
        return
    rows = [(user.name, user.id, user.role, time.strftime("%Y-%m-%d", time.gmtime(user.created_at)), _limits(user))
            for user in users]
    if rows:
        write_line(table(rows))


def _limits(user: User) -> str:
    parts = [f"{user.requests_per_minute} requests/min" if user.requests_per_minute else "",
             f"{user.concurrent} at a time" if user.concurrent else "", "" if user.has_password else "no password"]
    return ", ".join(part for part in parts if part)
