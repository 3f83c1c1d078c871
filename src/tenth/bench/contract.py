"""Whether a memory budget holds: a model under a control group whose limit is the budget.

    python -m tenth.bench.contract MODEL.gguf --memory 4GiB [--prompt 2000] [--generate 500] [--parallel 8] [--json]

Loads the model with a cold file, computes a long prompt, generates, and answers several requests at once; after each
part it says what the kernel counted: the most memory so far, anonymous memory and page cache, how often the limit was
met, pages that had to be read again. The process must never be killed, and what it computes with must never be pushed
out: without swap that can only be the code of its libraries, and shows as major faults. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tenth.bench.control_group import control_group
from tenth.config import parse_bytes
from tenth.errors import TenthError


def measure(model: Path, memory: str, prompt: int, generate: int, parallel: int) -> dict[str, Any]:
    """Every part with what the kernel counted by its end, and how the process ended. Raises ResourceError."""
    command = [sys.executable, "-m", "tenth.bench.contract", "--inside", str(model), "--memory", memory]
    command += ["--prompt", str(prompt), "--generate", str(generate), "--parallel", str(parallel)]
    with model.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with control_group(parse_bytes(memory)) as group:
        process = group.start(command, stdout=subprocess.PIPE)
        assert process.stdout
        parts = []
        for line in process.stdout:
            parts.append(json.loads(line) | asdict(group.memory()))
            print(progress(parts[-1]), file=sys.stderr, flush=True)
        code = process.wait()
        end = group.memory()
    for before, part in zip([{"major_faults": 0}, *parts], list(parts), strict=False):
        part["new_major_faults"] = part["major_faults"] - before["major_faults"]
    limit = parse_bytes(memory)
    return {"model": model.name, "limit_bytes": limit, "exit_code": code, "kills": end.kills, "parts": parts}


def progress(part: dict[str, Any]) -> str:
    """That a part is over: slow disks take many minutes for some."""
    return f"contract: {part['part']} after {part['seconds']:.0f} s, peak {part['peak_bytes'] / 1e6:.0f} MB"


def run_inside(model: Path, memory: str, prompt: int, generate: int, parallel: int) -> None:
    """The parts, in the process that is limited; one line of JSON after each."""
    import numpy as np

    import tenth

    started = time.monotonic()

    def done(what: str, n_tokens: int = 0) -> None:
        nonlocal started
        statistics = opened.expert_statistics()
        opened.loaded.runtime.reset_profile()
        seconds, started = time.monotonic() - started, time.monotonic()
        kept = ("hit_rate", "read_bytes", "waiting_share")
        print(json.dumps({"part": what, "n_tokens": n_tokens, "seconds": round(seconds, 3)}
                         | {name: statistics[name] for name in kept if name in statistics}), flush=True)  # fmt: skip

    context = prompt + max(generate, parallel * 32) + 64
    with tenth.load(model, memory=memory, context=context, prefix_reuse=False, speculate=False) as opened:
        done("load")
        rng = np.random.default_rng(1)
        n_words = opened.loaded.program.vocab_size

        def some(n: int) -> list[int]:
            return [int(i) for i in rng.integers(0, min(n_words, 50_000), n)]

        settings: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}
        opened.generate(some(prompt), max_tokens=1, **settings).wait()
        done("prompt", prompt)
        opened.generate(some(16), max_tokens=generate, **settings).wait()
        done("generation", generate)
        each = max(min(generate // 4, 32), 1)
        for stream in opened.generate([some(16) for _ in range(parallel)], max_tokens=each, **settings):
            stream.wait()
        done(f"{parallel} requests", parallel * each)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tenth.bench.contract", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--memory", required=True)
    parser.add_argument("--prompt", type=int, default=2000)
    parser.add_argument("--generate", type=int, default=500)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    what = (options.model, options.memory, options.prompt, options.generate, options.parallel)
    try:
        if options.inside:
            run_inside(*what)
            return 0
        result = measure(*what)
    except TenthError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 0 if result["exit_code"] == 0 and not result["kills"] else 1


def show(result: dict[str, Any]) -> None:
    """The result as a table, memory in MB."""
    print(f"{result['model']} within {result['limit_bytes'] / 1e6:.0f} MB: exit code {result['exit_code']}, "
          f"{result['kills']} kills")  # fmt: skip
    print(f"{'':14}{'seconds':>9}{'tokens':>8}{'hits':>8}{'read':>9}{'peak':>8}{'anonymous':>11}{'files':>8}"
          f"{'limit met':>11}{'major faults':>14}")  # fmt: skip
    for p in result["parts"]:
        print(f"{p['part']:14}{p['seconds']:>9.1f}{p['n_tokens']:>8}{100 * p.get('hit_rate', 1):>6.0f} %"
              f"{p.get('read_bytes', 0) / 1e6:>9.0f}{p['peak_bytes'] / 1e6:>8.0f}{p['anonymous_bytes'] / 1e6:>11.0f}"
              f"{p['file_bytes'] / 1e6:>8.0f}{p['reclaims']:>11}{p['new_major_faults']:>14}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
