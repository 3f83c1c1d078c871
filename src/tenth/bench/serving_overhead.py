"""What serving costs beyond computing: one answer at a time, from the server and from the engine in Python in turn.

Both live side by side, each in its process, and the one that is not asked sleeps. The speed of a machine changes within
seconds by more than what is looked for. So every answer of the server is held against the mean of the engine's before
and behind it, and does not count where these two differ by more than that.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tenth.bench.process import LineProcess
from tenth.bench.serving_load import Ask, Timed, clients
from tenth.errors import ResourceError

IN, ALONE = 128, 256
PAIRS = 12
STEADY = 0.04  # the engine's two answers around one of the server

Engine = Callable[[], float]


def speed(timed: Timed) -> float:
    """Tokens per second behind the first one, of an answer of ALONE tokens."""
    return (ALONE - 1) / (timed.last_s - timed.first_s)


@contextmanager
def engine(model: Path, context: int, kv_tokens: int) -> Iterator[tuple[Engine, psutil.Process]]:
    """What gives the tokens per second of one more such answer, from the engine in a process of its own; and that."""
    command = [sys.executable, "-m", "tenth.bench.tenth_driver", str(model), str(psutil.cpu_count()), str(context),
               str(kv_tokens)]
    with LineProcess("tenth", command) as driver:
        def ask() -> float:
            return float(driver.ask({"do": "generation", "tokens": ALONE, "depth": IN})["tokens_per_second"])

        ask()  # its prompt is known from now on
        assert driver.process is not None, "a driver has answered that was not started"
        yield ask, psutil.Process(driver.process.pid)


def compare(port: int, prompt: Callable[[int], list[int]], ask_engine: Engine) -> dict[str, float]:
    """Medians of both speeds, and of how much longer a token of the server takes. ``prompt``: so many token ids."""
    found: list[tuple[float, float, float]] = []  # server, engine before, engine behind
    before = ask_engine()
    for _ in range(PAIRS):
        (timed,) = asyncio.run(clients(port, "bench", [[Ask(prompt(IN), ALONE)]]))
        behind = ask_engine()
        found.append((speed(timed), before, behind))
        before = behind
    steady = [(server, (a + b) / 2) for server, a, b in found if abs(a - b) <= STEADY * max(a, b)]
    if not steady:
        raise ResourceError("the engine was never as fast twice in a row: the machine is too unsteady to compare")
    return {"tokens_per_second": statistics.median(server for server, _ in steady),
            "engine": statistics.median(mean for _, mean in steady), "pairs": float(len(steady)),
            "beyond_engine": statistics.median(mean / server - 1 for server, mean in steady)}
