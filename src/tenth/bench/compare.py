"""The whole comparison in one command: tenth and its peers on several models, as Markdown and JSON.

    python -m tenth.bench.compare MODELS --peer llama.cpp=PATH/llama-bench --peer ik=PATH/llama-bench --out FOLDER

MODELS are files, folders of GGUF files or names. Each turn measures the machine's limits, tenth, and every peer with
every set of flags, so that all see the same machine; medians of the turns are compared, tenth with the best flags of
each peer in each test. --peer-avx2 names peers that were built without AVX-512; tenth is then measured once more as on
a CPU without it (TENTH_ISA=avx2). Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tenth.batch import PAGE_TOKENS
from tenth.bench.compare_table import markdown
from tenth.bench.llama_bench import LlamaBench, Trial
from tenth.bench.machine import busy_share, read_machine
from tenth.bench.process import LineProcess
from tenth.bench.report import summary
from tenth.bench.work import Work
from tenth.errors import RequestError, ResourceError, TenthError

DEPTH_TOKENS = 8000
TESTS = {
    "pp512": Trial("prompt", 512), "pp2048": Trial("prompt", 2048), "tg128": Trial("generation", 128),
    "together": Trial("together", 128, sequences=8), "pp8000": Trial("prompt", DEPTH_TOKENS),
    "long": Trial("generation", 64, depth=DEPTH_TOKENS),
}
DEFAULT_TESTS = ("pp512", "pp2048", "tg128", "together")
LONG_TESTS = ("pp8000", "long")  # take minutes, so a single turn each
CLOSE = 0.85  # a peer's flags that were slower than this share of its best ones in the first turn are not run again


Measure = Callable[[LlamaBench, Trial, tuple[str, ...]], float | None]


class Asked(Protocol):
    """The part of a LineProcess this needs: tenth_driver on the other side."""

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """One answer."""


@dataclass
class Measured:
    """All turns of one test. ``peers``: by label and flags."""

    test: Trial
    tenth: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    int8: list[float] = field(default_factory=list)
    peers: dict[tuple[str, tuple[str, ...]], list[float]] = field(default_factory=dict)


def take_turns(test: Trial, driver: Asked, peers: Sequence[LlamaBench], measure: Measure,
               repetitions: int) -> Measured:
    """Limits, tenth and every peer in turn. tenth warms up once before; llama-bench does so in each of its runs.

    The order within a turn is reversed every second time, so that nobody always runs on the warmer machine. After the
    first turn only the flags of each peer that came close to its best ones go on: peers take most of the time.
    """
    question = {"do": test.kind, "tokens": test.tokens, "depth": test.depth, "sequences": test.sequences}
    driver.ask(question)
    measured = Measured(test)
    for turn in range(repetitions):
        limits = driver.ask({"do": "limits"})
        measured.read.append(limits["read"])
        measured.int8.append(limits["int8"])
        runs: list[Callable[[], None]] = [partial(_ask, measured, driver, question)]
        for peer in peers:
            runs += [partial(_measure, measured, measure, peer, flags) for flags in _close_flags(measured, peer)]
        for run in runs if turn % 2 == 0 else reversed(runs):
            run()
    return measured


def _close_flags(measured: Measured, peer: LlamaBench) -> list[tuple[str, ...]]:
    """Those worth a turn: all at first."""
    first = {flags: rates[0] for (label, flags), rates in measured.peers.items() if label == peer.label}
    least = CLOSE * max(first.values(), default=0.0)
    return [flags for flags in peer.flag_sets if not first or first.get(flags, 0.0) >= least]


def _ask(measured: Measured, driver: Asked, question: dict[str, Any]) -> None:
    measured.tenth.append(float(driver.ask(question)["tokens_per_second"]))


def _measure(measured: Measured, measure: Measure, peer: LlamaBench, flags: tuple[str, ...]) -> None:
    rate = measure(peer, measured.test, flags)
    if rate is not None:
        measured.peers.setdefault((peer.label, flags), []).append(rate)


def figures(measured: Measured, work: Work) -> dict[str, Any]:
    """One test as data: medians, spreads, the share of the nearer limit, and each peer at its best flags."""
    needs_bytes, needs_products = per_token(measured.test, work)
    shares = [max((rate * needs_bytes / read, "read"), (rate * needs_products / int8, "int8"))
              for rate, read, int8 in zip(measured.tenth, measured.read, measured.int8, strict=True)]
    share, limit = sorted(shares)[len(shares) // 2]
    peers = {}
    for label in dict.fromkeys(label for label, _ in measured.peers):
        runs = {flags: rates for (name, flags), rates in measured.peers.items() if name == label}
        best = max(runs, key=lambda flags: statistics.median(runs[flags]))
        pairs = zip(measured.tenth, runs[best], strict=False)
        peers[label] = {
            "best_flags": " ".join(best), "tokens_per_second": summary(runs[best]),
            "ratio": statistics.median(mine / theirs for mine, theirs in pairs),
            "all_flags": {" ".join(flags): summary(rates) for flags, rates in runs.items()},
        }
    return {"test": dataclasses.asdict(measured.test) | {"name": measured.test.name},
            "tokens_per_second": summary(measured.tenth), "share_of_limit": share, "limit": limit,
            "limits": {"read_bytes_per_second": summary(measured.read),
                       "int8_multiply_adds_per_second": summary(measured.int8)}, "peers": peers}


def per_token(test: Trial, work: Work) -> tuple[float, float]:
    """(bytes, multiply-adds) that each token of a test needs at least, counted as bench/work.py does."""
    if test.kind == "prompt":  # the weights are read once for all rows, at best
        return work.weight_bytes / test.tokens, work.prompt_multiply_adds(test.tokens)
    kv_bytes = work.kv_bytes_per_context_token * (test.depth + (test.tokens + 1) / 2)
    return work.weight_bytes / test.sequences + work.state_bytes + kv_bytes, float(work.every + work.output)


def _tokens(test: Trial) -> int:
    """Of a sequence: what is asked for, and some more so that the last page is no limit."""
    return test.depth + test.tokens + 2 * PAGE_TOKENS


def kv_tokens(tests: Sequence[Trial]) -> int:
    """Room for every sequence of a test, none set back, and for as much again that is kept from the turn before."""
    return 2 * max(test.sequences * _tokens(test) for test in tests)


def compare_file(file: Path, isa: str, tests: Sequence[Trial], peers: Sequence[LlamaBench],
                 settings: argparse.Namespace) -> dict[str, Any]:
    """Everything of one model and instruction set ("" for the best one)."""
    context = max(map(_tokens, tests))
    command = [sys.executable, "-m", "tenth.bench.tenth_driver", str(file), str(settings.threads), str(context),
               str(kv_tokens(tests))]
    with LineProcess("tenth", command, environment={"TENTH_ISA": isa} if isa else None) as driver:
        ready, results = driver.ready, []
        work = Work(**ready["work"])
        for test in tests:
            _say(f"{file.name}, {ready['isa']}: {test.name}")
            turns = 1 if test in (TESTS[name] for name in LONG_TESTS) else settings.repetitions
            measured = take_turns(test, driver, peers, lambda peer, test, flags: peer.measure(
                test, file, settings.threads, flags), turns)
            results.append(figures(measured, work))
    load_s = statistics.median(ready["load_s"])
    return {"model": ready["name"], "file": str(file), "isa": ready["isa"], "file_bytes": ready["file_bytes"],
            "version": ready["version"], "work": ready["work"],
            "load": {"seconds": load_s, "runs": ready["load_s"], "warm_read_seconds": ready["warm_read_s"],
                     "ratio": load_s / ready["warm_read_s"], "last": ready["load_costs"]},
            "tests": results,
            "failed": {f"{p.label} {' '.join(flags)}, {name}": why
                       for p in peers for (name, flags), why in p.failed.items()}}


def model_files(names: Sequence[str]) -> list[Path]:
    """The files that were named: themselves, those in a folder, or by a name of the library. Raises RequestError."""
    from tenth.library import resolve

    files: list[Path] = []
    for name in names:
        path = Path(name)
        found = sorted(path.glob("*.gguf"), key=lambda f: f.stat().st_size) if path.is_dir() else [resolve(name)]
        if not found:
            raise RequestError(f"the folder {name} has no GGUF file")
        files += [Path(f) for f in found]
    return files


def fitting(tests: Sequence[Trial], file: Path) -> list[Trial]:
    """Those that the model's context has room for."""
    from tenth.loader import optimised_program
    from tenth.weights.gguf import read_header

    context = optimised_program(read_header(file)).context_tokens
    return [test for test in tests if not context or _tokens(test) <= context]


