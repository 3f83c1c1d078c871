"""The grids of the IQ1, IQ2 and IQ3 formats: lists of points, each the magnitudes of 4 or 8 neighbouring weights.

A weight is one of a few levels, and of all combinations of levels a format uses only those of its grid, so that an
index of 8 to 11 bits stands for 4 or 8 weights. The points come from llama.cpp's ``ggml-common.h`` by way of
``scripts/make_grids.py``, which also explains the form they are kept in.
"""

from __future__ import annotations

import base64
import functools

import numpy as np
from numpy.typing import NDArray

from tenth.weights.grid_bits import BITS

# The levels of a weight, in the order of their numbers.
LEVELS: dict[str, tuple[int, ...]] = {
    "IQ1": (-1, 0, 1),
    "IQ2_XXS": (8, 25, 43),
    "IQ2_XS": (8, 25, 43),
    "IQ2_S": (8, 25, 43),
    "IQ3_XXS": (4, 12, 20, 28, 36, 44, 52, 62),
    "IQ3_S": (1, 3, 5, 7, 9, 11, 13, 15),
}


@functools.cache
def grid(name: str) -> NDArray[np.float32]:
    """The points of a grid, ``[n, 8]`` (IQ1, IQ2) or ``[n, 4]`` (IQ3): 256, 512, 1024 or 2048 of them."""
    levels = np.array(LEVELS[name], np.float32)
    n_weights = 8 if len(levels) == 3 else 4
    present = np.unpackbits(np.frombuffer(base64.b64decode(BITS[name]), np.uint8), bitorder="little")
    numbers = np.flatnonzero(present)[:, None]
    points: NDArray[np.float32] = levels[numbers // len(levels) ** np.arange(n_weights) % len(levels)]
    points.setflags(write=False)
    return points
