"""``tenth tokenize MODEL``: text to token ids, also for files that hold a vocabulary and no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tenth.cli.flags import ModelArgument
from tenth.cli.prompt import read_input
from tenth.cli.terminal import table, write_json, write_line

if TYPE_CHECKING:
    from tenth.text.tokenizer import Tokenizer


def command(
    model: ModelArgument,
    json: Annotated[bool, typer.Option("--json", help='Print {"ids": [...]}.')] = False,
    parse_special: Annotated[bool, typer.Option("--parse-special", help="Read names of control tokens in the text "
                                                                        "as these tokens.")] = False,
    no_special: Annotated[bool, typer.Option("--no-special", help="Leave out begin and end markers.")] = False,
) -> None:
    """Turn text from standard input into token ids.

    The text is taken as it is, with its last newline. Files that hold only a vocabulary will do.
    """
    tokenizer = open_tokenizer(model)
    text = read_input()
    ids = tokenizer.encode(text, special=not no_special, parse_special=parse_special)
    if json:
        write_json({"ids": ids})
    elif ids:
        write_line(table([(str(token), repr(tokenizer.decode([token], special=True))) for token in ids],
                         right=frozenset({0})))


def open_tokenizer(model: str) -> Tokenizer:
    """The tokenizer of a model. Tests put one of their own here."""
    import tenth
    from tenth.cli.opening import showing_progress
    from tenth.library import resolve

    with showing_progress() as progress:
        path = resolve(model, progress=progress)
    return tenth.open_tokenizer(path)
