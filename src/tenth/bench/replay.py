"""How often experts are in memory when a layer needs them: tenth's policy against others, on a trace of routing.

    python -m tenth.bench.replay TRACE.npz [--json]
    python -m tenth.bench.replay published               a trace made to published statistics (reuse.py)
    python -m tenth.bench.replay random                  every expert as likely as the others

tenth's hits are those of the native cache that models run with, told of one token after the other as in generation,
without predictions. Belady's policy knows the future: nothing has more hits. docs/experts.md has the results.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tenth.bench.policies import POLICIES, groups_of
from tenth.bench.reuse import made_trace, reuse, uniform_trace
from tenth.errors import RequestError, TenthError
from tenth.placing import HALF_LIFE_STEPS, passing_slots
from tenth.runtime import replay_experts
from tenth.tracing import Trace, read_trace

SHARES = (0.05, 0.10, 0.25, 0.50)
MADE = {"published": made_trace, "random": uniform_trace}
MADE_SHAPE = {"n_tokens": 1000, "n_layers": 24, "n_experts": 128, "k": 8}


def replay(trace: Trace, shares: tuple[float, ...] = SHARES) -> list[dict[str, Any]]:
    """For each share of all experts: slots, how many tokens' experts they hold, and the hit rate of each policy.

    Raises RequestError for a trace without complete tokens.
    """
    trace = trace.complete
    n_tokens, n_layers, k = trace.experts.shape
    if not n_tokens:
        raise RequestError("the trace has no token that went through every layer", "generate some tokens")
    groups = groups_of(trace.experts, trace.n_experts)
    rows = []
    for share in shares:
        n_slots = max(round(share * n_layers * trace.n_experts), k)
        held = n_slots / (n_layers * k)
        row = {"share": share, "slots": n_slots, "tokens_held": round(held, 2)}
        ready, wanted = replay_experts(
            np.ascontiguousarray(trace.experts, np.int32), trace.n_experts, n_slots, HALF_LIFE_STEPS,
            passing_slots(n_slots, k),
        )  # fmt: skip
        row["tenth"] = round(ready / wanted, 4)
        for name, hits in POLICIES.items():
            row[name] = round(hits(groups, n_slots) / wanted, 4)
        rows.append(row)
    return rows


def main() -> int:
    """Replay and print."""
    parser = argparse.ArgumentParser(prog="python -m tenth.bench.replay", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("trace", help=f"a file that TENTH_TRACE wrote, or {' or '.join(MADE)}")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        make = MADE.get(options.trace)
        trace = make(**MADE_SHAPE) if make else read_trace(Path(options.trace))
        rows, statistics = replay(trace), reuse(trace.complete)
    except TenthError as error:
        parser.error(str(error))
    n_tokens, n_layers, k = trace.complete.experts.shape
    if options.json:
        shape = {"n_tokens": n_tokens, "n_layers": n_layers, "n_experts": trace.n_experts, "k": k}
        print(json.dumps({"trace": options.trace, **shape, "reuse": asdict(statistics), "rows": rows}, indent=2))
        return 0
    print(f"{options.trace}: {n_tokens} tokens, {n_layers} layers of {trace.n_experts} experts, {k} for each token")
    s = statistics
    print(f"used again at the next token {100 * s.next_token:.0f} %, within eight {100 * s.within_8:.0f} %, median "
          f"{s.median_tokens:.0f} tokens; {s.new_per_layer:.2f} experts per layer and token not used in the 64 before")
    names = ("tenth", *POLICIES)
    print(f"{'experts in memory':18}{'of tokens':>10}" + "".join(f"{name:>9}" for name in names))
    for row in rows:
        rates = "".join(f"{100 * row[name]:>7.1f} %" for name in names)
        print(f"{100 * row['share']:>16.0f} %{row['tokens_held']:>10.1f}{rates}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
