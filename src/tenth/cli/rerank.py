"""``tenth rerank MODEL QUERY``: how well the lines of standard input answer a question."""

from __future__ import annotations

from typing import Annotated

import typer

from tenth.cli.flags import ModelArgument
from tenth.cli.opening import open_model
from tenth.cli.prompt import checked, read_lines
from tenth.cli.terminal import write_json, write_line
from tenth.config import EngineConfig


def command(
    model: ModelArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question.")],
    engine: EngineConfig,
    json: Annotated[bool, typer.Option("--json", help="Print one object with scores and line numbers.")] = False,
    top: Annotated[int | None, typer.Option("--top", min=1, metavar="N", help="Print only the best N.")] = None,
) -> None:
    """Sort lines of standard input by how well they answer a question.

    Each with its score, 0 to 1, the best first; empty lines are left out. The model has to be a reranker.
    """
    texts = read_lines()
    with open_model(model, engine) as opened:
        scores = opened.rerank(checked(query, "the question"), texts).tolist()
        name = opened.name
    best = sorted(range(len(texts)), key=lambda i: (-scores[i], i))[:top]
    if json:
        results = [{"index": i, "relevance_score": scores[i], "document": texts[i]} for i in best]
        write_json({"model": name, "results": results})
        return
    for i in best:
        write_line(f"{scores[i]:.6f}  {texts[i]}")
