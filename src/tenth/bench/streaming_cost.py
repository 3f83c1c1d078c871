"""What the expert store costs when everything fits: a model with resident experts and with streamed ones, in turn.

    python -m tenth.bench.streaming_cost MODEL.gguf [--tokens 32] [--prompt 256] [--turns 7] [--threads 1] [--json]

Both are loaded in this process, the second with a slot for every slice, and warmed by what is then measured, so that
nothing is read from the disk. A ratio above 1 means that streaming takes longer. With one thread nobody waits for
others, so that processor time says what is computed also on a machine with other work.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from typing import Any

import numpy as np

import tenth
from tenth.loader import ALWAYS_STREAM
from tenth.model import Model


def timed(model: Model, ids: list[int], n_tokens: int) -> tuple[float, float]:
    """(wall seconds, processor seconds) of a request."""
    wall, processor = time.perf_counter(), time.process_time()
    model.generate(ids, max_tokens=n_tokens, temperature=0.0, ignore_eos=True).wait()
    return time.perf_counter() - wall, time.process_time() - processor


def measure(path: str, n_prompt: int, n_tokens: int, turns: int, threads: int) -> dict[str, Any]:
    """Ratios of neighbouring turns, streamed over resident."""
    settings: dict[str, Any] = {"context": n_prompt + n_tokens + 32, "prefix_reuse": False, "speculate": False}
    settings |= {"chunk_tokens": 256, "threads": threads}
    resident = tenth.load(path, **settings)
    os.environ[ALWAYS_STREAM] = "1"
    with resident, tenth.load(path, **settings) as streamed:
        rng = np.random.default_rng(1)
        ids = [int(i) for i in rng.integers(0, min(resident.loaded.program.vocab_size, 50_000), n_prompt)]
        requests = {"prompt": (ids, 1), "generation": (ids[:8], n_tokens)}
        for model, request in itertools.product((resident, streamed), requests.values()):
            timed(model, *request)
        streamed.loaded.runtime.reset_profile()
        result: dict[str, Any] = {}
        for name, request in requests.items():
            pairs = []
            for turn in range(turns):
                first, second = (resident, streamed) if turn % 2 else (streamed, resident)
                found = {first: timed(first, *request), second: timed(second, *request)}
                pairs.append([s / r for r, s in zip(found[resident], found[streamed], strict=True)])
            for what, ratios in zip(("wall", "processor"), zip(*pairs, strict=True), strict=True):
                figures = {"ratio": statistics.median(ratios), "from": min(ratios), "to": max(ratios)}
                result[f"{name}, {what} time"] = {name: round(value, 4) for name, value in figures.items()}
        return result | {"read_bytes": streamed.expert_statistics()["read_bytes"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tenth.bench.streaming_cost")
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    result = measure(options.model, options.prompt, options.tokens, options.turns, options.threads)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    n_bytes = result.pop("read_bytes")
    for name, r in result.items():
        spread = f"{r['from']:.3f} to {r['to']:.3f}"
        print(f"{name}: streamed / resident {r['ratio']:.3f} (median of {options.turns}, {spread})")
    print(f"{n_bytes} bytes read while measuring; {time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
