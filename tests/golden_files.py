"""The golden files in tests/data, found by their names: whatever scripts/make_goldens.py wrote is tested."""

from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"


def _has(case, *names):
    return not {*names}.isdisjoint(np.load(DATA / f"golden_{case}.npz").files)


ALL = sorted(path.stem.removeprefix("golden_") for path in DATA.glob("golden_*.npz"))
CASES = [case for case in ALL if _has(case, "logits")]  # models that write text
QUANTISED = [case for case in CASES if _has(case, "logits_q8")]
FLOAT = [case for case in CASES if case not in QUANTISED]
TEXTLESS = [case for case in ALL if _has(case, "vectors")]  # embedders and rerankers


def nmse(a, b):
    """Mean squared error over the mean square of b."""
    return ((a.astype(np.float64) - b) ** 2).mean() / (b.astype(np.float64) ** 2).mean()
