"""How a golden file's weights are stored: float, quantised by the `gguf` package, or random K-quant blocks.

The gguf package decodes K-quants but cannot make them. Any bytes are a valid K-quant block, so those tensors are random
blocks whose scales give the wanted spread; what they were "meant" to be does not matter, only what they decode to.
"""

from __future__ import annotations

import gguf
import numpy as np

# Byte offset of the float16 scale `d` and of the float16 scale of the minima (None: the format has none), and the
# ratio dmin / d that puts the mean at 0: half the largest quant. Layouts: ggml's ggml-common.h, block_q*_K.
K_SCALES = {
    "Q2_K": (80, 82, 1.5),
    "Q3_K": (108, None, 0.0),
    "Q4_K": (0, 2, 7.5),
    "Q5_K": (0, 2, 15.5),
    "Q6_K": (208, None, 0.0),
}


def encode(
    values: np.ndarray, format_name: str, rng: np.random.Generator
) -> tuple[gguf.GGMLQuantizationType, np.ndarray]:
    """The format and the array a GGUFWriter takes for it; K-quants take only shape and spread from the values."""
    kind = gguf.GGMLQuantizationType[format_name]
    if format_name in K_SCALES:
        return kind, _random_blocks(kind, values.shape, float(values.std()), rng)
    if format_name == "F32":
        return kind, values
    return kind, gguf.quantize(values, kind)


def decode_as(kind: gguf.GGMLQuantizationType, raw: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 values of a stored tensor."""
    return gguf.dequantize(raw, kind).reshape(shape)


def _random_blocks(
    kind: gguf.GGMLQuantizationType, shape: tuple[int, ...], spread: float, rng: np.random.Generator
) -> np.ndarray:
    """Uint8 [..., out, bytes of a row]: random blocks, scales differing by up to a factor of three."""
    block_weights, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    n_blocks = int(np.prod(shape)) // block_weights
    blocks = rng.integers(0, 256, (n_blocks, block_bytes), dtype=np.uint8)
    unit = _with_scales(blocks, kind.name, np.ones(n_blocks))
    scales = spread / gguf.dequantize(unit, kind).std() * rng.uniform(0.5, 1.5, n_blocks)
    return _with_scales(blocks, kind.name, scales).reshape(*shape[:-1], -1)


def _with_scales(blocks: np.ndarray, format_name: str, scales: np.ndarray) -> np.ndarray:
    at, minima_at, ratio = K_SCALES[format_name]
    blocks = blocks.copy()
    blocks[:, at : at + 2] = scales.astype("<f2")[:, None].view(np.uint8)
    if minima_at is not None:
        blocks[:, minima_at : minima_at + 2] = (scales * ratio).astype("<f2")[:, None].view(np.uint8)
    return blocks
