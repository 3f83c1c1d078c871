"""Damaged and hostile headers: each is refused with a sentence that says what was wrong."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import pytest

from tenth.errors import ModelFileError
from tenth.weights.formats import FORMATS
from tenth.weights.gguf import read_header, read_tensor, require_supported

from .writer import ARR, BOOL, F32, I32, STR, U32, U64, File, Tensor, array, small_model, text

HUGE = 2**63


def typed(type_id: int, body: bytes) -> bytes:
    return struct.pack("<I", type_id) + body


def tensors(*entries: Tensor, tail: int = 4096) -> File:
    return File([], list(entries), tail=bytes(tail))


HOSTILE: dict[str, tuple[File | bytes, str]] = {
    "version 1": (File(version=1), "version 1 is not supported, expected 2 or 3"),
    "a version to come": (File(version=4), "version is 4, expected 2 or 3"),
    "version 0": (File(version=0), "version is 0"),
    "a big-endian file": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "2^63 tensors": (File(n_tensors=HUGE), "tensors at byte 24 needs"),
    "2^64-1 keys": (File(n_keys=2**64 - 1), "keys, 0 tensors at byte 24 needs"),
    "more keys than the file has": (small_model(n_keys=13), "."),
    "fewer keys than the file has": (small_model(n_keys=11), "."),
    "more tensors than the file has": (small_model(n_tensors=4), "."),
    "70000 keys": (File(n_keys=70_000, tail=bytes(1 << 20)), "70000 more keys, expected at most 65536"),
    "70000 tensors": (File(n_tensors=70_000, tail=bytes(3 << 20)), "70000 more tensors, expected at most 65536"),
    "a key of 2^63 bytes": (File([], n_keys=1, tail=text("k", HUGE) + bytes(32)), "key 1 of 1 is .* bytes long"),
    "an empty key": (File([("", U32, 1)]), "key 1 of 1 is 0 bytes long"),
    "a key that is not UTF-8": (File([(b"\xff\xfe", U32, 1)]), "not UTF-8"),
    "a key with control characters": (File([("a\x1b[2J", U32, 1)]), "control characters"),
    "a key twice": (File([("k", U32, 1), ("k", U32, 1)]), "'k' appears twice"),
    "an unknown value type": (File([("k", typed(13, b"\0" * 8))]), "unknown type 13"),
    "a bool of 2": (File([("k", typed(BOOL, b"\2"))]), "bool of value 2"),
    "a text of 2^63 bytes": (File([("k", typed(STR, text("x", HUGE)))]), f"string of {HUGE} bytes, expected at most"),
    "a text past the end": (File([("k", typed(STR, text("x", 100)))]), "needs 100 bytes, but the file ends 1 bytes"),
    "an array of 2^63 numbers": (File([("k", typed(ARR, array(F32, HUGE)))]), "but the file ends 0 bytes later"),
    "an array whose size wraps at 64 bits": (
        File([("k", typed(ARR, array(U64, 2**61 + 1, bytes(8))))]), "ends 8 bytes"),
    "an array of 2^63 texts": (File([("k", typed(ARR, array(STR, HUGE)))]), "but the file ends"),
    "an array of texts, one of them of 2^63 bytes": (
        File([("k", typed(ARR, array(STR, 2, text("x", HUGE) + bytes(64))))]), "string of"),
    "an array of texts, one of them of 2^64-1 bytes": (
        File([("k", typed(ARR, array(STR, 3, text("x") + text("x", 2**64 - 1) + bytes(64))))]), "string of"),
    "an array of texts, the last past the end": (
        File([("k", typed(ARR, array(STR, 2, text("x") + text("x", 9))))]),
        "needs 26 bytes, but the file ends 18 bytes"),
    "too many texts": (
        File([("k", typed(ARR, array(STR, (3 << 19) + 1, bytes(8 * ((3 << 19) + 1)))))]),
        "more strings, expected at most"),
    "an array of an unknown type": (File([("k", typed(ARR, array(13, 0)))]), "array of the unknown type 13"),
    "2^63 nested arrays": (File([("k", typed(ARR, array(ARR, HUGE)))]), "but the file ends"),
    "too many nested arrays": (
        File([("k", typed(ARR, array(ARR, 70_000, array(0, 0) * 70_000)))]), "more arrays, expected at most"),
    "arrays nested three deep": (
        File([("k", typed(ARR, array(ARR, 1, array(ARR, 1, array(0, 0)))))]), "more than 2 deep"),
    "arrays nested a thousand deep": (File([("k", typed(ARR, array(ARR, 1) * 1000))]), "more than 2 deep"),
    "an alignment of 0": (File([("general.alignment", U32, 0)]), "alignment is 0, expected a power of two"),
    "an alignment of 4": (File([("general.alignment", U32, 4)]), "alignment is 4"),
    "an alignment of 48": (File([("general.alignment", U32, 48)]), "alignment is 48"),
    "an alignment of 2^31": (File([("general.alignment", U32, 2**31)]), "alignment is 2147483648"),
    "a negative alignment": (File([("general.alignment", I32, -32)]), "alignment is -32"),
    "an alignment that is a text": (File([("general.alignment", STR, "32")]), "of type str, expected a whole number"),
    "a tensor without dimensions": (tensors(Tensor("t", ())), "has 0 dimensions, expected 1 to 4"),
    "a tensor of five dimensions": (tensors(Tensor("t", (1,) * 5)), "has 5 dimensions"),
    "a dimension of zero": (tensors(Tensor("t", (4, 0))), r"has shape \(0, 4\), expected no zero"),
    "dimensions whose product wraps to 0": (tensors(Tensor("t", (2**32, 2**32))), "ends at byte"),
    "dimensions whose product wraps to 4": (tensors(Tensor("t", (2**62 + 1, 4))), "ends at byte"),
    "four dimensions of 2^64-1": (tensors(Tensor("t", (2**64 - 1,) * 4)), "ends at byte"),
    "a tensor past the end": (tensors(Tensor("t", (2000,))), "ends at byte 8064, but the file has 4160 bytes"),
    "an offset past the end": (tensors(Tensor("t", (1,), offset=8192)), "ends at byte"),
    "an offset of 2^64-32": (tensors(Tensor("t", (1,), offset=2**64 - 32)), "ends at byte"),
    "a misaligned offset": (tensors(Tensor("t", (1,), offset=4)), "starts at 4, expected a multiple of 32"),
    "a row that is no multiple of the block": (
        tensors(Tensor("t", (33,), 8)), "rows of 33 weights, expected a multiple"),
    "a K-quant row of 128": (tensors(Tensor("t", (128, 2), 12)), "rows of 128 weights, expected a multiple of 256"),
    "an unknown tensor format": (tensors(Tensor("t", (1,), 1000)), "has the format 1000, which is unknown"),
    "a withdrawn tensor format": (tensors(Tensor("t", (32,), 31)), "Q4_0_4_4, which GGML has withdrawn"),
    "two tensors of one name": (
        tensors(Tensor("t", (1,), offset=0), Tensor("t", (1,), offset=32)), "'t' appears twice"),
    "overlapping tensors": (tensors(Tensor("a", (9,), offset=0), Tensor("b", (1,), offset=32)), "'a' and 'b' overlap"),
    "tensors at the same place": (tensors(Tensor("a", (1,), offset=0), Tensor("b", (1,), offset=0)), "overlap"),
    "a tensor inside another": (tensors(Tensor("b", (1,), offset=64), Tensor("a", (99,), offset=0)), "overlap"),
    "a tensor without a name": (tensors(Tensor("", (1,))), "a tensor name is 0 bytes long"),
    "a tensor name of 2000 bytes": (tensors(Tensor("t" * 2000, (1,))), "a tensor name is 2000 bytes long"),
    "a tensor name that is not UTF-8": (tensors(Tensor(b"\x80", (1,))), "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused_naming_the_file_and_the_fault(tmp_path: Path, case: str) -> None:
    content, expected = HOSTILE[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content if isinstance(content, bytes) else content.build())
    with pytest.raises(ModelFileError, match=expected) as raised:
        read_header(path)
    assert str(path) in raised.value.message
    assert len(str(raised.value)) < 2000


def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    path = small_model().write(tmp_path / "cut.gguf")
    assert len(read_header(path).tensors) == 3
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(ModelFileError) as raised:
            read_header(path)
        assert raised.value.hint, f"cut at {length}"


def test_a_header_longer_than_512_mib_is_refused(tmp_path: Path) -> None:
    path = File([(f"k{i}", typed(ARR, array(0, 1 << 28, b""))) for i in range(1)]).write(tmp_path / "big.gguf")
    start = path.stat().st_size
    second = text("second") + typed(ARR, array(0, 1 << 28))
    with open(path, "r+b") as file:  # sparse: takes no room on disk
        file.seek(16)
        file.write(struct.pack("<Q", 2))
        file.seek(start + (1 << 28))
        file.write(second)
        file.truncate(1 << 30)
    with pytest.raises(ModelFileError, match="header is longer than 536870912 bytes"):
        read_header(path)


def test_a_missing_file_a_folder_a_pipe_and_a_device_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, expected in [
        (tmp_path / "none.gguf", "no such file"),
        (tmp_path, "folder"),
        (tmp_path / "pipe", "pipe or device"),
        (Path("/dev/zero"), "pipe or device"),
        (Path("with\0zero"), "cannot be opened"),
        (tmp_path / ("x" * 300), "cannot be opened"),
    ]:
        with pytest.raises(ModelFileError, match=expected):
            read_header(path)


def test_a_format_that_cannot_be_decoded_is_refused_at_use_with_the_list(tmp_path: Path) -> None:
    entries = [Tensor("w", (256,), 34, bytes(54)), Tensor("i", (2,), 26, bytes(8)), Tensor("f", (1,), 0, bytes(4))]
    model = read_header(File([], entries).write(tmp_path / "m.gguf"))
    with pytest.raises(ModelFileError, match="'w' is stored as TQ1_0, which is not supported") as raised:
        read_tensor(model.tensors["w"])
    assert all(name in str(raised.value.hint) for name in FORMATS)
    with pytest.raises(
        ModelFileError, match=re.escape("TQ1_0 (tensor 'w'), I32 (tensor 'i'), not supported")
    ) as raised:
        require_supported(model.tensors)
    assert all(name in str(raised.value.hint) for name in FORMATS)
    require_supported({"f": model.tensors["f"]})
