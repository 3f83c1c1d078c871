"""``tenth run MODEL [PROMPT]``: one prompt, one answer; without a prompt at a terminal, a chat."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tenth.cli.answer import NO_GRAMMAR, Question, answer
from tenth.cli.flags import AnswerFlags, GrammarFlags, ModelArgument, SamplingFlags
from tenth.cli.prompt import gather
from tenth.cli.terminal import is_terminal
from tenth.config import EngineConfig
from tenth.errors import RequestError


def command(
    model: ModelArgument,
    sampling: SamplingFlags,
    engine: EngineConfig,
    flags: AnswerFlags,
    grammar: GrammarFlags,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; piped text is added to it.",
                                                 show_default=False)] = None,
) -> None:
    """Answer one prompt with a model.

    The prompt is the argument, what is piped in, or both: tenth run MODEL "Summarise:" < FILE. Without either, at a
    terminal, a chat opens.
    """
    text = gather(prompt)
    question = Question(model, text, sampling, engine, flags, grammar)
    if text:
        answer(question)
    elif is_terminal(sys.stdin) and not flags.json and not flags.raw and grammar == NO_GRAMMAR:
        from tenth.cli.chat import converse

        converse(question, history=True)
    else:
        raise RequestError("there is no prompt", 'give it as argument or pipe it in: tenth run MODEL "Hello"')
