"""A mixture of experts within memory budgets: tenth, its peers, and the most that the disk allows, in one command.

    python -m tenth.bench.budgets MODEL.gguf --peer llama.cpp=PATH/llama-bench --peer ik=PATH/llama-bench --out FOLDER

For each of --caps every engine runs in turn in a control group with that limit, page cache included, beginning with a
cold file; "none" has no limit and measures what is in memory altogether. tenth says when it is ready, and at
once answers a prompt of 16 tokens with 16; when the memory of its slots has been provided, it generates 128 behind
another prompt of 16, and takes one of 128. Beside that the disk is read directly, and the routing of that very run goes
through a simulated LRU cache (ideal.py). Peers run with their file mapped, and with
each --read-ahead of the disk in turn, which is put back afterwards. FOLDER gets budgets.json and
budgets.md; runs are added to those that are there, so that long measurements can be taken in pieces (--only). Needs
root, and a machine where nothing else runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tenth.bench.budgets_table import markdown
from tenth.bench.control_group import ControlGroup, control_group
from tenth.bench.ideal import ExpertFile, groups, missed, read_seconds
from tenth.bench.limits import random_read_rate
from tenth.bench.llama_bench import LlamaBench, Trial, parse_row
from tenth.bench.machine import busy_share, read_machine
from tenth.bench.peer import run_program
from tenth.bench.process import LineProcess
from tenth.bench.read_ahead import read_ahead
from tenth.config import parse_bytes
from tenth.errors import RequestError, ResourceError, TenthError
from tenth.tracing import VARIABLE, read_trace

CONTEXT_TOKENS = 1024
SHORT_PROMPT, PROMPT, GENERATE, FIRST_GENERATE = 16, 128, 128, 16
LONG_PROMPT = 512  # when everything is in memory
DISK_SECONDS = 4.0
SETTLED_SECONDS, SETTLED_BYTES = 0.5, 1 << 20  # memory that grows by less in this time does not grow
TENTH = "tenth"


@dataclass(frozen=True)
class Cap:
    """A limit as it was written; None: there is none."""

    name: str
    n_bytes: int | None

    @classmethod
    def parse(cls, text: str) -> Cap:
        """ "8GiB" or "none". Raises RequestError."""
        return cls(text, None if text == "none" else parse_bytes(text, "--caps"))


@dataclass(frozen=True)
class Settings:
    """What is measured, of which file."""

    file: Path
    caps: tuple[Cap, ...]
    peers: tuple[LlamaBench, ...]
    turns: int
    threads: int
    peer_tokens: int
    read_aheads: tuple[int | None, ...]  # kilobytes; None: as the machine is set
    only: tuple[str, ...]

    def takes(self, who: str) -> bool:
        """Whether an engine is to be measured."""
        return not self.only or who in self.only


# ---------------------------------------------------------------- one run of one engine


@contextlib.contextmanager
def limited(cap: Cap) -> Iterator[ControlGroup | None]:
    """A control group with the limit, and a page cache that is empty."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        raise ResourceError(f"the page cache cannot be emptied: {error.strerror}", "run this as root") from error
    if cap.n_bytes is None:
        yield None
        return
    with control_group(cap.n_bytes) as group:
        yield group


def run_tenth(settings: Settings, experts: ExpertFile, cap: Cap) -> dict[str, Any]:
    """All of tenth's figures under one limit."""
    with tempfile.TemporaryDirectory() as folder:
        trace, memory = Path(folder) / "trace.npz", str(cap.n_bytes or 0)
        command = [sys.executable, "-m", "tenth.bench.budgets_driver", str(settings.file), memory,
                   str(settings.threads), str(CONTEXT_TOKENS)]
        environment = {"TENTH_HOME": folder}  # no notes of earlier runs
        if cap.n_bytes:
            environment[VARIABLE] = str(trace)
        rates = [disk_now(settings.file, experts)] if cap.n_bytes else []
        with limited(cap) as group:
            started = time.perf_counter()
            with LineProcess(TENTH, group.command(command) if group else command, environment=environment) as driver:
                ready_s = time.perf_counter() - started
                run: dict[str, Any] = {"who": TENTH, "cap": cap.name, "ready_s": ready_s, "ready": driver.ready}
                if group is None:
                    return run | _in_memory(driver, run["ready"]["placement"])
                run |= _streamed(driver, group)
                run["disk_rates"] = [*rates, disk_now(settings.file, experts)]
                run["memory"] = asdict(group.memory())
                driver.ask({"do": "close"})
        return run | _ideal(run, trace, experts)


