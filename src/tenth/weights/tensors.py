"""Where a tensor lies in its file, and reading it: raw bytes, or decoded with NumPy to float32.

Decoding here is for references, tests and small tensors; what the engine multiplies with is decoded by native code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import FileIO
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenth.errors import ModelFileError, ResourceError
from tenth.weights.formats import TYPES_BY_NAME, format_of, supported_hint
from tenth.weights.reader import INCOMPLETE

# Weights decoded at once: besides the result, decoding holds some ten bytes per weight of a chunk.
_CHUNK_WEIGHTS = 1 << 19


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: NumPy order of dimensions, rows first (the file has them reversed)."""

    name: str
    shape: tuple[int, ...]  # [out, in], the last dimension is contiguous
    format: str
    path: Path
    offset: int  # absolute byte in path
    n_bytes: int

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row (the last dimension)."""
        kind = TYPES_BY_NAME[self.format]
        return self.shape[-1] // kind.block_weights * kind.block_bytes


def read_tensor(info: TensorInfo) -> NDArray[np.float32]:
    """The whole tensor decoded, ``info.shape``.

    ModelFileError for an unsupported format or a file that changed; ResourceError when memory does not suffice.
    """
    return read_rows(info, 0, prod(info.shape[:-1])).reshape(info.shape)


def read_rows(info: TensorInfo, first: int, last: int) -> NDArray[np.float32]:
    """Rows ``first`` to ``last - 1`` decoded, ``[last - first, in]``; leading dimensions count as one.

    Needs the result's memory plus a few MiB.
    """
    kind = format_of(info.format, info.name)
    if not 0 <= first <= last <= prod(info.shape[:-1]):
        raise IndexError(f"rows {first} to {last} of tensor {info.name!r} with shape {info.shape}")
    try:
        result = np.empty((last - first, info.shape[-1]), np.float32)
    except MemoryError:
        wanted = 4 * (last - first) * info.shape[-1]
        raise ResourceError(f"no memory for {wanted} bytes of decoded tensor {info.name!r}") from None
    flat, start = result.reshape(-1), info.offset + first * info.row_bytes
    step = _CHUNK_WEIGHTS // kind.block_weights * kind.block_weights
    with _open(info) as file:
        for at in range(0, flat.size, step):
            weights = flat[at : at + step]
            raw = np.empty((weights.size // kind.block_weights, kind.block_bytes), np.uint8)
            _read_into(file.fileno(), info, start + at // kind.block_weights * kind.block_bytes, raw.reshape(-1))
            weights[:] = kind.decode(raw).reshape(-1)
    return result


def read_transposed(info: TensorInfo, n_heads: int, first: int, n_rows: int) -> NDArray[np.float32]:
    """Some rows of each head of a matrix, turned: ``[n_heads * rows, in]`` -> ``[n_heads * in, n_rows]``.

    Of each head's rows the ``n_rows`` from ``first`` on. Raises as ``read_tensor``.
    """
    rows, heads = prod(info.shape[:-1]) // n_heads, []
    for head in range(n_heads):
        at = head * rows + first
        heads.append(read_rows(info, at, at + n_rows).T)
    return np.concatenate(heads)


def read_bytes(info: TensorInfo, into: NDArray[np.uint8]) -> None:
    """Fill ``into`` (uint8 ``[n_bytes]``, contiguous) with the tensor as stored, whatever its format."""
    if into.dtype != np.uint8 or into.shape != (info.n_bytes,) or not into.flags.c_contiguous:
        raise ValueError(f"the buffer is {into.dtype} {into.shape}, expected contiguous uint8 ({info.n_bytes},)")
    with _open(info) as file:
        _read_into(file.fileno(), info, info.offset, into)


def require_supported(tensors: dict[str, TensorInfo]) -> None:
    """ModelFileError, naming formats and the supported list, when tenth cannot decode one of these tensors."""
    formats: dict[str, str] = {}
    for info in tensors.values():
        formats.setdefault(info.format, info.name)
    refused = []
    for name, tensor in formats.items():
        try:
            format_of(name, tensor)
        except ModelFileError:
            refused.append(f"{name} (tensor {tensor!r})")
    if refused:
        plural = "formats" if len(refused) > 1 else "the format"
        raise ModelFileError(f"the file uses {plural} {', '.join(refused)}, not supported", supported_hint())


def _open(info: TensorInfo) -> FileIO:
    try:
        return open(info.path, "rb", buffering=0)
    except OSError as error:
        raise ModelFileError(f"{info.path}: cannot be opened: {error.strerror}") from error


def _read_into(descriptor: int, info: TensorInfo, offset: int, buffer: NDArray[np.uint8]) -> None:
    """Fill ``buffer`` from ``offset``; one call of preadv may give less than asked (2 GiB at most)."""
    done = 0
    while done < buffer.size:
        try:
            got = os.preadv(descriptor, [buffer[done:].data], offset + done)
        except OSError as error:
            raise ModelFileError(f"{info.path}: cannot read tensor {info.name!r}: {error.strerror}") from error
        if got == 0:
            raise ModelFileError(f"{info.path}: the file ends inside tensor {info.name!r}", INCOMPLETE)
        done += got
