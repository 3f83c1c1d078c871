"""``tenth completion SHELL``: the script with which a shell completes tenth's commands and flags."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tenth.cli.main import COMPLETE_VARIABLE
from tenth.cli.terminal import write_line


class Shell(StrEnum):
    """The shells that can be completed."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def command(shell: Annotated[Shell, typer.Argument(help="Which shell.")]) -> None:
    """Print the script that completes tenth's commands in a shell.

    bash: eval "$(tenth completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc, after compinit.
    fish: tenth completion fish > ~/.config/fish/completions/tenth.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # not in __all__

    write_line(get_completion_script(prog_name="tenth", complete_var=COMPLETE_VARIABLE, shell=shell.value))