def _in_memory(driver: LineProcess, placement: dict[str, Any]) -> dict[str, Any]:
    if placement["streams"]:
        raise ResourceError("the model does not fit into free memory, so the cap \"none\" cannot be measured")
    limits = [driver.ask({"do": "limits"})]
    driver.ask({"do": "run", "prompt": SHORT_PROMPT, "tokens": 8, "seed": 3})
    generation = driver.ask({"do": "run", "prompt": SHORT_PROMPT, "tokens": GENERATE, "seed": 1})
    prompt = driver.ask({"do": "run", "prompt": LONG_PROMPT, "tokens": 1, "seed": 2})
    limits.append(driver.ask({"do": "limits"}))
    return {"generation": generation, "prompt": prompt, "limits": limits}


def disk_now(file: Path, experts: ExpertFile) -> float:
    """Bytes per second of direct reads of a slice each."""
    return random_read_rate(file, experts.layers[0][0][0].n_bytes, DISK_SECONDS).median


def _streamed(driver: LineProcess, group: ControlGroup) -> dict[str, Any]:
    first = driver.ask({"do": "run", "prompt": SHORT_PROMPT, "tokens": FIRST_GENERATE + 1, "seed": 3})
    started = time.perf_counter()
    wait_for_memory(group)
    settled_s = time.perf_counter() - started
    generation = driver.ask({"do": "run", "prompt": SHORT_PROMPT, "tokens": GENERATE, "seed": 1})
    prompt = driver.ask({"do": "run", "prompt": PROMPT, "tokens": 1, "seed": 2})
    return {"first": first, "settled_s": settled_s, "generation": generation, "prompt": prompt}


def wait_for_memory(group: ControlGroup) -> None:
    """Until what a group holds grows no more."""
    before, now = -SETTLED_BYTES, group.memory().anonymous_bytes
    while now - before >= SETTLED_BYTES:
        time.sleep(SETTLED_SECONDS)
        before, now = now, group.memory().anonymous_bytes


def _ideal(run: dict[str, Any], trace_file: Path, experts: ExpertFile) -> dict[str, Any]:
    """What LRU would have missed while generating, and how long the first prompt's experts take to read directly."""
    routed, at, steps = read_trace(trace_file).experts, 0, []
    n_before = len(run["first"]["step_rows"]) + 1
    for n_rows in run["first"]["step_rows"] + run["generation"]["step_rows"]:
        steps.append(routed[at : at + n_rows])
        at += n_rows
    placement = run["ready"]["placement"]
    slot_share = placement["expert_slot_bytes"] / placement["experts_bytes"]
    n_missed = sum(piece.n_bytes for piece in missed(steps[:n_before], steps[n_before:], experts, slot_share))
    touched = experts.pieces(e for group in groups(steps[:1], experts.n_experts) for e in group)
    return {
        "lru_missed_bytes": n_missed / max(len(steps) - n_before, 1),
        "touched_bytes": sum(piece.n_bytes for piece in touched), "touched_read_s": read_seconds(touched),
        "touched_kept_s": read_seconds(touched, kept_bytes=placement["expert_slot_bytes"]),
    }  # fmt: skip


@dataclass(frozen=True)
class PeerRun:
    """How a peer is measured."""

    cap: Cap
    peer: LlamaBench
    flags: tuple[str, ...]
    read_ahead_kb: int | None


def run_peer(settings: Settings, experts: ExpertFile, how: PeerRun) -> dict[str, Any]:
    """A peer's prompt and generation under one limit; a failure is a result, too."""
    cap, peer, flags, read_ahead_kb = how.cap, how.peer, how.flags, how.read_ahead_kb
    run: dict[str, Any] = {"who": peer.label, "cap": cap.name, "flags": " ".join(flags), "read_ahead_kb": read_ahead_kb,
                           "disk_rates": [disk_now(settings.file, experts)] if cap.n_bytes else []}
    trials = {"prompt": Trial("prompt", PROMPT if cap.n_bytes else LONG_PROMPT),
              "generation": Trial("generation", settings.peer_tokens if cap.n_bytes else GENERATE)}
    for name, trial in trials.items():
        command = peer.command(trial, settings.file, settings.threads, flags)
        assert command is not None, "llama-bench measures prompts and generation"
        try:
            with limited(cap) as group, read_ahead(settings.file, read_ahead_kb):
                run[name] = parse_row(run_program(group.command(command) if group else command), trial)
        except ResourceError as error:
            run[f"{name}_failed"] = str(error)
        if cap.n_bytes:
            run["disk_rates"].append(disk_now(settings.file, experts))
    return run


