"""Reading tensors: whole, by rows, as stored, and from files that changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tenth.errors import ModelFileError
from tenth.weights import tensors as tensors_module
from tenth.weights.formats import FORMATS
from tenth.weights.gguf import TensorInfo, read_bytes, read_header, read_rows, read_tensor

from .writer import File, Tensor

OUT, EXPERTS, BLOCKS = 5, 3, 2


def tensor_of(tmp_path: Path, name: str) -> tuple[TensorInfo, np.ndarray]:
    """A [3, 5, 2 blocks] tensor of the format, and its raw blocks."""
    kind = FORMATS[name]
    raw = np.random.default_rng(3).integers(0, 256, (EXPERTS * OUT * BLOCKS, kind.block_bytes), np.uint8)
    dims = (BLOCKS * kind.block_weights, OUT, EXPERTS)
    first = Tensor("first", (1,), 0, bytes(4))
    path = File([], [first, Tensor("w", dims, kind.gguf_id, raw.tobytes())]).write(tmp_path / "m.gguf")
    return read_header(path).tensors["w"], raw


@pytest.mark.parametrize("name", FORMATS)
def test_a_tensor_is_read_the_same_whatever_the_chunk(tmp_path: Path, name: str, monkeypatch) -> None:
    info, raw = tensor_of(tmp_path, name)
    expected = FORMATS[name].decode(raw).reshape(info.shape)
    np.testing.assert_array_equal(read_tensor(info), expected)
    monkeypatch.setattr(tensors_module, "_CHUNK_WEIGHTS", 3 * FORMATS[name].block_weights + 1)
    np.testing.assert_array_equal(read_tensor(info), expected)
    np.testing.assert_array_equal(read_rows(info, 4, 11), expected.reshape(EXPERTS * OUT, -1)[4:11])
    assert read_rows(info, 4, 4).shape == (0, info.shape[-1])


def test_rows_outside_the_tensor_are_our_own_bug(tmp_path: Path) -> None:
    info, _ = tensor_of(tmp_path, "Q8_0")
    for first, last in ((-1, 2), (0, 16), (3, 2)):
        with pytest.raises(IndexError):
            read_rows(info, first, last)


def test_the_bytes_of_a_tensor_are_those_of_the_file(tmp_path: Path) -> None:
    info, raw = tensor_of(tmp_path, "Q4_K")
    buffer = np.empty(info.n_bytes, np.uint8)
    read_bytes(info, buffer)
    np.testing.assert_array_equal(buffer, raw.reshape(-1))
    with pytest.raises(ValueError, match="expected contiguous uint8"):
        read_bytes(info, np.empty(info.n_bytes + 1, np.uint8))


def test_a_file_cut_or_removed_after_its_header_was_read_is_an_error_not_a_crash(tmp_path: Path) -> None:
    info, _ = tensor_of(tmp_path, "Q6_K")
    with open(info.path, "r+b") as file:
        file.truncate(info.offset + info.n_bytes - 1)
    with pytest.raises(ModelFileError, match="the file ends inside tensor 'w'"):
        read_tensor(info)
    info.path.unlink()
    with pytest.raises(ModelFileError, match="cannot be opened"):
        read_tensor(info)
