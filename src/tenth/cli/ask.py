"""``tenth ask QUESTION``: the default model, one question."""

from __future__ import annotations

from typing import Annotated

import typer

from tenth.cli.answer import Question, answer
from tenth.cli.flags import AnswerFlags, GrammarFlags, SamplingFlags
from tenth.cli.prompt import gather
from tenth.config import EngineConfig
from tenth.errors import RequestError


def command(
    sampling: SamplingFlags,
    engine: EngineConfig,
    flags: AnswerFlags,
    grammar: GrammarFlags,
    question: Annotated[list[str] | None, typer.Argument(help="The question; piped text is added to it.",
                                                         show_default=False)] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="MODEL",
                                                  help="Another model than the default one.")] = None,
) -> None:
    """Ask the default model a question.

    The model is downloaded on first use. The answer goes to standard output.
    """
    prompt = gather(" ".join(question or []))
    if not prompt:
        raise RequestError("there is no question", 'for example: tenth ask "Why is the sky blue?"')
    answer(Question(model, prompt, sampling, engine, flags, grammar))
