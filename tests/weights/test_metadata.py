"""Typed access to metadata: the right type is given, any other is refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenth.errors import ModelFileError
from tenth.weights.gguf import Metadata, read_header
from tenth.weights.values import MAX_VALUE_BYTES

from .writer import ARR, BOOL, F32, F64, I32, STR, U8, U32, U64, File, small_model


@pytest.fixture
def metadata(tmp_path: Path) -> Metadata:
    return read_header(small_model().write(tmp_path / "m.gguf")).metadata


GETTERS = {
    "get_int": "llama.block_count",
    "get_float": "llama.rope.freq_base",
    "get_bool": "flag",
    "get_str": "general.name",
    "get_strs": "tokenizer.ggml.tokens",
    "get_ints": "tokenizer.ggml.token_type",
    "get_floats": "tokenizer.ggml.scores",
    "get_bools": "pattern",
}


def test_each_getter_gives_its_type(metadata: Metadata) -> None:
    found = {getter: getattr(metadata, getter)(key) for getter, key in GETTERS.items()}
    assert found.pop("get_ints").tolist() == [1, 1, 3, 1]
    assert found.pop("get_floats").tolist() == [0, -1, -2, -3.5]
    assert found.pop("get_bools").tolist() == [True, False]
    assert found == {
        "get_int": 2, "get_float": 10000.0, "get_bool": True, "get_str": "tiny", "get_strs": ["a", "bc", "", "dé"],
    }  # fmt: skip
    assert metadata.get_int("signed") == -3
    assert [x.tolist() if isinstance(x, np.ndarray) else x for x in metadata.value("nested")] == [[1, 2], ["x"]]


@pytest.mark.parametrize("getter", GETTERS)
@pytest.mark.parametrize("other", [key for key in (*GETTERS.values(), "nested")])
def test_each_getter_refuses_every_other_type_even_with_a_default(metadata: Metadata, getter: str, other: str) -> None:
    if GETTERS[getter] == other:
        return
    with pytest.raises(ModelFileError, match=f"{other} is of type .*, expected a"):
        getattr(metadata, getter)(other, None)


@pytest.mark.parametrize("getter", GETTERS)
def test_a_missing_key_gives_the_default_or_is_refused_by_name(metadata: Metadata, getter: str) -> None:
    assert getattr(metadata, getter)("absent", None) is None
    assert getattr(metadata, getter)("absent", default=7) == 7
    with pytest.raises(ModelFileError, match=r"m\.gguf: the key absent is missing"):
        getattr(metadata, getter)("absent")


def test_numbers_outside_their_bounds_are_refused(metadata: Metadata) -> None:
    assert metadata.get_int("llama.block_count", low=2, high=2) == 2
    with pytest.raises(ModelFileError, match=r"block_count is 2, expected at least 3 and at most 9"):
        metadata.get_int("llama.block_count", low=3, high=9)
    with pytest.raises(ModelFileError, match=r"freq_base is 10000.0, expected at most 1"):
        metadata.get_float("llama.rope.freq_base", high=1)
    with pytest.raises(ModelFileError, match=r"an element of tokenizer.ggml.token_type is 3, expected at most 2"):
        metadata.get_ints("tokenizer.ggml.token_type", high=2)
    with pytest.raises(ModelFileError, match=r"an element of tokenizer.ggml.token_type is 1, expected at least 2"):
        metadata.get_ints("tokenizer.ggml.token_type", low=2)
    with pytest.raises(ModelFileError, match="tokens has 4 elements, expected 5"):
        metadata.get_strs("tokenizer.ggml.tokens", count=5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    metadata = read_header(File([("eps", F32, value)]).write(tmp_path / "m.gguf")).metadata
    with pytest.raises(ModelFileError, match="expected a finite number"):
        metadata.get_float("eps")


def test_text_that_is_not_utf8_is_refused_only_when_asked_for(tmp_path: Path) -> None:
    keys: list[tuple[Any, ...]] = [("bad", STR, b"\xff\xfe"), ("list", ARR, (STR, ["a", b"\xc3"])), ("good", U32, 1)]
    metadata = read_header(File(keys).write(tmp_path / "m.gguf")).metadata
    assert metadata.get_int("good") == 1
    for key, getter in (("bad", metadata.get_str), ("list", metadata.get_strs), ("list", metadata.get_texts)):
        with pytest.raises(ModelFileError, match=f"{key} holds text that is not UTF-8"):
            getter(key)


def test_an_array_of_bools_other_than_0_and_1_is_refused(tmp_path: Path) -> None:
    metadata = read_header(File([("b", ARR, (BOOL, [0, 2]))]).write(tmp_path / "m.gguf")).metadata
    with pytest.raises(ModelFileError, match="a bool is 2"):
        metadata.get_bools("b")


def test_empty_arrays_are_empty(tmp_path: Path) -> None:
    keys = [("i", ARR, (U64, [])), ("f", ARR, (F64, [])), ("s", ARR, (STR, [])), ("a", ARR, (ARR, []))]
    metadata = read_header(File(keys).write(tmp_path / "m.gguf")).metadata
    assert metadata.get_ints("i", low=1).tolist() == metadata.get_floats("f").tolist() == metadata.get_strs("s") == []
    assert metadata.value("a") == []


def test_types_and_counts_are_known_without_reading(metadata: Metadata) -> None:
    names = {key: metadata.type_name(key) for key in metadata.keys()}  # noqa: SIM118 (not a dict)
    assert names["tokenizer.ggml.tokens"] == "array of str"
    assert names["tokenizer.ggml.token_type"] == "array of i32"
    assert names["nested"] == "array of array"
    assert (names["llama.block_count"], names["flag"], names["general.name"]) == ("int", "bool", "str")
    assert metadata.count("tokenizer.ggml.tokens") == 4
    assert metadata.is_array("pattern")
    assert not metadata.is_array("flag")
    with pytest.raises(ModelFileError, match="flag is of type bool, expected an array"):
        metadata.count("flag")


def test_metadata_can_be_made_of_plain_values() -> None:
    metadata = Metadata({"n": 3, "f": 0.5, "b": True, "s": "x", "strs": ["a"], "ints": [1, 2], "np": np.ones(2)})
    assert (metadata.get_int("n"), metadata.get_float("f"), metadata.get_bool("b")) == (3, 0.5, True)
    assert (metadata.get_str("s"), metadata.get_strs("strs"), metadata.get_ints("ints").tolist()) == (
        "x",
        ["a"],
        [1, 2],
    )
    assert metadata.get_floats("np", count=2).tolist() == [1, 1]
    with pytest.raises(ModelFileError, match="b is of type bool, expected a whole number"):
        metadata.get_int("b")


def test_a_file_that_changed_after_the_header_was_read_is_refused(tmp_path: Path) -> None:
    path = File([("t", ARR, (STR, ["aaaa", "bbbb"])), ("n", ARR, (I32, [1, 2]))]).write(tmp_path / "m.gguf")
    metadata = read_header(path).metadata
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    with pytest.raises(ModelFileError, match="the file ends inside t"):
        metadata.get_strs("t")
    path.write_bytes(b"\xff" * len(whole))
    for getter in (metadata.get_strs, metadata.get_texts):
        with pytest.raises(ModelFileError, match="t cannot be read"):
            getter("t")
    path.unlink()
    with pytest.raises(ModelFileError, match="cannot read n"):
        metadata.get_ints("n")


def test_a_value_too_long_for_memory_is_refused_when_asked_for(tmp_path: Path) -> None:
    path = File([("long", ARR, (U8, [])), ("n", U32, 1)]).write(tmp_path / "m.gguf")
    whole, count = path.read_bytes(), MAX_VALUE_BYTES + 1
    at = whole.index(b"long") + 4 + 4 + 4
    path.write_bytes(whole[:at] + count.to_bytes(8, "little") + bytes(count) + whole[at + 8 :])
    metadata = read_header(path).metadata
    assert metadata.get_int("n") == 1
    with pytest.raises(ModelFileError, match="long is 33554433 bytes long, expected at most 33554432"):
        metadata.get_ints("long")
