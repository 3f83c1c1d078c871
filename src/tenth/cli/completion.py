"""``tenth completion SHELL``: the script with which a shell completes tenth's commands and flags."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tenth.cli.main import COMPLETE_VARIABLE
from tenth.cli.terminal import write_line

# Typer's own script for bash fails on names such as smollm2:135m, because bash takes ":" as the end of a word: here the
# parts are joined again, and the answers are cut to what follows the last ":", which is all that bash replaces.
BASH = """\
_tenth_completion() {
    local words=() join= i IFS=$'\\n'
    for ((i = 0; i <= COMP_CWORD; i++)); do
        if [[ $join || ( $i -gt 0 && ${COMP_WORDS[i]} == : ) ]]; then
            words[-1]+=${COMP_WORDS[i]}
        else
            words+=("${COMP_WORDS[i]}")
        fi
        [[ ${COMP_WORDS[i]} == *: ]] && join=1 || join=
    done
    local word=${words[-1]}
    COMPREPLY=($(COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) VARIABLE=complete_bash "$1"))
    [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*:}"}"}")
    return 0
}
complete -o default -F _tenth_completion tenth""".replace("VARIABLE", COMPLETE_VARIABLE)


class Shell(StrEnum):
    """The shells that can be completed."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def command(shell: Annotated[Shell, typer.Argument(help="Which shell.", metavar="SHELL")]) -> None:
    """Print the script that completes tenth's commands in a shell.

    bash: eval "$(tenth completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc, after compinit.
    fish: tenth completion fish > ~/.config/fish/completions/tenth.fish
    """
    if shell is Shell.bash:
        write_line(BASH)
        return
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # not in __all__

    write_line(get_completion_script(prog_name="tenth", complete_var=COMPLETE_VARIABLE, shell=shell.value))
