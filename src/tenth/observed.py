"""Hit rates seen on this machine, by model (told as usage.py says): a small file in the library, safe to delete.

Every run whose experts stream notes what its generated tokens spared, and so does ``tenth bench``. ``tenth plan`` and
the next bench believe it more than what others published.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tenth.usage import identity
from tenth.weights.gguf import ModelFile

if TYPE_CHECKING:
    from tenth.loader import Loaded

MOST_POINTS = 32
NEAR = 0.02  # points of cached fractions closer than this replace each other
SETTLING_TOKENS = 64  # the first ones fill the slots, and find less than those that follow
LEAST_TOKENS = 32  # fewer say nothing


class HitKeeper:
    """An observer of a runtime whose experts stream: notes at the end what share tokens did not read."""

    def __init__(self, loaded: Loaded):
        from tenth.placing import expert_weights

        needs, stored = loaded.placement.needs, loaded.stored
        self._loaded = loaded
        self._slot_bytes = loaded.placement.slot_bytes
        self._fraction = min(self._slot_bytes / needs.experts, 1.0)
        all_bytes = sum(stored[name].n_bytes for name in expert_weights(loaded.program))  # in the file
        self._token_bytes = all_bytes * needs.token_bytes / needs.experts
        self._read = self._begun = self._counted = 0  # bytes; tokens before, and those that count
        self._counted_bytes = 0

    def after_step(self, n_rows: int) -> None:
        """Count what a generated token read."""
        counts = self._loaded.runtime.expert_counters()
        if counts is None:
            return
        n_bytes, self._read = counts.read_bytes - self._read, counts.read_bytes
        if n_rows > 1 or n_bytes < 0:  # a prompt, or guesses; somebody set the counts back
            return
        self._begun += 1
        if self._begun > SETTLING_TOKENS or self._read > self._slot_bytes:
            self._counted, self._counted_bytes = self._counted + 1, self._counted_bytes + n_bytes

    def close(self) -> None:
        """Note it."""
        if self._counted >= LEAST_TOKENS:
            rate = 1 - self._counted_bytes / self._counted / self._token_bytes
            note(self._loaded.header, self._fraction, max(rate, 0.0))


def observed(header: ModelFile) -> Sequence[tuple[float, float]] | None:
    """(Cached fraction, hit rate) pairs of this model, or None."""
    try:
        points = json.loads(_file(header).read_text())
        curve = [(float(x), float(y)) for x, y in points]
    except (OSError, ValueError, TypeError):
        return None
    return curve if curve and all(0 < x <= 1 and 0 <= y <= 1 for x, y in curve) else None


def note(header: ModelFile, cached_fraction: float, hit_rate: float) -> None:
    """Keeps one more point; what cannot be written is not kept."""
    curve = [(x, y) for x, y in observed(header) or [] if abs(x - cached_fraction) > NEAR]
    curve = [*curve, (cached_fraction, hit_rate)][-MOST_POINTS:]
    try:
        file = _file(header)
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(sorted(curve)))
        fresh.replace(file)
    except OSError:
        pass


def _file(header: ModelFile) -> Path:
    from tenth.library.store import library_folder

    return library_folder() / "hits" / f"{identity(header)}.json"
