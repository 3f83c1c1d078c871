"""The typer side of the command line: builds the one command that runs, or all of them for shell completion."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer
import typer.main

from tenth.cli.flags import expand
from tenth.cli.main import ALIASES, COMMANDS, COMPLETE_VARIABLE

# Plain help (no rich): importing rich would double the time of `tenth run --help`.
_STYLE: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False,
                          "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 110}}


def function(name: str) -> Callable[..., Any]:
    """The ``command`` of module ``tenth.cli.<name>``."""
    found: Callable[..., Any] = import_module(f"tenth.cli.{name}").command
    return found


def build(name: str) -> Any:
    """One command as typer sees it."""
    app = typer.Typer(add_completion=False, **_STYLE)
    app.command(name)(expand(function(name)))
    return typer.main.get_command(app)


def build_all() -> Any:
    """Every command in one group: what shell completion walks."""
    app = typer.Typer(name="tenth", add_completion=True, **_STYLE)
    for name in COMMANDS:
        app.command(name)(expand(function(name)))
    for alias, name in ALIASES.items():
        app.command(alias, hidden=True)(expand(function(name)))
    return typer.main.get_command(app)


def run(name: str, args: list[str]) -> int:
    """Runs one command and gives its exit code; errors are raised for main to print."""
    command = build(name)
    try:
        # Not command.main(): that would turn Ctrl-C and a closed pipe into exit codes of its own, silently.
        with command.make_context(f"tenth {name}", args) as context:
            code = command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    return code if isinstance(code, int) else 0


def complete() -> int:
    """Answers the shell's question (in environment variables) for completions."""
    build_all().main(args=[], prog_name="tenth", complete_var=COMPLETE_VARIABLE)
    return 0
