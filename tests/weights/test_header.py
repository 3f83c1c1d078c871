"""What a well-formed file gives: with our own test writer and with the writer of the gguf package."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from tenth.weights.describe import FormatShare, describe
from tenth.weights.formats import TYPES
from tenth.weights.gguf import read_header, read_tensor

from .writer import ARR, STR, U32, File, Tensor, small_model


@pytest.mark.parametrize("version", [2, 3])
def test_versions_2_and_3_give_keys_and_tensors(tmp_path: Path, version: int) -> None:
    path = small_model(version=version).write(tmp_path / "m.gguf")
    model = read_header(path)
    assert (model.version, model.paths, model.size_bytes) == (version, (path,), path.stat().st_size)
    assert model.metadata.architecture == "llama"
    assert list(model.tensors) == ["token_embd.weight", "blk.0.weight", "output_norm.weight"]


def test_a_tensor_has_its_shape_reversed_and_its_absolute_place(tmp_path: Path) -> None:
    path = small_model().write(tmp_path / "m.gguf")
    info = read_header(path).tensors["blk.0.weight"]
    assert (info.shape, info.format, info.n_bytes, info.path) == ((2, 32), "Q8_0", 68, path)
    assert path.read_bytes()[info.offset : info.offset + 4] == b"\x00\x3c\x00\x01"
    assert (info.n_weights, info.row_bytes) == (64, 34)


def test_a_file_may_be_named_by_a_string_and_relative_to_the_working_folder(tmp_path, monkeypatch) -> None:
    small_model().write(tmp_path / "m.gguf")
    monkeypatch.chdir(tmp_path)
    model = read_header("m.gguf")
    monkeypatch.chdir("/")
    assert model.metadata.get_strs("tokenizer.ggml.tokens") == ["a", "bc", "", "dé"]
    assert read_tensor(model.tensors["output_norm.weight"]).tolist() == [0, 1, 2, -1, 0.5]


def test_a_vocabulary_only_file_is_fine(tmp_path: Path) -> None:
    model = read_header(small_model(tensors=[]).write(tmp_path / "vocab.gguf"))
    assert model.tensors == {}
    assert model.metadata.count("tokenizer.ggml.tokens") == 4


def test_the_alignment_of_the_file_places_the_data(tmp_path: Path) -> None:
    tensors = [Tensor("a", (1,), 0, struct.pack("<f", 1)), Tensor("b", (1,), 0, struct.pack("<f", 2))]
    file = File([("general.alignment", U32, 4096)], tensors, alignment=4096)
    model = read_header(file.write(tmp_path / "m.gguf"))
    assert [info.offset for info in model.tensors.values()] == [4096, 8192]
    assert [read_tensor(info).tolist() for info in model.tensors.values()] == [[1], [2]]


def test_tensors_may_lie_in_any_order_with_gaps_between(tmp_path: Path) -> None:
    tensors = [Tensor("a", (1,), 0, b"", offset=128), Tensor("b", (1,), 0, b"", offset=0)]
    model = read_header(File([], tensors, tail=bytes(132)).write(tmp_path / "m.gguf"))
    assert list(model.tensors) == ["a", "b"]
    assert model.tensors["a"].offset - model.tensors["b"].offset == 128


def test_every_known_tensor_type_is_laid_out_even_when_it_cannot_be_decoded(tmp_path: Path) -> None:
    tensors = [Tensor(t.name, (t.block_weights,), t.gguf_id, bytes(t.block_bytes)) for t in TYPES.values()]
    model = read_header(File([], tensors).write(tmp_path / "m.gguf"))
    assert {i.name: (i.format, i.n_bytes) for i in model.tensors.values()} == {
        t.name: (t.name, t.block_bytes) for t in TYPES.values()
    }


def test_a_vocabulary_longer_than_the_reading_window_is_read_whole(tmp_path: Path) -> None:
    tokens = ["x" * (i % 700) for i in range(3000)] + ["y" * 600_000, "", "z"]
    path = File([("t", ARR, (STR, tokens)), ("after", STR, "w" * 300_000)]).write(tmp_path / "m.gguf")
    metadata = read_header(path).metadata
    assert metadata.get_strs("t") == tokens
    assert metadata.get_str("after") == "w" * 300_000


def gguf_package_file(path: Path, tensors: dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType | None]]) -> Path:
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("by the package")
    writer.add_uint8("u8", 255)
    writer.add_int8("i8", -128)
    writer.add_uint16("u16", 65535)
    writer.add_int16("i16", -32768)
    writer.add_uint32("u32", 2**32 - 1)
    writer.add_int32("i32", -(2**31))
    writer.add_uint64("u64", 2**64 - 1)
    writer.add_int64("i64", -(2**63))
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_context_length(4096)
    writer.add_token_list(["<s>", "héllo", "日本"])
    writer.add_token_scores([0.5, -1.0, -2.0])
    writer.add_token_types([3, 1, 1])
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_of_the_gguf_package_gives_the_same_values_and_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    dense = rng.standard_normal((6, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q5_1
    packed = gguf.quants.quantize(dense, kind)
    path = gguf_package_file(
        tmp_path / "m.gguf", {"a": (dense, None), "b": (packed, kind), "c": (dense.astype(np.float16), None)}
    )
    model = read_header(path)
    expected = {
        "u8": 255, "i8": -128, "u16": 65535, "i16": -32768, "u32": 2**32 - 1, "i32": -(2**31),
        "u64": 2**64 - 1, "i64": -(2**63), "f32": 0.5, "f64": 0.1, "yes": True,
    }  # fmt: skip
    assert {key: model.metadata.value(key) for key in expected} == expected
    assert model.metadata.get_strs("tokenizer.ggml.tokens") == ["<s>", "héllo", "日本"]
    assert model.metadata.get_floats("tokenizer.ggml.scores").tolist() == [0.5, -1.0, -2.0]
    assert model.metadata.get_ints("tokenizer.ggml.token_type").tolist() == [3, 1, 1]
    assert model.tensors["b"].shape == (6, 64)
    np.testing.assert_array_equal(read_tensor(model.tensors["a"]), dense)
    np.testing.assert_array_equal(read_tensor(model.tensors["b"]), gguf.quants.dequantize(packed, kind))
    np.testing.assert_array_equal(read_tensor(model.tensors["c"]), dense.astype(np.float16).astype(np.float32))


def test_a_description_counts_parameters_bytes_and_formats(tmp_path: Path) -> None:
    path = small_model().write(tmp_path / "m.gguf")
    found = describe(read_header(path))
    assert (found.architecture, found.name, found.context_tokens, found.vocabulary_tokens) == ("llama", "tiny", 128, 4)
    assert (found.n_parameters, found.n_tensors, found.n_files) == (12 + 64 + 5, 3, 1)
    assert found.size_bytes == path.stat().st_size
    assert found.formats == {
        "Q8_0": FormatShare(1, 64, 68), "F32": FormatShare(1, 12, 48), "F16": FormatShare(1, 5, 10),
    }  # fmt: skip
    assert list(found.formats) == ["Q8_0", "F32", "F16"]
    assert found.unsupported == ()


def test_a_description_of_odd_metadata_leaves_out_what_is_wrong(tmp_path: Path) -> None:
    keys = [
        ("general.architecture", U32, 3),
        ("general.name", STR, "two\x1b[31m\nlines"),
        ("tokenizer.ggml.tokens", U32, 1),
    ]
    found = describe(read_header(File(keys, [Tensor("a", (1,), 26, bytes(4))]).write(tmp_path / "m.gguf")))
    assert (found.architecture, found.name) == (None, "two [31m lines")
    assert (found.context_tokens, found.vocabulary_tokens) == (None, None)
    assert found.unsupported == ("I32",)
