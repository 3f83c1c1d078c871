"""tenth's server and its peers' under the same load, in turn, as Markdown and JSON.

    python -m tenth.bench.serving FILE --repetitions 3 \\
        --peer "llama.cpp=PATH/llama-server -m {model} --port {port} -t 2 -np 8 -c 16384 -fa on" \\
        --peer "ik=PATH/llama-server -m {model} --port {port} -t 2 -np 8 -c 16384 -fa off"

Several commands of one label are several sets of flags, of which the best one counts in each test. Every turn starts
every server anew, runs a test and ends it, so that nothing is cached and nobody idles beside another; every second turn
goes backwards. tenth guesses no tokens, since its peers do not. Nothing else should run on the machine: a turn during
which other processes took more than a tenth of the processors does not count.

Tests: 1, 4 and 8 clients, 128 tokens in and 128 out, two requests each; ``shared``: 8 clients whose prompts share their
first 1,000 tokens; ``newcomer``: a request of 16 tokens that comes 0.5 to 0.8 s (at random) after one of 4,000;
``alone``: one answer of 256 tokens; ``overhead`` (tenth only): several of them, in turn with the same from the engine
in Python; ``cancel`` (tenth only): how long a request whose client went during its prompt of 4,000 tokens, and during
its answer, is still at work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tenth.bench.serving_load import Ask, clients, gone, newcomer
from tenth.bench.serving_overhead import ALONE, IN, compare, engine, speed
from tenth.bench.serving_servers import CONTEXT, KV_TOKENS, OURS, Contender, Others, ours, peer, running
from tenth.bench.serving_table import DISTURBED, OURS_ONLY, Figures, Turn, result, table
from tenth.errors import RequestError, ResourceError, TenthError

OUT, SHARED, LONG, SHORT = 128, 1000, 4000, 16
ROUNDS = 2
LEAST_ID, MOST_ID = 1000, 20000  # token ids of ordinary text in every vocabulary that is measured
TESTS = ("1", "4", "8", "shared", "newcomer", "alone", "overhead", "cancel")


class Prompts:
    """Prompts of random tokens, different ones in every turn, the same for every server of a turn."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def seconds(self, least: float, most: float) -> float:
        """A moment."""
        return self._random.uniform(least, most)

    def ids(self, n: int) -> list[int]:
        """So many token ids."""
        return [self._random.randrange(LEAST_ID, MOST_ID) for _ in range(n)]


def together(port: int, prompts: Prompts, n_clients: int, shared: int = 0) -> Figures:
    """All clients' tokens per second, the median time to the first one, and the median time between two."""
    beginning = prompts.ids(shared)
    asks = [[Ask([*beginning, *prompts.ids(IN - (IN - 28) * bool(shared))], OUT) for _ in range(ROUNDS)]
            for _ in range(n_clients)]
    start_s = time.perf_counter()
    found = asyncio.run(clients(port, "bench", asks))
    seconds = time.perf_counter() - start_s
    return {"tokens_per_second": OUT * len(found) / seconds,
            "first_s": statistics.median(timed.first_s for timed in found),
            "first_high_s": max(timed.first_s for timed in found),
            "between_s": statistics.median((timed.last_s - timed.first_s) / (OUT - 1) for timed in found)}


def come_in(port: int, prompts: Prompts) -> Figures:
    """How long somebody waits who comes during a long prompt, and how long that takes."""
    long, short = asyncio.run(newcomer(port, "bench", Ask(prompts.ids(LONG), 1), Ask(prompts.ids(SHORT), SHORT),
                                       prompts.seconds(0.5, 0.8)))
    return {"first_s": short.first_s, "long_s": long.first_s, "chunk_s": long.first_s * 256 / LONG}


def alone(port: int, prompts: Prompts) -> Figures:
    """One answer by itself."""
    (timed,) = asyncio.run(clients(port, "bench", [[Ask(prompts.ids(IN), ALONE)]]))
    return {"tokens_per_second": speed(timed), "first_s": timed.first_s, "events": float(len(timed.came_s))}


