"""``tenth list``: what is in the library, and with --all what could be."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tenth.cli.terminal import in_units, message, table, write, write_json

if TYPE_CHECKING:
    from tenth.library import Entry


def command(
    everything: Annotated[bool, typer.Option("--all", help="Also models of the catalogue that are not here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the models as JSON.")] = False,
) -> None:
    """List the models on this machine and those that can be downloaded."""
    from tenth.library import list_models

    entries = list_models(available=everything)
    if as_json:
        write_json([asdict(entry) for entry in entries])
    elif not entries:
        message("no models here yet: `tenth pull smollm2:135m` fetches one, `tenth list --all` shows more")
    else:
        write(_table(entries).rstrip() + "\n")


def _table(entries: list[Entry]) -> str:
    """Columns as wide as they need to be, never cut: output that may be piped must be whole."""
    rows: list[tuple[str, ...]] = [("NAME", "SIZE", "STATE", "PULLED", "VERIFIED", "WHAT")]
    for e in entries:
        what = e.description or e.origin
        rows.append((e.name, in_units(e.size_bytes), e.state, _day(e.pulled_at), _day(e.verified_at), what))
    return table(rows, right=frozenset({1}))


def _day(moment: str) -> str:
    return moment[:10] or "-"