def mapped(peer: LlamaBench) -> list[tuple[str, ...]]:
    """The flag sets that leave weights in the mapped file: others need its size again in memory."""
    can_choose = "--repack" in peer.help
    return [f for f in peer.flag_sets if "-rtr 1" not in " ".join(f) and ("--repack" in f or not can_choose)]


# ---------------------------------------------------------------- all of them


def take_turns(settings: Settings) -> Iterator[dict[str, Any]]:
    """Every engine under every limit in turn; the order is reversed every second time."""
    experts = ExpertFile.of(settings.file)
    for turn in range(settings.turns):
        for cap in settings.caps:
            jobs: list[tuple[str, Any]] = [(TENTH, lambda cap=cap: run_tenth(settings, experts, cap))]
            for peer in settings.peers:
                for flags in peer.flag_sets if cap.n_bytes is None else mapped(peer):
                    for kilobytes in settings.read_aheads if cap.n_bytes else [None]:
                        how = PeerRun(cap, peer, flags, kilobytes)
                        jobs.append((peer.label, lambda how=how: run_peer(settings, experts, how)))
            for who, job in jobs if turn % 2 == 0 else reversed(jobs):
                if settings.takes(who):
                    print(f"budgets: {cap.name}, {who}", file=sys.stderr, flush=True)
                    yield job() | {"busy_share": busy_share()}


def settings_from(arguments: Sequence[str] | None) -> tuple[Settings, Path | None]:
    """The command line: what to measure, and the folder for results. Raises RequestError."""
    parser = argparse.ArgumentParser(prog="python -m tenth.bench.budgets", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--peer", action="append", default=[], metavar="LABEL=PATH[,FLAGS...]",
                        help="a llama-bench; each FLAGS is tried, default: the sets it is known for")
    parser.add_argument("--caps", default="8GiB,4GiB,2GiB,none", help="limits, or none (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="of everything (3)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of everyone; default: physical cores")
    parser.add_argument("--peer-tokens", type=int, default=6, metavar="N", help="a capped peer generates (6)")
    parser.add_argument("--read-ahead", default="set,128", metavar="KB,...",
                        help="of the disk while peers run, in turn; set: as the machine is set (%(default)s)")
    parser.add_argument("--only", default="", metavar="LABELS", help=f"of {TENTH} and the peers' labels")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where budgets.json and budgets.md are kept")
    options = parser.parse_args(arguments)
    if not options.model.is_file() or (options.out is not None and not options.out.is_dir()):
        missing = options.out if options.model.is_file() else options.model
        raise RequestError(f"there is no {missing}")
    caps = tuple(Cap.parse(text) for text in options.caps.split(",") if text)
    peers = tuple(LlamaBench.parse(text) for text in options.peer)
    only = tuple(name for name in options.only.split(",") if name)
    if unknown := [name for name in only if name not in (TENTH, *(peer.label for peer in peers))]:
        raise RequestError(f"--only names {unknown[0]}, which is neither {TENTH} nor a peer")
    threads = options.threads or read_machine().cores
    return Settings(options.model, caps, peers, options.turns, threads, options.peer_tokens,
                    _read_aheads(options.read_ahead), only), options.out


def _read_aheads(text: str) -> tuple[int | None, ...]:
    words = [word for word in text.split(",") if word]
    if wrong := [word for word in words if word != "set" and not word.isdecimal()]:
        raise RequestError(f"--read-ahead has {wrong[0]!r}, expected kilobytes, or set")
    return tuple(None if word == "set" else int(word) for word in words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, writing after each run what there is; Markdown goes to standard output."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if arguments is None:  # what was set on this machine is put back
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        settings, out = settings_from(arguments)
        kept = out / "budgets.json" if out else None
        result: dict[str, Any] = {"model": settings.file.name, "commands": [], "runs": []}
        if kept and kept.exists():
            result = json.loads(kept.read_text())
        result |= {"machine": asdict(read_machine()), "threads": settings.threads}
        result["commands"].append(shlex.join(["python", "-m", "tenth.bench.budgets", *words]))
        for run in take_turns(settings):
            result["runs"].append(run)
            if kept and out:
                kept.write_text(json.dumps(result, indent=1))
                (out / "budgets.md").write_text(markdown(result))
        print(markdown(result), end="")
    except TenthError as error:
        print(f"budgets: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
