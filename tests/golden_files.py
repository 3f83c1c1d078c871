"""The golden files in tests/data, found by their names: whatever scripts/make_goldens.py wrote is tested."""

from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
CASES = sorted(path.stem.removeprefix("golden_") for path in DATA.glob("golden_*.npz"))
QUANTISED = [case for case in CASES if "logits_q8" in np.load(DATA / f"golden_{case}.npz").files]
FLOAT = [case for case in CASES if case not in QUANTISED]


def nmse(a, b):
    """Mean squared error over the mean square of b."""
    return ((a.astype(np.float64) - b) ** 2).mean() / (b.astype(np.float64) ** 2).mean()
