"""``tenth key new|list|revoke``: who may use the server."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tenth.cli.prompt import checked
from tenth.cli.terminal import message, write_json, write_line
from tenth.errors import RequestError

if TYPE_CHECKING:
    from tenth.server.keys import Key


def command(
    action: Annotated[str, typer.Argument(help="new, list or revoke.", metavar="ACTION")],
    name: Annotated[str | None, typer.Argument(help="The key's name.", show_default=False)] = None,
    scope: Annotated[list[str] | None, typer.Option(
        help="What it may do: infer, manage (pull models), metrics, accounts; may be repeated. Default: infer."
    )] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Most requests in a minute.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Most requests at work at a time.")] = None,
    account: Annotated[str | None, typer.Option(help="The account whose key it is; default: of its own.",
                                                show_default=False)] = None,
    database: Annotated[str | None, typer.Option(help="As for tenth serve.", metavar="URL")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make, list or revoke keys to the server.

    A new key is printed once, and kept as a hash; one of an account sees what the account sees. Once there is a key,
    every request needs one; a running server has to be started again for the first.
    """
    from tenth.server.accounts import Accounts
    from tenth.server.keys import Keys
    from tenth.server.state import State, state_place

    what = _checked(action, checked(name, "the name") if name else name)
    state = State(state_place(database))
    try:
        keys = Keys(state)
        if what == "new":
            user = Accounts(state).get(checked(account, "the account")) if account else None
            secret = keys.new(name or "", tuple(scope or ["infer"]), requests_per_minute, concurrent,
                              user.id if user else None)
            message("the key, which is not shown again:")
            write_json({"name": name, "key": secret}) if as_json else write_line(secret)
        elif what == "revoke":
            revoked = keys.revoke(name or "")
            write_json(asdict(revoked)) if as_json else write_line(f"revoked {revoked.name} ({revoked.id})")
        elif as_json:
            write_json([asdict(key) for key in keys.all()])
        else:
            for key in keys.all():
                made = time.strftime("%Y-%m-%d", time.gmtime(key.created_at))
                state_text = "revoked" if key.revoked_at else "in use"
                write_line(f"{key.name:<20} {key.id}  {made}  {state_text:<8} {' '.join(key.scopes)}{_limits(key)}")
    finally:
        state.close()


def _limits(key: Key) -> str:
    """The limits of a key, behind its scopes."""
    limits = ((key.requests_per_minute, "a minute"), (key.concurrent, "at a time"))
    told = ", ".join(f"{most} {what}" for most, what in limits if most is not None)
    return f"  (at most {told})" if told else ""


def _checked(action: str, name: str | None) -> Literal["new", "list", "revoke"]:
    if action == "list" and name is None:
        return "list"
    if action == "new" and name is not None:
        return "new"
    if action == "revoke" and name is not None:
        return "revoke"
    raise RequestError(f"tenth key {action} cannot be done",
                       "tenth key new NAME, tenth key list, tenth key revoke NAME")
