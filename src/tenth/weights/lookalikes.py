"""Says what a file that is not GGUF looks like, and what to do about it. Looks at the first bytes only."""

from __future__ import annotations

from typing import NamedTuple

SNIFF_BYTES = 512

_AGAIN = "the download failed or is incomplete; get the file again"
_NEED_GGUF = "tenth reads GGUF files; look for a GGUF version of the model"


class Lookalike(NamedTuple):
    """What a file seems to be (a phrase that follows "it is"), and a hint."""

    what: str
    hint: str


# First bytes -> what it is. The three "ggml" magics are little-endian words, so they read backwards in the file.
_MAGICS: tuple[tuple[bytes, Lookalike], ...] = (
    (b"version https://git-lfs", Lookalike("a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`")),
    (b"lmgg", Lookalike("an old GGML file from before GGUF", _NEED_GGUF)),
    (b"fmgg", Lookalike("an old GGMF file from before GGUF", _NEED_GGUF)),
    (b"tjgg", Lookalike("an old GGJT file from before GGUF", _NEED_GGUF)),
    (b"FUGG", Lookalike("a GGUF file whose bytes are swapped", _AGAIN)),
    (b"PK\x03\x04", Lookalike("a zip archive (perhaps a PyTorch checkpoint)", _NEED_GGUF)),
    (b"\x80\x02", Lookalike("a Python pickle (perhaps a PyTorch checkpoint)", _NEED_GGUF)),
    (b"\x80\x04", Lookalike("a Python pickle", _NEED_GGUF)),
    (b"\x89HDF", Lookalike("an HDF5 file", _NEED_GGUF)),
    (b"\x1f\x8b", Lookalike("a gzip archive", "unpack it first")),
    (b"\x28\xb5\x2f\xfd", Lookalike("a Zstandard archive", "unpack it first")),
    (b"\xfd7zXZ\x00", Lookalike("an xz archive", "unpack it first")),
    (b"7z\xbc\xaf\x27\x1c", Lookalike("a 7z archive", "unpack it first")),
    (b"%PDF", Lookalike("a PDF document", _NEED_GGUF)),
    (b"\x7fELF", Lookalike("a program (ELF)", _NEED_GGUF)),
    (b"\x89PNG", Lookalike("a PNG picture", _NEED_GGUF)),
)


def identify(head: bytes, size: int) -> Lookalike:
    """What a file of ``size`` bytes that begins with ``head`` (at most SNIFF_BYTES of it) looks like."""
    if size == 0:
        return Lookalike("empty", _AGAIN)
    for magic, found in _MAGICS:
        if head.startswith(magic):
            return found
    if not head.strip(b"\x00"):
        return Lookalike("full of zero bytes at its start", _AGAIN)
    # safetensors: length of the JSON header as a 64-bit word, then the JSON itself.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return Lookalike("a safetensors file", _NEED_GGUF)
    return _text_lookalike(head.lstrip(b"\xef\xbb\xbf \t\r\n").lower())


def _text_lookalike(start: bytes) -> Lookalike:
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return Lookalike("a web page, probably an error or login page saved in place of the model", _AGAIN)
    if start.startswith((b"{", b"[")):
        return Lookalike("JSON text, perhaps a configuration file or an error message from a server", _NEED_GGUF)
    if 0 < len(start) < 4 and b"gguf".startswith(start):
        return Lookalike("only the first bytes of a GGUF file", _AGAIN)
    if start and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return Lookalike("a text file", _NEED_GGUF)
    return Lookalike("something else", _NEED_GGUF)
