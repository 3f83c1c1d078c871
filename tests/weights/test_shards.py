"""Models split over several files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tenth.errors import ModelFileError
from tenth.weights.gguf import read_header, read_tensor

from .writer import I32, STR, U16, U32, File, Tensor


def split_keys(number: int, count: int = 3, tensors: int = 4) -> list[tuple[Any, ...]]:
    return [("split.no", U16, number), ("split.count", U16, count), ("split.tensors.count", I32, tensors)]


def write_split(folder: Path, **keys_of: list[tuple[Any, ...]]) -> list[Path]:
    """Three files with 2, 1 and 1 tensors; ``part1=...`` replaces the split keys of that part."""
    paths, value = [], 0.0
    for number, count in enumerate((2, 1, 1)):
        keys = keys_of.get(f"part{number}", split_keys(number))
        if number == 0:
            keys = [("general.architecture", STR, "llama"), *keys]
        tensors = []
        for _ in range(count):
            tensors.append(Tensor(f"t{value:.0f}", (1,), 0, struct.pack("<f", value)))
            value += 1
        paths.append(File(keys, tensors).write(folder / f"big-{number + 1:05d}-of-00003.gguf"))
    return paths


@pytest.mark.parametrize("given", [0, 1, 2])
def test_any_shard_leads_to_all_of_them(tmp_path: Path, given: int) -> None:
    paths = write_split(tmp_path)
    model = read_header(paths[given])
    assert model.paths == tuple(paths)
    assert model.metadata.architecture == "llama"
    assert model.size_bytes == sum(path.stat().st_size for path in paths)
    assert {name: read_tensor(info).item() for name, info in model.tensors.items()} == {f"t{i}": i for i in range(4)}
    assert [info.path for info in model.tensors.values()] == [paths[0], paths[0], paths[1], paths[2]]


def test_shards_that_are_links_to_files_of_other_names_are_found_by_the_links(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    for number, path in enumerate(write_split(tmp_path)):
        (tmp_path / "snapshot" / path.name).symlink_to(path.rename(tmp_path / "blobs" / f"hash{number}"))
    assert len(read_header(tmp_path / "snapshot" / "big-00002-of-00003.gguf").tensors) == 4


def test_missing_shards_are_named(tmp_path: Path) -> None:
    paths = write_split(tmp_path)
    paths[1].unlink()
    paths[2].unlink()
    with pytest.raises(
        ModelFileError, match=r"2 of the model's 3 files are missing: big-00002-of-00003.gguf, big-00003"
    ):
        read_header(paths[0])


def test_a_shard_whose_name_was_changed_is_refused_with_the_naming_rule(tmp_path: Path) -> None:
    renamed = write_split(tmp_path)[0].rename(tmp_path / "model.gguf")
    with pytest.raises(ModelFileError, match="one part of 3, but its name does not say which") as raised:
        read_header(renamed)
    assert "model-00001-of-00003.gguf" in str(raised.value.hint)


def test_a_name_that_speaks_of_parts_the_file_does_not_know_is_refused(tmp_path: Path) -> None:
    path = File([("general.architecture", STR, "llama")]).write(tmp_path / "m-00001-of-00002.gguf")
    with pytest.raises(ModelFileError, match="the name says part 1 of 2, the file says nothing of parts"):
        read_header(path)
    assert read_header(path.rename(tmp_path / "m-00001-of-00001.gguf")).tensors == {}


CONTRADICTIONS = {
    "swapped parts": ({"part1": split_keys(2), "part2": split_keys(1)}, "it is part 3 of 3, expected part 2 of 3"),
    "another count": ({"part2": split_keys(2, count=4)}, "it is part 3 of 4, expected part 3 of 3"),
    "the name says three, the file four": ({"part0": split_keys(0, count=4)}, "one part of 4, but its name"),
    "2000 parts": ({"part0": split_keys(0, count=2000)}, "split.count is 2000, expected at least 0 and at most 1024"),
    "more tensors promised": ({"part0": split_keys(0, tensors=5)}, "count is 5, but the 3 parts hold 4 tensors"),
    "fewer tensors promised by the last": ({"part2": split_keys(2, tensors=3)}, "count is 3, but the 3 parts hold 4"),
    "a part without split keys": ({"part1": []}, "the key split.count is missing"),
    "a part number that is a text": (
        {"part1": [("split.no", STR, "1"), *split_keys(1)[1:]]}, "split.no is of type str, expected a whole number"),
    "a count of the wrong type": ({"part0": [("split.count", STR, "3")]}, "split.count is of type str"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_shards_that_contradict_each_other_are_refused(tmp_path: Path, case: str) -> None:
    keys, expected = CONTRADICTIONS[case]
    paths = write_split(tmp_path, **keys)
    with pytest.raises(ModelFileError, match=expected):
        read_header(paths[0])


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    paths = write_split(tmp_path)
    File(split_keys(1), [Tensor("t0", (1,), 0, bytes(4))]).write(paths[1])
    with pytest.raises(ModelFileError, match=r"00002-of-00003.gguf: tensor 't0' is also in an earlier part"):
        read_header(paths[2])


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    paths = write_split(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"big-00003-of-00003.gguf: tensor 't3' ends at byte"):
        read_header(paths[0])


def test_many_shards_share_one_budget(tmp_path: Path) -> None:
    keys = [(f"k{i}", U32, 0) for i in range(30_000)]
    for number in range(3):
        File([*split_keys(number, tensors=0), *keys]).write(tmp_path / f"m-0000{number + 1}-of-00003.gguf")
    with pytest.raises(
        ModelFileError, match=r"00003-of-00003.gguf: the header holds 30003 more keys, expected at most 5530"
    ):
        read_header(tmp_path / "m-00001-of-00003.gguf")


def test_shards_of_the_gguf_package_are_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    expected = {f"w{i}": np.full((2, 3), i, np.float32) for i in range(5)}
    for name, data in expected.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = read_header(tmp_path / "m-00002-of-00003.gguf")
    assert len(model.paths) == 3
    for name, data in expected.items():
        np.testing.assert_array_equal(read_tensor(model.tensors[name]), data)
