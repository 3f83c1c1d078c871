"""``tenth rm``: delete models of the library."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tenth.cli.flags import known_models
from tenth.cli.terminal import in_units, write_json, write_line
from tenth.errors import RequestError


def command(
    names: Annotated[list[str], typer.Argument(metavar="NAMES", help="Names as `tenth list` shows them.",
                                               autocompletion=known_models)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was deleted as JSON.")] = False,
) -> None:
    """Remove a model from this machine.

    Also what a broken-off pull left of it; never a file outside the library.
    """
    from tenth.library import plan_removal, remove

    removals = [plan_removal(name) for name in names]  # all names are good before anything is deleted
    if not yes:
        _ask([f"{removal.name} ({in_units(removal.size_bytes)})" for removal in removals])
    done = [remove(removal.name) for removal in removals]
    if as_json:
        write_json([{"name": removal.name, "freed_bytes": removal.size_bytes} for removal in done])
        return
    for removal in done:
        write_line(f"{removal.name}: deleted, {in_units(removal.size_bytes)} freed")


def _ask(what: list[str]) -> None:
    """Go on only after a yes. Raises RequestError when nobody can answer."""
    if not sys.stdin.isatty():
        raise RequestError("rm asks before it deletes, and standard input is no terminal", "add --yes")
    if not typer.confirm(f"delete {', '.join(what)}?", err=True):
        raise typer.Exit(1)
