"""Hit rates seen on this machine, by model: a small file in the data folder, safe to delete.

``tenth bench`` notes them; ``tenth plan`` and the next bench believe them more than what others published.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from tenth.forecast.hits import Curve
from tenth.weights.gguf import ModelFile

MOST_POINTS = 32
NEAR = 0.02  # points of cached fractions closer than this replace each other


def observed(header: ModelFile) -> Curve | None:
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
    file = _file(header)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(sorted(curve)))
        fresh.replace(file)
    except OSError:
        pass


def _file(header: ModelFile) -> Path:
    from tenth.library.store import library_folder

    what = repr((header.metadata.architecture, header.paths[0].name, header.size_bytes, len(header.tensors)))
    return library_folder() / "hits" / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"
