"""Files that are not GGUF: the message names what they look like."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from pathlib import Path

import pytest

from tenth.errors import ModelFileError
from tenth.weights.gguf import read_header


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", "x")
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
CASES = {
    "an empty file": (b"", "it is empty", "again"),
    "a Git LFS pointer": (POINTER, "a Git LFS pointer", "git lfs pull"),
    "safetensors": (safetensors(), "a safetensors file", "GGUF version"),
    "a zip archive": (zipped(), "a zip archive", "GGUF version"),
    "a gzip archive": (gzip.compress(b"x"), "a gzip archive", "unpack"),
    "an HTML page": (b"\n <!DOCTYPE html><html>404</html>", "a web page", "again"),
    "a JSON error": (b'{"error": "not found"}', "JSON text", "GGUF"),
    "a text": (b"Entry not found", "a text file", "GGUF"),
    "an old GGML file": (b"lmgg" + bytes(40), "an old GGML file", "GGUF version"),
    "an old GGJT file": (b"tjgg" + bytes(40), "an old GGJT file", "GGUF version"),
    "a pickle": (b"\x80\x02}q\x00.", "a Python pickle", "GGUF version"),
    "zero bytes": (bytes(4096), "full of zero bytes", "again"),
    "the first three bytes": (b"GGU", "only the first bytes of a GGUF file", "again"),
    "random bytes": (b"\xd3\x01\x99\xfe" * 9, "something else", "GGUF"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_of_another_kind_is_refused_saying_what_it_looks_like(tmp_path: Path, case: str) -> None:
    content, what, hint = CASES[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=f"not a GGUF file, it is .*{what.removeprefix('it is ')}") as raised:
        read_header(path)
    assert hint in str(raised.value.hint)
