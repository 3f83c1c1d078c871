"""Will it run here, and how fast: a header, settings and a probe of the machine, joined.

The arithmetic of memory is that of loading: ``loader.lay_out`` and ``weights.placement.place``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tenth.bench.costs import StepShape
from tenth.bench.work import count
from tenth.config import EngineConfig
from tenth.errors import ResourceError
from tenth.forecast.hits import UNSURE, Curve, hit_rate
from tenth.forecast.probe import Probe
from tenth.forecast.speed import (
    ENGINE_S,
    SPREAD,
    StepTime,
    expert_bytes,
    prompt_time,
    slice_bytes,
    step_time,
    with_disk,
)
from tenth.loader import Layout, lay_out, place_with_chunk
from tenth.placing import trunk_bytes
from tenth.weights.gguf import ModelFile
from tenth.weights.placement import Placement

KINDS = (("attn", "attention"), ("ssm", "recurrent"), ("ffn", "feed-forward"), ("token_embd", "vocabulary"),
         ("output", "vocabulary"))  # how names of weights begin -> what they are
REASONS = {"disk": "reading experts from the disk", "memory": "reading weights from memory",
           "compute": "computing", "overhead": "what many small instructions take at least"}


@dataclass(frozen=True)
class Rate:
    """A prediction with the range that it is good for, and what bounds it: a key of REASONS."""

    low: float
    likely: float
    high: float
    bound: str

    @classmethod
    def per(cls, n_tokens: int, seconds: tuple[float, float, float], bound: str) -> Rate:
        """Tokens per second of the seconds that they take at most, likely and at least."""
        most, likely, least = seconds
        return cls(n_tokens / most, n_tokens / likely, n_tokens / least, bound)


class Outlook:
    """A model on this machine, whatever its budget. ``measured``: hit rates seen here, see ``hits.hit_rate``."""

    def __init__(self, layout: Layout, config: EngineConfig, probe: Probe, measured: Curve | None = None):
        self.layout, self.config, self.probe, self.measured = layout, config, probe, measured

    @classmethod
    def of(cls, header: ModelFile, config: EngineConfig, probe: Probe, measured: Curve | None = None) -> Outlook:
        """Raises ModelFileError for a model that is not supported, RequestError for settings it cannot have."""
        return cls(lay_out(header, config), config, probe, measured)

    def placed(self, budget_bytes: int, source: str = "the budget") -> Placement:
        """As loading would place it. Raises ResourceError."""
        return place_with_chunk(self.layout, self.config, budget_bytes, source)

    # ---- with everything in memory

    @cached_property
    def step(self) -> StepTime:
        """One generated token, behind a few hundred others."""
        return self.step_behind(256)

    def step_behind(self, n_context: int) -> StepTime:
        """One generated token behind so many others."""
        layout = self.layout
        return step_time(layout.program, layout.stored, self.config.kv_format, StepShape(1, n_context), self.probe)

    def prompt(self, n_tokens: int) -> StepTime:
        """A prompt."""
        layout, chunk = self.layout, self.layout.limits.max_rows
        return prompt_time(layout.program, layout.stored, self.config.kv_format, n_tokens, chunk, self.probe)

    # ---- in a placement

    def cached_fraction(self, placement: Placement) -> float:
        """The share of all experts that stays in memory."""
        experts = placement.needs.experts
        return min(placement.slot_bytes / experts, 1.0) if placement.streams and experts else 1.0

    def hits(self, placement: Placement) -> float:
        """The share of uses that find their slice in memory, while generating."""
        if not placement.streams:
            return 1.0
        family = self.layout.program.architecture
        return hit_rate(family, self.cached_fraction(placement), placement.tokens_held, self.measured)

    def least_hits(self, placement: Placement) -> float:
        """The same at worst. Until a model was seen here, its tokens may use all experts alike: no cache helps then."""
        hits = self.hits(placement)
        return hits if self.measured or not placement.streams else min(hits, self.cached_fraction(placement))

    def read_per_token(self, placement: Placement, hits: float | None = None) -> float:
        """Bytes that a generated token reads from the disk."""
        if not placement.streams:
            return 0.0
        hits = self.hits(placement) if hits is None else hits
        return expert_bytes(self.layout.program, self.layout.stored, 1) * (1 - hits)

    def generation(self, placement: Placement, step: StepTime | None = None) -> Rate:
        """Tokens per second of one sequence."""
        step = step or self.step
        seconds, hits = step.seconds + ENGINE_S, self.hits(placement)
        most = hits if self.measured else min(hits + UNSURE, 1.0)
        slow, likely, fast = (with_disk(seconds, self._disk_s(self.read_per_token(placement, share)))
                              for share in (self.least_hits(placement), hits, most))
        bound = self._bound(step, self._disk_s(self.read_per_token(placement)))
        return Rate.per(1, (slow * (1 + SPREAD), likely, fast / (1 + SPREAD)), bound)

    def first_token(self, placement: Placement, n_prompt: int, is_warm: bool = False) -> Rate:
        """Prompt tokens per second up to the first token of the answer; unless warm, with no expert in memory yet."""
        step, disk_s = self.prompt(n_prompt), self._disk_s(self.prompt_reads(placement, n_prompt, is_warm))
        likely = with_disk(step.seconds, disk_s)
        return Rate.per(n_prompt, (likely * (1 + SPREAD), likely, likely / (1 + SPREAD)), self._bound(step, disk_s))

    def prompt_reads(self, placement: Placement, n_prompt: int, is_warm: bool = False) -> float:
        """Bytes that a prompt reads: of each chunk the experts it uses and that are missing; the first time, all."""
        if not placement.streams:
            return 0.0
        chunk, layout = placement.needs.chunk_tokens, self.layout
        each = [expert_bytes(layout.program, layout.stored, min(chunk, n_prompt - at))
                for at in range(0, n_prompt, chunk)]
        missing = 1 - self.cached_fraction(placement)
        return each[0] * (missing if is_warm else 1) + sum(each[1:]) * missing

    def _disk_s(self, n_bytes: float) -> float:
        return n_bytes / self.probe.disk_rate(slice_bytes(self.layout.program, self.layout.stored)) if n_bytes else 0.0

    def _bound(self, step: StepTime, disk_s: float) -> str:
        parts = {"memory": step.memory_s, "compute": step.compute_s, "overhead": step.overhead_s}
        return "disk" if disk_s > step.seconds else max(parts, key=lambda name: parts[name])


def resident_kinds(layout: Layout) -> dict[str, int]:
    """Bytes of the trunk as it is kept, by kind of weight."""
    kinds: Counter[str] = Counter()
    for name, n_bytes in trunk_bytes(layout.stored, layout.program).items():
        kinds[kind_of(name)] += n_bytes
    return dict(kinds.most_common())


def kind_of(name: str) -> str:
    """``blk.3.attn_q.weight`` -> attention."""
    part = name.split(".")[2] if name.startswith("blk.") else name.split(".")[0]
    for start, kind in KINDS:
        if part.startswith(start):
            return "norms" if "norm" in part else kind
    return "other"


def budgets(outlook: Outlook, budget_bytes: int, n: int = 12) -> list[int]:
    """Budgets to draw: from the least to what holds everything or was asked for, in equal ratios."""
    needs = outlook.layout.needs
    least = min([needs.least, *(replace(needs, kv=kv).least for _, kv in needs.smaller_kv)])
    most = max(needs.fixed + needs.experts, budget_bytes if budget_bytes >= least else 0) * 1.02
    if needs.experts == 0 or most < 1.05 * least:
        return [int(least * 1.001)]
    return [int(least * 1.001 * (most / (least * 1.001)) ** (i / (n - 1))) for i in range(n)]


def curve(outlook: Outlook, places: Sequence[int]) -> list[dict[str, Any]]:
    """Speed and hit rate at each budget that does."""
    points = []
    for budget in places:
        try:
            placement = outlook.placed(budget)
        except ResourceError:
            continue
        rate = outlook.generation(placement)
        points.append({"budget_bytes": budget, "hit_rate": round(outlook.hits(placement), 4), "low": rate.low,
                       "tokens_per_second": rate.likely, "high": rate.high, "bound": rate.bound})
    return points


def as_data(outlook: Outlook, placement: Placement, n_prompt: int) -> dict[str, Any]:
    """Everything that plan says of one placement, for printing."""
    layout, needs, probe = outlook.layout, placement.needs, outlook.probe
    work = count(layout.program, layout.stored, outlook.config.kv_format)
    generation, first = outlook.generation(placement), outlook.first_token(placement, n_prompt)
    n_slices = sum(needs.slices.values())
    return {
        "task": layout.program.task,
        "placement": placement.as_data(), "resident_bytes": resident_kinds(layout),
        "streams": {
            "slots": sum(placement.n_slots.values()), "slices": n_slices,
            "cached_share": round(outlook.cached_fraction(placement), 4),
            "tokens_held": round(placement.tokens_held, 2),
            "hit_rate": round(outlook.hits(placement), 4),
            "hit_rate_least": round(outlook.least_hits(placement), 4),
            "hit_rate_source": "measured here" if outlook.measured else "published curves",
        } if placement.streams else None,
        "per_token": {
            "memory_bytes": round(work.generated_bytes(256)), "disk_bytes": round(outlook.read_per_token(placement)),
            "kv_bytes_per_context_token": round(work.kv_bytes_per_context_token),
        },
        "generation": {"low": generation.low, "tokens_per_second": generation.likely, "high": generation.high,
                       "bound": generation.bound},
        "prompt": {"n_tokens": n_prompt, "tokens_per_second": first.likely, "first_token_s": n_prompt / first.likely,
                   "first_token_most_s": n_prompt / first.low, "first_token_least_s": n_prompt / first.high,
                   "disk_bytes": round(outlook.prompt_reads(placement, n_prompt)), "bound": first.bound},
        "load_s": needs.trunk / probe.disk_in_order,
    }  # fmt: skip
