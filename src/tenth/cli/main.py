"""The ``tenth`` command: finds the command asked for, runs it, and turns whatever happens into an exit code.

This file imports nothing slow: ``tenth --help`` must answer within 0.15 s and importing typer alone takes about
0.1 s, so the command's own module (and typer) is imported only when a command runs.
"""

from __future__ import annotations

import os
import sys

from tenth.cli.terminal import is_terminal, write_line

TYPE_CHECKING = False  # importing typing takes a tenth of the time that --help may take
if TYPE_CHECKING:
    from collections.abc import Sequence

# Name -> one line. Each is a module of this folder with a function ``command``; a test compares the lines with its
# docstring.
COMMANDS = {
    "ask": "Ask the default model a question.",
    "run": "Answer one prompt with a model.",
    "chat": "Talk with a model.",
    "app": "Open the chat page in the browser, with a server if none runs.",
    "serve": "Serve models to programs: OpenAI's, Anthropic's and Ollama's APIs.",
    "key": "Make, list or revoke keys to the server.",
    "user": "Make, list, change or remove accounts of the server.",
    "pull": "Download a model.",
    "list": "List the models on this machine and those that can be downloaded.",
    "show": "Show what a model is.",
    "rm": "Remove a model from this machine.",
    "verify": "Check that a model's file is what it should be.",
    "embed": "Turn lines of standard input into vectors of length 1.",
    "rerank": "Sort lines of standard input by how well they answer a question.",
    "tokenize": "Turn text from standard input into token ids.",
    "plan": "Say whether a model would run here, and how fast, without loading it.",
    "inspect": "Show how a model is computed: its program, its kernels, its profile.",
    "doctor": "Show what this machine is, how fast it is, and what is missing.",
    "bench": "Measure how fast a model runs, and its share of what this machine could do.",
    "completion": "Print the script that completes tenth's commands in a shell.",
}
ALIASES = {"ls": "list"}

EXIT_CODES = """\
exit codes: 0 success, 1 failure, 2 request, 3 model file, 4 machine (memory, disk, network, CPU),
            70 internal error, 130 interrupted, 141 output closed"""

COMPLETE_VARIABLE = "_TENTH_COMPLETE"  # set by the shell while it completes a line


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (default: this process's) and gives its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = _take_debug(args)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows "?" and goes on
    try:
        code = _dispatch(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BaseException as error:
        if debug and not isinstance(error, (BrokenPipeError, SystemExit)):
            import traceback

            traceback.print_exc()
        from tenth.cli.failure import report

        code = report(error, _name(args))
        if argv is None and isinstance(error, KeyboardInterrupt):
            import signal

            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a step may have to end first; Ctrl-C again does not wait
        return code


def _take_debug(args: list[str]) -> bool:
    """Removes ``--debug`` wherever it stands before a ``--``, and says whether it was there."""
    end = args.index("--") if "--" in args else len(args)
    found = "--debug" in args[:end]
    args[:end] = [arg for arg in args[:end] if arg != "--debug"]
    return found


def _name(args: list[str]) -> str | None:
    name = ALIASES.get(args[0], args[0]) if args else "chat"
    return name if name in COMMANDS else None


def _dispatch(args: list[str]) -> int:
    if os.environ.get(COMPLETE_VARIABLE):
        from tenth.cli.commands import complete

        return complete()
    if not args:
        args.append("chat" if is_terminal(sys.stdin) else "ask")  # what is piped in is the question
    first = args[0]
    if first in ("-h", "--help") or args == ["help"]:
        write_line(help_text())
        return 0
    if first in ("-V", "--version"):
        import tenth

        write_line(f"tenth {tenth.__version__}")
        return 0
    if first == "help":
        args[:] = [args[1], "--help"]
    name = _name(args)
    if name is None:
        raise _unknown(args[0])
    from tenth.cli.commands import run
    from tenth.cpu import require_supported_cpu

    require_supported_cpu()
    return run(name, args[1:])


def help_text() -> str:
    """What ``tenth --help`` prints."""
    width = max(map(len, COMMANDS)) + 2
    rows = "\n".join(f"  {name:<{width}}{line}" for name, line in COMMANDS.items())
    return f"""\
usage: tenth [COMMAND] [ARGUMENTS]

Open models at a tenth: run open-weight language models on the machine you own.
Without a command, tenth opens a chat; piped text is a question.

commands:
{rows}

  tenth COMMAND --help   says what a command takes
  --version              says which tenth this is
  --debug                shows the whole trace when something fails

{EXIT_CODES}"""


def _unknown(name: str) -> Exception:
    import difflib

    from tenth.errors import RequestError

    near = difflib.get_close_matches(name, [*COMMANDS, *ALIASES, "help"], n=1)
    hint = f"did you mean tenth {near[0]}?" if near else "tenth --help lists the commands"
    if name.startswith("-"):
        return RequestError(f"tenth itself has no option {name}", "options of a command come after its name")
    return RequestError(f"there is no command {name!r}", hint)


if __name__ == "__main__":
    sys.exit(main())
