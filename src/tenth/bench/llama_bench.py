"""llama-bench of llama.cpp or ik_llama.cpp as a peer: which flags it has, its commands, what it prints.

Several sequences at once are measured by llama-batched-bench, when one lies beside the llama-bench.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tenth.bench.peer import run_program
from tenth.errors import RequestError, ResourceError


@dataclass(frozen=True)
class Trial:
    """One thing to measure. ``kind``: prompt, generation (behind ``depth`` tokens), or together (``sequences``)."""

    kind: str
    tokens: int
    depth: int = 0
    sequences: int = 1

    @property
    def name(self) -> str:
        """For tables."""
        if self.kind == "prompt":
            return f"prompt of {self.tokens}"
        if self.kind == "together":
            return f"{self.sequences} sequences at once, {self.tokens} tokens each"
        return f"generation of {self.tokens}" + (f" behind {self.depth}" if self.depth else "")


@dataclass
class LlamaBench:
    """One program with the flag sets to try. ``failed``: (test's name, flag set) -> why it was given up."""

    label: str
    program: Path
    flag_sets: list[tuple[str, ...]]
    help: str
    failed: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> LlamaBench:
        """``LABEL=PATH`` tries the flags the program is known for, ``LABEL=PATH,-fa 1,-fa 0`` those named.

        Raises RequestError for text of another form, ResourceError when the program cannot be run.
        """
        label, equals, rest = text.partition("=")
        path, *flags = rest.split(",")
        if not (label and equals and path):
            raise RequestError(f"the peer {text!r} is not LABEL=PATH or LABEL=PATH,FLAGS,FLAGS",
                               "for example llama.cpp=build/bin/llama-bench")
        help = help_of(Path(path))
        return cls(label, Path(path), [tuple(shlex.split(f)) for f in flags] or known_flag_sets(help), help)

    def command(self, test: Trial, file: Path, threads: int, flags: tuple[str, ...]) -> list[str] | None:
        """The command line, None when this program cannot measure that."""
        if test.kind == "together":
            program = self.program.with_name("llama-batched-bench")
            if not program.exists():
                return None
            return [str(program), "-m", str(file), "-t", str(threads), "-c", str(test.sequences * (test.tokens + 32)),
                    "-npp", "1", "-ntg", str(test.tokens), "-npl", str(test.sequences), *_batched(flags)]
        if test.kind == "prompt":
            lengths = ["-p", str(test.tokens), "-n", "0"]
        elif not test.depth:
            lengths = ["-p", "0", "-n", str(test.tokens)]
        elif "--n-depth" in self.help:
            lengths = ["-p", "0", "-n", str(test.tokens), "-d", str(test.depth)]
        elif "-gp <pp,tg>" in self.help:  # ik_llama.cpp: times the generation behind a prompt
            lengths = ["-p", "0", "-n", "0", "-gp", f"{test.depth},{test.tokens}"]
        else:
            return None
        return [str(self.program), "-m", str(file), "-t", str(threads), *lengths, "-r", "1", "-o", "json", *flags]

    def measure(self, test: Trial, file: Path, threads: int, flags: tuple[str, ...]) -> float | None:
        """Tokens per second of one turn; None when it cannot be measured. A failure is remembered, not repeated."""
        command = self.command(test, file, threads, flags)
        if command is None or (test.name, flags) in self.failed:
            return None
        try:
            printed = run_program(command)
            return parse_batched(printed, test) if test.kind == "together" else parse_row(printed, test)
        except ResourceError as error:
            self.failed[test.name, flags] = str(error)
            return None


def help_of(program: Path) -> str:
    """What ``--help`` prints, to either stream, whatever its exit code. Raises ResourceError."""
    try:
        done = subprocess.run([str(program), "--help"], capture_output=True, text=True, errors="replace", timeout=60,
                              stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceError(f"cannot run {program}: {error}") from error
    return done.stdout + done.stderr


def known_flag_sets(help: str) -> list[tuple[str, ...]]:
    """Flash attention always; with and without repacking where the program can switch it."""
    base = ("-fa", "1")
    if "-rtr" in help:
        return [base, (*base, "-rtr", "1")]
    if "--repack" in help:
        return [base, (*base, "--repack", "0")]
    return [base]


def _batched(flags: tuple[str, ...]) -> list[str]:
    """The same choice of repacking as llama-batched-bench spells it; flash attention is on or auto there."""
    text = " ".join(flags)
    return (["-rtr"] if "-rtr 1" in text else []) + (["--no-repack"] if "--repack 0" in text else [])


def parse_row(text: str, test: Trial) -> float:
    """Tokens per second of the one row that ``llama-bench -o json`` printed. Raises ResourceError.

    Rows are looked for one by one, so that a message that a build prints between them does no harm.
    """
    try:
        found = [json.loads(row) for row in re.findall(r"^\s*\{.*?^\s*\}", text, re.MULTILINE | re.DOTALL)]
        rows = [row for row in found if (row["n_gen"] > 0) == (test.kind == "generation")]
        if len(rows) == 1 and (rows[0]["n_prompt"] if test.kind == "prompt" else rows[0]["n_gen"]) == test.tokens:
            return float(rows[0]["avg_ts"])
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise ResourceError("the peer did not print what llama-bench -o json prints")


def parse_batched(text: str, test: Trial) -> float:
    """Tokens per second of the generation in the table of llama-batched-bench (column S_TG). Raises ResourceError."""
    for line in text.splitlines():
        cells = re.findall(r"[\d.]+", line) if line.lstrip().startswith("|") else []
        if len(cells) == 10 and cells[1:3] == [str(test.tokens), str(test.sequences)]:
            return float(cells[7])
    raise ResourceError("the peer did not print what llama-batched-bench prints")
