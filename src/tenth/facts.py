"""What can be said of an open model and of this process: counts, sizes and rates, under the names that users read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tenth.loader import Loaded
    from tenth.runtime import ExpertCounters


def description(loaded: Loaded) -> dict[str, Any]:
    """What kind of model it is and in which formats: see Model.description."""
    formats: Counter[str] = Counter()
    for tensor in loaded.header.tensors.values():
        formats[tensor.format] += int(np.prod(tensor.shape, dtype=np.int64))
    return {
        "task": loaded.program.task,
        "architecture": loaded.header.metadata.architecture,
        "parameters": sum(formats.values()),
        "context_tokens": loaded.runtime.context_tokens,
        "formats": dict(formats.most_common()),
    }


def expert_statistics(
    loaded: Loaded, counts: ExpertCounters, n_rows: int, *, lossy: bool
) -> dict[str, float | int | bool]:
    """What streamed experts have cost over so many rows: see Model.expert_statistics."""
    steps = loaded.runtime.step_counters()
    workers_s = steps.step_seconds * loaded.runtime.n_threads
    waiting = min(counts.wait_seconds / workers_s, 1.0) if workers_s else 0.0
    return {
        "slot_bytes": counts.slot_bytes,
        "tokens_held": round(loaded.placement.tokens_held, 2),
        "hit_rate": round(counts.ready / max(counts.wanted, 1), 4),
        "predicted_right": round(1 - counts.unused / max(counts.predicted, 1), 4),
        "read_bytes": counts.read_bytes,
        "read_bytes_per_token": counts.read_bytes // max(n_rows, 1),
        "waiting_share": round(waiting, 4),
        "computing_share": round(1 - waiting, 4),
        "direct_reads": counts.direct,
        **({"dropped": counts.dropped} if lossy else {}),
    }


def peak_bytes() -> int:
    """Greatest resident size of this process, in bytes (VmHWM, proc(5)); 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