def settings_from(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tenth.bench.compare", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="file, folder of GGUF files, or name")
    for flag, what in (("--peer", "a llama-bench"), ("--peer-avx2", "a llama-bench built without AVX-512")):
        parser.add_argument(flag, action="append", default=[], metavar="LABEL=PATH[,FLAGS...]",
                            help=f"{what}; each FLAGS is tried, default: the sets it is known for")
    parser.add_argument("--tests", default=",".join(DEFAULT_TESTS), metavar="NAMES",
                        help=f"of {', '.join(TESTS)}; default: %(default)s")
    parser.add_argument("--tests-avx2", metavar="NAMES", help="of those without AVX-512; default: those of --tests")
    parser.add_argument("--long", action="store_true",
                        help=f"also a prompt of {DEPTH_TOKENS} tokens and generation behind it, one turn each")
    parser.add_argument("--repetitions", type=int, default=5, metavar="N", help="turns of each test (5)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of everyone; default: physical cores")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write comparison.md and comparison.json")
    settings = parser.parse_args(arguments)
    settings.words = sys.argv[1:] if arguments is None else list(arguments)
    named = settings.tests if settings.tests_avx2 is None else settings.tests_avx2
    settings.tests_avx2 = [name for name in named.split(",") if name]
    settings.tests = [name for name in settings.tests.split(",") if name] + [*LONG_TESTS] * settings.long
    if unknown := [name for name in settings.tests + settings.tests_avx2 if name not in TESTS]:
        parser.error(f"no test is named {unknown[0]}; there are {', '.join(TESTS)}")
    if settings.repetitions < 1 or settings.threads < 0:
        parser.error("repetitions must be at least 1, threads at least 0")
    if settings.out is not None and not settings.out.is_dir():
        parser.error(f"there is no folder {settings.out}")
    return settings


def run(settings: argparse.Namespace) -> dict[str, Any]:
    """Measures everything. Raises TenthError."""
    from tenth.library.resolving import is_path, resolve

    machine = read_machine()
    settings.threads = settings.threads or machine.cores
    sections = [("", settings.tests, [LlamaBench.parse(text) for text in settings.peer])]
    if settings.peer_avx2:
        sections.append(("avx2", settings.tests_avx2, [LlamaBench.parse(text) for text in settings.peer_avx2]))
    busy, results = busy_share(), []
    typed = {resolve(name): name for name in settings.models if not is_path(name)}
    for file in model_files(settings.models):
        for isa, names, peers in sections:
            tests = fitting([TESTS[name] for name in dict.fromkeys(names)], file)
            for peer in peers:
                peer.failed.clear()
            if tests:
                result = compare_file(file, isa, tests, peers, settings)
                results.append(result | {"model": typed.get(file, result["model"])})
    return {"machine": dataclasses.asdict(machine), "threads": settings.threads, "busy_share": busy,
            "repetitions": settings.repetitions, "results": results,
            "command": shlex.join(["python", "-m", "tenth.bench.compare", *settings.words])}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; Markdown goes to standard output."""
    settings = settings_from(arguments)
    try:
        result = run(settings)
        text = markdown(result)
        if settings.out is not None:
            try:
                (settings.out / "comparison.json").write_text(json.dumps(result, indent=1))
                (settings.out / "comparison.md").write_text(text)
            except OSError as error:
                raise ResourceError(f"cannot write to {settings.out}: {error.strerror}") from error
    except TenthError as error:
        _say(f"{error}" + (f"\nhint: {error.hint}" if error.hint else ""))
        return error.exit_code
    print(text, end="")
    return 0


def _say(text: str) -> None:
    print(f"compare: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
