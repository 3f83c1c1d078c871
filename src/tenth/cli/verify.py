"""``tenth verify``: recompute sha256 and compare."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tenth.cli.flags import known_models
from tenth.cli.progress import progress_bar
from tenth.cli.terminal import message, write_json, write_line
from tenth.errors import ModelFileError

if TYPE_CHECKING:
    from tenth.library import Verification


def command(
    names: Annotated[list[str] | None, typer.Argument(
        metavar="NAMES", help="Names as `tenth list` shows them; none means all.", autocompletion=known_models)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Check that a model's file is what it should be.

    Recomputes sha256 and compares. Exits with 3 when one differs.
    """
    from tenth.library import list_models, verify

    chosen = names or [entry.name for entry in list_models() if entry.state in ("ready", "changed")]
    results = []
    with progress_bar() as progress:
        for name in chosen:
            results.append(verify(name, progress=progress))
    if as_json:
        write_json([asdict(result) | {"ok": result.ok} for result in results])
    else:
        for result in results:
            _print(result)
    if not all(result.ok for result in results):
        raise typer.Exit(ModelFileError.exit_code)


def _print(result: Verification) -> None:
    if result.ok:
        against = "the digest pinned beforehand" if result.pinned else "the digest computed at the download"
        write_line(f"{result.name}: ok, agrees with {against}")
        return
    for file in result.files:
        if not file.ok:
            found = file.found_sha256 or "(cannot be read)"
            write_line(f"{result.name}: {file.path} has sha256 {found}, expected {file.expected_sha256}")
    message(f"hint: `tenth pull {result.name}` fetches it again")
