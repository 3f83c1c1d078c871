"""Runs tenth as ``tenth.bench.compare`` asks: started as a module, one process per instruction set (TENTH_ISA).

Arguments: model file, threads, tokens of context, tokens in the KV cache. The first line it writes says what was
loaded and how long that took; then it answers each line of JSON:
    {"do": "limits"}                                       -> {"read": bytes/s, "int8": multiply-adds/s}
    {"do": "prompt", "tokens": N}                          -> {"tokens_per_second": X}
    {"do": "generation", "tokens": N, "depth": D}          -> the same, behind a context of D tokens
    {"do": "together", "tokens": N, "sequences": S}        -> the same, of S sequences together
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tenth
from tenth.bench import limits
from tenth.bench.machine import read_machine
from tenth.bench.measure import prompt_ids
from tenth.bench.work import count
from tenth.errors import RequestError, ResourceError, TenthError

LOADS = 3  # the median counts
CHUNK_BYTES = 4 << 20


class Driver:
    """A loaded model and how to measure it."""

    def __init__(self, model: Any, threads: int):
        self.model, self.threads = model, threads
        machine = read_machine()
        self.buffer_bytes = limits.buffer_bytes(machine.l3_bytes, machine.available_bytes)
        self.turn = 0

    def answer(self, asked: dict[str, Any]) -> dict[str, float]:
        """What is asked for. Raises RequestError for anything else."""
        match asked["do"]:
            case "limits":
                return {"read": limits.read_bandwidth(self.threads, 0.5, self.buffer_bytes).best,
                        "int8": limits.int8_rate(self.threads, 0.2).best}
            case "prompt":
                return {"tokens_per_second": self.prompt(asked["tokens"])}
            case "generation":
                return {"tokens_per_second": self.generation(asked["tokens"], asked["depth"])}
            case "together":
                return {"tokens_per_second": self.together(asked["tokens"], asked["sequences"])}
        raise RequestError(f"nothing is known of {asked['do']!r}")

    def prompt(self, n: int) -> float:
        """Tokens per second of a prompt that nothing is cached of, up to its first token."""
        self.turn += 1
        ids = prompt_ids(self.model, n)
        ids[0] = self.token(self.turn)  # another beginning, so that no page of an earlier turn is reused
        stream = self._start([ids], 1)[0]
        if stream.usage.cached_tokens:
            raise ResourceError("a prompt was partly cached: the figure would mean nothing")
        return float(stream.timings.prompt_tokens_per_second)

    def generation(self, n: int, depth: int) -> float:
        """Tokens per second behind ``depth`` tokens; their pages are reused in later turns."""
        stream = self._start([prompt_ids(self.model, max(depth, 1))], n)[0]
        return float(stream.timings.generated_tokens_per_second)

    def together(self, n: int, n_sequences: int) -> float:
        """Tokens per second of all sequences, each from a prompt of one token, from asking to the last token."""
        start, set_back = time.perf_counter(), self.model.stats.n_preemptions
        self._start([[self.token(i)] for i in range(n_sequences)], n)
        seconds = time.perf_counter() - start
        if self.model.stats.n_preemptions > set_back:
            raise ResourceError("a sequence found no room and was computed twice: the figure would mean nothing")
        return n * n_sequences / seconds

    def token(self, number: int) -> int:
        """Some token of the vocabulary."""
        return 1 + number % (int(self.model.loaded.runtime.vocab_size) - 1)

    def _start(self, prompts: list[list[int]], n: int) -> list[Any]:
        streams: list[Any] = self.model.generate(prompts, max_tokens=n, ignore_eos=True, temperature=0.0)
        for stream in streams:
            for _ in stream:
                pass
            if stream.usage.completion_tokens != n:
                raise ResourceError(f"{n} tokens were asked for, {stream.usage.completion_tokens} generated")
        return streams


def warm_read_seconds(path: Path, threads: int) -> float:
    """Seconds to read a file that lies in the page cache into small buffers, by as many threads as load it."""
    n_bytes = path.stat().st_size
    times = []
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(threads) as pool:
        def read(start: int, end: int) -> None:
            buffer = bytearray(CHUNK_BYTES)
            for at in range(start, end, CHUNK_BYTES):
                os.preadv(file.fileno(), [buffer], at)

        for _ in range(1 + LOADS):  # the first one warms the cache
            begun = time.perf_counter()
            list(pool.map(read, *zip(*((n_bytes * t // threads, n_bytes * (t + 1) // threads)
                                       for t in range(threads)), strict=True)))
            times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def load(path: Path, threads: int, context: int, kv_tokens: int) -> tuple[Any, list[float]]:
    """The model, and the seconds that each load took."""
    seconds = []
    for left in reversed(range(LOADS)):
        start = time.perf_counter()
        model = tenth.load(path, threads=threads, context=context, kv_tokens=kv_tokens,
                           speculate=False)  # peers do not guess either
        seconds.append(time.perf_counter() - start)
        if left:
            model.close()
    return model, seconds


def main() -> None:
    """Loads, then answers until standard input ends."""
    path, (threads, context, kv_tokens) = Path(sys.argv[1]), map(int, sys.argv[2:])
    try:
        warm_s = warm_read_seconds(path, threads)
        model, load_s = load(path, threads, context, kv_tokens)
        driver = Driver(model, threads)
        loaded = model.loaded
        work = count(loaded.program, loaded.stored, loaded.config.kv_format)
        _say({"name": model.name, "isa": loaded.runtime.isa, "version": tenth.__version__,
              "file_bytes": path.stat().st_size, "warm_read_s": warm_s, "load_s": load_s,
              "load_costs": model.load_costs(),  # of the last load
              "work": dataclasses.asdict(work)})
        for line in sys.stdin:
            _say(driver.answer(json.loads(line)))
    except TenthError as error:
        raise SystemExit(f"{error}") from None


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
