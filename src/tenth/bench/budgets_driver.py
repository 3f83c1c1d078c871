"""Runs tenth as ``tenth.bench.budgets`` asks: started as a module, once for each turn and limit, with a cold file.

Arguments: model file, memory ("0": what is free), threads, tokens of context. The first line it writes says that it is
ready to answer; then it answers each line of JSON:
    {"do": "run", "prompt": P, "tokens": N, "seed": S}   -> seconds to the first token and of each step, what was read
    {"do": "limits"}                                     -> {"read": bytes/s, "int8": multiply-adds/s}
    {"do": "close"}                                      -> {}, after the trace of all runs was written (TENTH_TRACE)
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from typing import Any

import tenth
from tenth.bench.work import count
from tenth.errors import TenthError


class Steps:
    """Notes (rows, time at its end) of every step."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, float]] = []

    def after_step(self, n_rows: int) -> None:
        """A step of so many rows is over."""
        self.ended.append((n_rows, time.perf_counter()))

    def close(self) -> None:
        """Nothing is kept."""


class Driver:
    """A loaded model and how to measure it."""

    def __init__(self, model: tenth.Model, threads: int):
        self.model, self.threads, self.steps = model, threads, Steps()
        model.loaded.runtime.observe(self.steps)

    def run(self, n_prompt: int, n_tokens: int, seed: int) -> dict[str, Any]:
        """One request. ``step_s``: from the request to the end of the first step, and of every step after it."""
        import numpy as np

        runtime = self.model.loaded.runtime
        runtime.reset_profile()
        self.steps.ended.clear()
        n_words = min(runtime.vocab_size, 50_000)  # likely to be words
        ids = [int(i) for i in np.random.default_rng(seed).integers(1, n_words, n_prompt)]
        start = time.perf_counter()
        stream = self.model.generate(ids, max_tokens=n_tokens, temperature=0.0, ignore_eos=True)
        stream.wait()
        times = [start, *(end for _, end in self.steps.ended)]
        statistics = self.model.expert_statistics()
        kept = ("hit_rate", "predicted_right", "read_bytes", "waiting_share", "direct_reads")
        return {
            "n_prompt": n_prompt, "n_tokens": n_tokens, "first_token_s": stream.timings.first_token_s,
            "step_rows": [rows for rows, _ in self.steps.ended],
            "step_s": [round(after - before, 6) for before, after in pairwise(times)],
            "experts": {name: statistics[name] for name in kept if name in statistics},
        }  # fmt: skip

    def limits(self) -> dict[str, float]:
        """What the machine can do at most, measured in this process."""
        from tenth.bench import limits
        from tenth.bench.machine import read_machine

        machine = read_machine()
        n_bytes = limits.buffer_bytes(machine.l3_bytes, machine.available_bytes)
        return {"read": limits.read_bandwidth(self.threads, 0.5, n_bytes).best,
                "int8": limits.int8_rate(self.threads, 0.2).best}


def main() -> None:
    """Load, then answer until standard input ends."""
    path, memory, threads, context = sys.argv[1:]
    try:
        model = tenth.load(path, memory=memory if memory != "0" else 0, threads=int(threads), context=int(context),
                           prefix_reuse=False, speculate=False)
    except TenthError as error:
        raise SystemExit(f"{error}") from None
    loaded = model.loaded
    work = count(loaded.program, loaded.stored, loaded.config.kv_format)
    say({"name": model.name, "isa": loaded.runtime.isa, "version": tenth.__version__,
         "placement": loaded.placement.as_data(), "token_bytes": work.generated_bytes(64)})
    driver = Driver(model, int(threads))
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "run":
            say(driver.run(asked["prompt"], asked["tokens"], asked["seed"]))
        elif asked["do"] == "limits":
            say(driver.limits())
        else:
            model.close()
            say({})
            return


def say(value: dict[str, Any]) -> None:
    """One line to whoever asked."""
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
