"""What every op of the table means, in NumPy, one file per family. ``reference.py`` runs programs by it.

Slow on purpose: one obvious line where possible. Roundings that belong to an op's meaning (rotary angles, q8, bf16) are
float32 at any ``dtype``; everything else is computed in ``dtype``, float32 or float64.
"""

from __future__ import annotations

from tenth.program.meanings import arithmetic, attention, experts, recurrent  # noqa: F401 — they fill the table
from tenth.program.meanings.context import MEANINGS, Batch, Cache, Context
from tenth.program.meanings.q8 import Q8, dequantize, quantize

__all__ = ["MEANINGS", "Q8", "Batch", "Cache", "Context", "dequantize", "quantize"]
