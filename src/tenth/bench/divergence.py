"""How far next-token distributions are from those that count as exact.

    mean, median, max KL  Kullback-Leibler divergence from exact, nats per token
    perplexity, ratio     of the text; ratio to exact's
    ±                     standard error over the positions: a ratio this close to 1 says nothing
    top-1                 share of positions where the likeliest token is the same
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenth.errors import ResourceError

Logits = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Quality:
    """Something on one file, against exact."""

    name: str
    mean_kl: float
    mean_kl_error: float  # standard error over the positions, as the next one
    median_kl: float
    max_kl: float
    perplexity: float
    perplexity_ratio: float
    perplexity_ratio_error: float
    top1_agreement: float
    n_predictions: int


def compare(name: str, found: Logits, expected: Logits, tokens: Sequence[int]) -> Quality:
    """The figures; all sums in float64. Logits are [n, vocab], tokens n + 1.

    Raises ResourceError when the two do not fit each other, or are not all numbers.
    """
    if found.shape != expected.shape:
        raise ResourceError(f"{name}: logits of the shape {found.shape}, expected {expected.shape} as the exact ones",
                            "both have to be of the same model and text")
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        raise ResourceError(f"{name}: logits that are not numbers", "check the model file with tenth verify")
    divergence, agrees, ours, exacts = [], [], [], []
    for rows in pieces(len(expected)):
        p, q = log_softmax(expected[rows]), log_softmax(found[rows])
        divergence.append((np.exp(p) * (p - q)).sum(-1))
        agrees.append(p.argmax(-1) == q.argmax(-1))
        actual = np.array(tokens)[rows.start + 1 : rows.stop + 1]
        ours.append(q[np.arange(len(q)), actual])
        exacts.append(p[np.arange(len(p)), actual])
    kl = np.concatenate(divergence)
    surprise = -np.concatenate(ours)
    excess = surprise + np.concatenate(exacts)
    ratio = float(np.exp(excess.mean()))
    return Quality(
        name=name,
        mean_kl=float(kl.mean()),
        mean_kl_error=float(kl.std(ddof=1) / len(kl) ** 0.5),
        median_kl=float(np.median(kl)),
        max_kl=float(kl.max()),
        perplexity=float(np.exp(surprise.mean())),
        perplexity_ratio=ratio,
        perplexity_ratio_error=float(ratio * excess.std(ddof=1) / len(excess) ** 0.5),
        top1_agreement=float(np.concatenate(agrees).mean()),
        n_predictions=len(kl),
    )


def pieces(n: int) -> Iterator[slice]:
    """Slices of 50 rows: whole vocabularies of 500 rows in float64 would take gigabytes."""
    yield from (slice(start, min(start + 50, n)) for start in range(0, n, 50))


def log_softmax(logits: Logits) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Float64 [n, vocab], natural logarithm."""
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    logs: np.ndarray[Any, np.dtype[np.float64]] = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return logs