def leave(port: int, prompts: Prompts) -> Figures:
    """How long somebody who is gone is still at work, in seconds: the longest of several, each in another moment."""
    def longest(wanted: Callable[[], Ask], moments: Sequence[float]) -> float:
        return max(asyncio.run(gone(port, "bench", wanted(), after_s)) for after_s in moments)

    return {"prompt_s": longest(lambda: Ask(prompts.ids(LONG), 4), (0.3, 0.55, 0.8, 1.05, 1.3)),
            "answer_s": longest(lambda: Ask(prompts.ids(SHORT), 4000), (0.5, 0.75, 1.0, 1.25, 1.5))}


def measure(test: str, port: int, seed: int) -> Figures:
    """The figures of one test on a running server."""
    prompts = Prompts(seed)
    if test == "newcomer":
        return come_in(port, prompts)
    if test == "alone":
        return alone(port, prompts)
    if test == "cancel":
        return leave(port, prompts)
    return together(port, prompts, 8 if test == "shared" else int(test), SHARED if test == "shared" else 0)


def take_turn(model: Path, contender: Contender, test: str, seed: int) -> Figures:
    """The figures of one test on a server that is started for it, and how much others took of the processors."""
    with ExitStack() as stack:
        port, process = stack.enter_context(running(contender, model))
        processes = [process]
        if test == "overhead":
            ask_engine, other = stack.enter_context(engine(model, CONTEXT, KV_TOKENS))
            processes.append(other)
        others = Others(processes)
        figures = compare(port, Prompts(seed).ids, ask_engine) if test == "overhead" else measure(test, port, seed)
        return figures | {"others": others.share()}


def take_turns(model: Path, contenders: Sequence[Contender], tests: Sequence[str], numbers: Iterable[int],
               tell: Callable[[str], None]) -> Iterator[Turn]:
    """Every contender in every test, in turns of these numbers: every second one backwards."""
    for number in numbers:
        for test in tests:
            taking_part = contenders[:1] if test in OURS_ONLY else contenders
            for contender in taking_part if number % 2 == 0 else reversed(taking_part):
                try:
                    figures = take_turn(model, contender, test, 1000 * number + TESTS.index(test))
                except ResourceError as error:
                    if contender.label == OURS:
                        raise
                    tell(f"{test} {contender.label} failed: {error.message} ({contender.command})")
                    continue
                tell(f"{test} {contender.label}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))
                yield test, contender.command, figures


def _kept(path: Path | None, turns: Iterable[Turn]) -> Iterator[Turn]:
    """Those of a file, then these, which are added to it: a measurement in several sittings."""
    if path is None:
        yield from turns
        return
    if path.exists():
        yield from (tuple(json.loads(line)) for line in path.read_text().splitlines())
    for turn in turns:
        with path.open("a") as file:
            file.write(json.dumps(turn) + "\n")
        yield turn


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--peer", action="append", default=[], metavar="LABEL=COMMAND")
    parser.add_argument("--tests", default=",".join(TESTS))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--turns", type=Path, help="add every turn to this file, and count all that it has")
    parser.add_argument("--first-turn", type=int, default=0, metavar="N", help="so many turns were taken before")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    arguments = parser.parse_args()
    try:
        tests = arguments.tests.split(",")
        if unknown := set(tests) - set(TESTS):
            raise RequestError(f"there is no test {min(unknown)!r}", f"there are: {', '.join(TESTS)}")
        contenders = [ours(), *map(peer, arguments.peer)]
        numbers = range(arguments.first_turn, arguments.first_turn + arguments.repetitions)
        turns = list(_kept(arguments.turns, take_turns(arguments.model, contenders, tests, numbers,
                                                       lambda line: print(line, file=sys.stderr, flush=True))))
    except TenthError as error:
        raise SystemExit(f"{error}") from None
    found = result(turns, contenders)
    if n_lost := sum(figures.get("others", 0.0) > DISTURBED for _, _, figures in turns):
        print(f"{n_lost} of {len(turns)} turns were disturbed by other processes and do not count", file=sys.stderr)
    print(table(found))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
