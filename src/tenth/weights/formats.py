"""The tensor formats: which tenth decodes (``FORMATS``), and the size of every other one that GGML names (``TYPES``).

A file that holds a known but unsupported format can still be read, shown and checked; ``require_supported`` refuses
it at use with the list of what is supported. Ids and sizes: ``ggml.h`` and ``ggml-common.h`` of llama.cpp, as in the
PyPI package ``gguf`` 0.19 (a test compares the whole table).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tenth.errors import ModelFileError
from tenth.weights import decode as _decode
from tenth.weights import decode_grids as _decode_grids


@dataclass(frozen=True)
class TensorType:
    """A way to store weights: ``block_weights`` of them in ``block_bytes`` bytes."""

    name: str
    gguf_id: int
    block_weights: int
    block_bytes: int


@dataclass(frozen=True)
class Format(TensorType):
    """A tensor type that tenth decodes: ``decode(uint8 [n, block_bytes]) -> float32 [n, block_weights]``."""

    block_decode: Callable[[_decode.Blocks], _decode.Floats]

    def decode(self, raw: _decode.Blocks) -> _decode.Floats:
        """Decode whole blocks. NaN and infinite scales give NaN and infinite weights, without warnings."""
        if raw.dtype != np.uint8 or raw.ndim != 2 or raw.shape[1] != self.block_bytes:
            raise ValueError(f"{self.name} blocks are {raw.dtype} {raw.shape}, expected uint8 [n, {self.block_bytes}]")
        with np.errstate(all="ignore"):
            return self.block_decode(raw)


# name, GGUF id, weights per block, bytes per block, decode
FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("F32", 0, 1, 4, _decode.f32),
        Format("F16", 1, 1, 2, _decode.f16),
        Format("BF16", 30, 1, 2, _decode.bf16),
        Format("Q4_0", 2, 32, 18, _decode.q4_0),
        Format("Q4_1", 3, 32, 20, _decode.q4_1),
        Format("Q5_0", 6, 32, 22, _decode.q5_0),
        Format("Q5_1", 7, 32, 24, _decode.q5_1),
        Format("Q8_0", 8, 32, 34, _decode.q8_0),
        Format("Q2_K", 10, 256, 84, _decode.q2_k),
        Format("Q3_K", 11, 256, 110, _decode.q3_k),
        Format("Q4_K", 12, 256, 144, _decode.q4_k),
        Format("Q5_K", 13, 256, 176, _decode.q5_k),
        Format("Q6_K", 14, 256, 210, _decode.q6_k),
        Format("IQ4_NL", 20, 32, 18, _decode.iq4_nl),
        Format("IQ4_XS", 23, 256, 136, _decode.iq4_xs),
        Format("MXFP4", 39, 32, 17, _decode.mxfp4),
        Format("IQ1_S", 19, 256, 50, _decode_grids.iq1_s),
        Format("IQ1_M", 29, 256, 56, _decode_grids.iq1_m),
        Format("IQ2_XXS", 16, 256, 66, _decode_grids.iq2_xxs),
        Format("IQ2_XS", 17, 256, 74, _decode_grids.iq2_xs),
        Format("IQ2_S", 22, 256, 82, _decode_grids.iq2_s),
        Format("IQ3_XXS", 18, 256, 98, _decode_grids.iq3_xxs),
        Format("IQ3_S", 21, 256, 110, _decode_grids.iq3_s),
        Format("TQ2_0", 35, 256, 66, _decode.tq2_0),
    )
}

_UNSUPPORTED = (
    TensorType("Q8_1", 9, 32, 40),
    TensorType("Q8_K", 15, 256, 292),
    TensorType("I8", 24, 1, 1),
    TensorType("I16", 25, 1, 2),
    TensorType("I32", 26, 1, 4),
    TensorType("I64", 27, 1, 8),
    TensorType("F64", 28, 1, 8),
    TensorType("TQ1_0", 34, 256, 54),
    TensorType("NVFP4", 40, 64, 36),
    TensorType("Q1_0", 41, 128, 18),
)

# Every type whose size is known, by GGUF id and by name.
TYPES: dict[int, TensorType] = {t.gguf_id: t for t in (*FORMATS.values(), *_UNSUPPORTED)}
TYPES_BY_NAME: dict[str, TensorType] = {t.name: t for t in TYPES.values()}

# Ids that GGML once used and gave up; files with them date from 2023 or 2024.
WITHDRAWN: dict[int, str] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}


def supported_hint() -> str:
    """The list of supported formats, as a hint."""
    return f"supported formats are {', '.join(FORMATS)}; look for the model in one of these"


def format_of(name: str, tensor: str) -> Format:
    """The format called ``name``; ModelFileError with the supported list when tenth cannot decode it."""
    found = FORMATS.get(name)
    if found is None:
        raise ModelFileError(f"tensor {tensor!r} is stored as {name}, which is not supported", supported_hint())
    return found
