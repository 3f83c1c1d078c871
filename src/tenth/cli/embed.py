"""``tenth embed MODEL``: vectors of the lines of standard input."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

from tenth.cli.flags import ModelArgument
from tenth.cli.opening import open_model
from tenth.cli.prompt import read_lines
from tenth.cli.terminal import write_json, write_line
from tenth.config import EngineConfig


def command(
    model: ModelArgument,
    engine: EngineConfig,
    json: Annotated[bool, typer.Option("--json", help="Print one object with vectors and tokens.")] = False,
    dimensions: Annotated[int | None, typer.Option("--dimensions", min=1, metavar="N", help=(
        "Only the first N numbers, for models that were trained for it."))] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut lines that are too long.")] = False,
) -> None:
    """Turn lines of standard input into vectors of length 1.

    One JSON array a line, in order; empty lines are left out. The model has to be an embedding model.
    """
    texts = read_lines()
    with open_model(model, engine) as opened:
        rows = opened.embed(texts, dimensions=dimensions, truncate=truncate)
        if json:
            n_tokens = sum(map(len, opened.prepare_texts(texts, truncate=truncate)))
            write_json({"model": opened.name, "embeddings": rows.tolist(), "usage": {"prompt_tokens": n_tokens}})
            return
    for row in rows.tolist():
        write_line(json_format.dumps(row))
