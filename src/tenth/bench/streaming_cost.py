"""What the expert store costs when everything fits: the same model with resident experts and with streamed ones, in turn.

    python -m tenth.bench.streaming_cost MODEL.gguf [--tokens 32] [--prompt 256] [--turns 7] [--json]

Both models are loaded in this process, the second with a slot for every slice, and warmed by the prompt and the tokens that are
then measured, so that nothing is read from the disk. A ratio above 1 means that streaming takes longer.
"""

from __future__ import annotations

import argparse
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
    """(seconds of a prompt, seconds of each token behind it)."""
    timings = model.generate(ids, max_tokens=n_tokens, temperature=0.0, ignore_eos=True).wait().timings
    assert timings.first_token_s and timings.generated_tokens_per_second, "nothing was generated"
    return timings.first_token_s, 1 / timings.generated_tokens_per_second


def measure(path: str, n_prompt: int, n_tokens: int, turns: int) -> dict[str, Any]:
    """Ratios of neighbouring turns, streamed over resident."""
    settings: dict[str, Any] = {"context": n_prompt + n_tokens + 32, "prefix_reuse": False, "speculate": False}
    settings["chunk_tokens"] = 256
    resident = tenth.load(path, **settings)
    os.environ[ALWAYS_STREAM] = "1"
    with resident, tenth.load(path, **settings) as streamed:
        rng = np.random.default_rng(1)
        ids = [int(i) for i in rng.integers(0, min(resident.loaded.program.vocab_size, 50_000), n_prompt)]
        seconds: list[list[tuple[float, float]]] = [[], []]
        for turn in range(turns + 1):
            for model, found in zip((resident, streamed), seconds, strict=True):
                times = timed(model, ids, n_tokens)
                if turn:
                    found.append(times)
            if not turn:
                streamed.loaded.runtime.reset_profile()
        hits = streamed.expert_statistics()
    ratios = [[s[part] / r[part] for r, s in zip(*seconds, strict=True)] for part in (0, 1)]
    return {
        name: {"ratio": round(statistics.median(ratios[part]), 4), "from": round(min(ratios[part]), 4),
               "to": round(max(ratios[part]), 4), "resident_seconds": statistics.median(r[part] for r in seconds[0])}
        for part, name in enumerate(("prompt", "generation"))
    } | {"read_bytes": hits["read_bytes"]}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tenth.bench.streaming_cost", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    result = measure(options.model, options.prompt, options.tokens, options.turns)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name in ("prompt", "generation"):
        r = result[name]
        print(f"{name}: streamed / resident {r['ratio']:.3f} (median of {options.turns}, {r['from']:.3f} to {r['to']:.3f})")
    print(f"{result['read_bytes']} bytes read while measuring; {time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
