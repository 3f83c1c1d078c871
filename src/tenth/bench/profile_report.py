"""A profile as tables for people and as one object for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tenth.bench.profile import LimitRates, PhaseProfile, Row

Cells = list[tuple[str, ...]]
N_TOP = 10  # single instructions shown without --all
HEAD = ("op", "weights", "format", "ms", "step", "MB", "GB/s", "M products", "G/s", "of limit")
FOOTNOTE = """\
of limit: bytes against the read rate, or multiply-adds ("products") against the int8 rate, whichever is nearer; none
where all bytes are activations, which lie in a cache. Attention multiplies in float32, which no CPU does at that rate.
Above 100 %: a part was still in a cache, or the machine changed its speed."""
RIGHT = frozenset(range(4, 11))  # columns of numbers, in both tables


def group_table(profile: PhaseProfile) -> Cells:
    """One line per op and kind of weights, those that take most time first."""
    return [("n", *HEAD), *((str(row.n_instructions), *_cells(row, profile)) for row in profile.groups())]


def instruction_table(profile: PhaseProfile, everything: bool) -> Cells:
    """One line per instruction: all in the order of the program, or those that take most time."""
    numbered = list(enumerate(profile.rows))
    if not everything:
        numbered = sorted(numbered, key=lambda pair: -pair[1].seconds)[:N_TOP]
    return [("no", *HEAD), *((str(number), *_cells(row, profile)) for number, row in numbered)]


def _cells(row: Row, profile: PhaseProfile) -> tuple[str, ...]:
    cost, seconds = row.cost, row.seconds
    share, limit = profile.limits.share(cost, seconds)
    rate = 1 / seconds if seconds else 0.0
    products = (f"{cost.multiply_adds / 1e6:.2f}", f"{cost.multiply_adds * rate / 1e9:.1f}")
    return (cost.op, cost.label, cost.formats, f"{1e3 * seconds:.3f}", f"{100 * seconds / profile.step_seconds:.1f} %",
            f"{cost.n_bytes / 1e6:.2f}", f"{cost.n_bytes * rate / 1e9:.1f}",
            *(products if cost.multiply_adds else ("", "")), f"{100 * share:.0f} % {limit}" if limit else "")


def rest_lines(profile: PhaseProfile) -> list[str]:
    """What the instructions' times leave of a step, and what the engine adds around it."""
    rest, whole = profile.rest, profile.step_seconds
    parts = {"waking the workers": rest.waking, "sampling": rest.sampling, "Python": rest.python}
    shares = ", ".join(f"{name} {1e3 * s:.3f} ms ({100 * s / whole:.1f} %)" for name, s in parts.items())
    lines = [f"the instructions explain {100 * profile.explained:.1f} % of a step; the rest: {shares}"]
    if rest.engine is not None:
        lines.append(f"around a step the engine adds {1e3 * rest.engine:.3f} ms per token (scheduler, text, streams), "
                     f"{100 * rest.engine / whole:.1f} % of it")
    return lines


def loading_line(costs: Mapping[str, float]) -> str:
    """What loading took, in parts. ``costs``: Model.load_costs."""
    return (f"loading {costs['seconds']:.3f} s: {costs['weights_bytes'] / 1e6:.0f} MB of weights in "
            f"{costs['weights_seconds']:.3f} s (processor seconds: reading {costs['read_processor_seconds']:.3f}, "
            f"packing {costs['pack_processor_seconds']:.3f}), the tokenizer beside it in {costs['text_seconds']:.3f} s")


def heading(profile: PhaseProfile) -> str:
    """Which steps these were, how long one took, and the limits beside it."""
    rows = "1 row" if profile.shape.rows == 1 else f"{profile.shape.rows} rows"
    return (f"{profile.phase}: {rows} behind {profile.shape.first} tokens, {1e3 * profile.step_seconds:.3f} ms a step "
            f"= {profile.shape.rows / profile.step_seconds:.1f} tokens/s; beside it: read "
            f"{profile.limits.read / 1e9:.1f} GB/s, int8 {profile.limits.int8 / 1e9:.0f} G multiply-adds/s")


def as_data(profile: PhaseProfile) -> dict[str, Any]:
    """Everything of a phase."""
    return {
        "phase": profile.phase, "rows": profile.shape.rows, "context_tokens_before": profile.shape.first,
        "steps": profile.n_steps, "step_seconds": profile.step_seconds,
        "tokens_per_second": profile.shape.rows / profile.step_seconds, "explained": profile.explained,
        "rest_seconds": dataclasses.asdict(profile.rest),
        "limits": {"read_bytes_per_second": profile.limits.read,
                   "int8_multiply_adds_per_second": profile.limits.int8},
        "groups": _rows(profile.groups(), profile.limits), "instructions": _rows(profile.rows, profile.limits),
    }


def _rows(rows: Sequence[Row], limits: LimitRates) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        share, limit = limits.share(row.cost, row.seconds)
        found.append(dataclasses.asdict(row.cost) | {
            "instructions": row.n_instructions, "seconds": row.seconds, "bytes": row.cost.n_bytes,
            "share_of_limit": share or None, "limit": limit or None})
    return found
