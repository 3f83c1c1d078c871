"""Compares two makings of a case."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def differences(name: str, fresh: Path, kept: Path) -> list[str]:
    """What differs between a case in one folder and in another; tensors, keys and tokens must be equal."""
    ours, theirs = (gguf.GGUFReader(folder / f"golden_{name}.gguf") for folder in (fresh, kept))
    files = ours, theirs
    found = _unequal("tensor", *({t.name: (t.tensor_type, t.data.tobytes()) for t in f.tensors} for f in files))
    found += _unequal("key", *({key: field.contents() for key, field in f.fields.items()} for f in files))
    ours, theirs = (dict(np.load(folder / f"golden_{name}.npz")) for folder in (fresh, kept))
    found += [f"array {key}" for key in ours.keys() | theirs.keys() if not alike(ours.get(key), theirs.get(key))]
    return [f"{name}: {what} differs" for what in found]


def _unequal(kind: str, ours: dict, theirs: dict) -> list[str]:
    return [f"{kind} {key}" for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]


def alike(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Whether two arrays are equal; logits may differ as much as another processor's rounding makes them."""
    if a is None or b is None or a.shape != b.shape:
        return False
    return nmse(a, b) < 1e-12 if a.dtype == np.float32 else np.array_equal(a, b)


def nmse(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean squared error over the mean square of what was expected."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return float(np.mean((found - expected) ** 2) / np.mean(expected**2))
