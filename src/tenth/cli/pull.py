"""``tenth pull``: download models into the library."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from tenth.cli.progress import progress_bar
from tenth.cli.terminal import in_units, write_json, write_line


def command(
    names: Annotated[list[str], typer.Argument(
        metavar="NAMES", help="smollm2:135m, hf:org/repo:QUANT or an https:// address.")],
    force: Annotated[bool, typer.Option("--force", help="Download also what is already here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """Download a model.

    A pull that broke off goes on where it stopped.
    """
    from tenth.library import Record, pull

    def facts(record: Record) -> dict[str, Any]:
        return asdict(record) | {"size_bytes": record.size_bytes, "paths": [str(path) for path in record.paths()]}

    records = []
    with progress_bar() as progress:
        for name in names:
            records.append(pull(name, progress=progress, force=force))
    if as_json:
        write_json([facts(record) for record in records])
        return
    for record in records:
        pinned = all(file.pinned for file in record.files)
        how = "sha256 as pinned" if pinned else "sha256 computed here, nothing to compare it with"
        write_line(f"{record.name}: {in_units(record.size_bytes)}, {how}, {record.paths()[0]}")
