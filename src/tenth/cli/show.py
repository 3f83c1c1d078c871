"""``tenth show``: facts about one model, from the catalogue and from its file's header."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tenth.cli.flags import known_models
from tenth.cli.terminal import in_units, write_json, write_line

if TYPE_CHECKING:
    from tenth.library import Facts, HeaderFacts


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name, or the path of a GGUF file.",
                                        autocompletion=known_models)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Show what a model is."""
    from tenth.library import show

    facts = show(name)
    if as_json:
        write_json(asdict(facts))
        return
    for label, value in _rows(facts):
        write_line(f"{label:<13} {value}")


def _rows(facts: Facts) -> list[tuple[str, str]]:
    rows = [("name", ", ".join((facts.name, *facts.aliases)))]
    entry = facts.entry
    if entry is not None:
        rows += [("description", entry.description), ("licence", entry.licence), ("source", entry.origin)]
        rows += [("state", entry.state), ("size", in_units(entry.size_bytes)), ("pulled", entry.pulled_at)]
        rows += [("verified", entry.verified_at)]
    rows += [("sha256", digest) for digest in facts.sha256]
    rows += [("path", str(facts.path or ""))]
    if facts.header is not None:
        rows += _header_rows(facts.header)
    return [(label, value) for label, value in rows if value]


def _header_rows(header: HeaderFacts) -> list[tuple[str, str]]:
    formats = ", ".join(f"{name} {100 * n / max(header.parameters, 1):.1f} %" for name, n in header.formats.items())
    return [
        ("title", header.title),
        ("architecture", header.architecture),
        ("parameters", f"{header.parameters:,}"),
        ("layers", str(header.n_layers or "")),
        ("formats", formats),
        ("context", f"{header.context_tokens:,} tokens" if header.context_tokens else ""),
        ("tokenizer", "yes" if header.has_tokenizer else "no"),
        ("chat template", "yes" if header.has_template else "no"),
    ]
