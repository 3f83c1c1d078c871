"""Writes docs/commands.md from the commands themselves: ``python -m tenth.cli.reference > docs/commands.md``."""

from __future__ import annotations

import inspect
from typing import Any

from tenth.cli import commands
from tenth.cli.main import ALIASES, COMMANDS, EXIT_CODES

HEAD = """\
# Commands

Made by `python -m tenth.cli.reference` from the commands; a test says that it is current.

`tenth` alone opens a chat, or answers what is piped in. Data goes to standard output, messages and progress to standard
error. `--debug` anywhere shows the whole trace when something fails.

| environment variable | what it does |
|---|---|
| `TENTH_HOME` | The data folder: models, chats, accounts, keys. `tenth doctor` says which it is. |
| `TENTH_DATABASE` | The PostgreSQL database of chats, accounts and keys, as `--database` of `tenth serve`. |
| `TENTH_MEMORY` | The memory budget where `--memory` gives none, such as 8GB. |
| `TENTH_ISA` | Use these kernels: scalar, avx2, avxvnni, avx512, vbmi or amx. For diagnosis: the text is the same. |
| `TENTH_TRACE` | A file to record which experts every token used, for `python -m tenth.bench.replay`. |
| `TENTH_STREAM` | Set: experts go through the store although they fit. For diagnosis: the text is the same. |
| `NO_COLOR` | No colours. |

Downloads also heed the variables of pip and of huggingface-hub, such as `PIP_INDEX_URL`, `HF_ENDPOINT` and `HF_TOKEN`.
"""


def commands_markdown() -> str:
    """The whole page."""
    exits = "\n".join(["```", *EXIT_CODES.splitlines(), "```"])
    aliases = ", ".join(f"`tenth {alias}` is `tenth {name}`" for alias, name in ALIASES.items())
    parts = [HEAD, f"{aliases}.\n", f"{exits}\n", *(section(name) for name in COMMANDS)]
    return "\n".join(parts)


def section(name: str) -> str:
    """One command: usage, what it does, its arguments and flags."""
    command = commands.build(name)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    flags = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    usage = " ".join(["tenth", name, *map(_place, arguments)])
    text = inspect.cleandoc(commands.function(name).__doc__ or "")
    lines = [f"## {name}\n", f"`{usage}`\n", f"{_escaped(text)}\n"]
    rows = [(_place(p), p.help or "", "") for p in arguments] + [(_names(p), p.help or "", _default(p)) for p in flags]
    if rows:
        lines += ["| | | default |", "|---|---|---|"]
        lines += [f"| `{what}` | {_escaped(help)} | {default} |" for what, help, default in rows]
        lines.append("")
    return "\n".join(lines)


def _place(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _names(option: Any) -> str:
    names = ", ".join(option.opts)
    if option.secondary_opts:
        names += " / " + ", ".join(option.secondary_opts)
    if option.is_flag:
        return names
    return f"{names} {option.metavar or 'TEXT'}"


def _default(option: Any) -> str:
    default = option.default
    if default is None or default == "" or (option.is_flag and default is False) or callable(default):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


if __name__ == "__main__":
    print(commands_markdown(), end="")
