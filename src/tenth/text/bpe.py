"""Byte-pair merges for vocabularies that list them (``tokenizer.ggml.merges``): the `tokenizers` library."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models

from tenth.errors import ModelFileError
from tenth.text.pretokenizers import PreTokenizer, build_normalizer, build_steps
from tenth.text.vocabulary import DAMAGED, SPACE

_CACHED_WORDS = 4096  # of the library's own cache; its default of 10000 costs a megabyte more and gains nothing here


class MergeEncoder:
    """Text without special tokens -> ids, by the merges and the pre-tokenizer that the file names."""

    def __init__(self, tokens: Sequence[str], merges: Sequence[str], row: PreTokenizer):
        self._row = row
        vocabulary = dict(zip(tokens, range(len(tokens)), strict=True))
        self._library = LibraryTokenizer(_model(vocabulary, _pairs(merges), row))
        self._library.pre_tokenizer = build_steps(row)
        normalizer = build_normalizer(row)
        if normalizer is not None:
            self._library.normalizer = normalizer
        del vocabulary
        _return_memory()

    def encode(self, text: str, *, first: bool) -> list[int]:
        """The ids of ``text``. ``first`` changes nothing here (see ScoreEncoder)."""
        if not self._row.byte_level:
            text = text.replace(" ", SPACE)
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids


def _pairs(merges: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [tuple(merge.split(" ")) for merge in merges]  # half the time of finding the separator of each
    for at, pair in enumerate(pairs):
        if len(pair) != 2 or not pair[0]:
            pairs[at] = _pair(merges[at])
    return pairs  # type: ignore[return-value]  # all of them have two parts now


def _pair(merge: str) -> tuple[str, str]:
    """The two sides of one merge. The first character is never the separator."""
    at = merge.find(" ", 1)
    if at < 0:
        raise ModelFileError(f"tokenizer.ggml.merges holds {merge[:40]!r}, expected two parts with a space between",
                             DAMAGED)
    return merge[:at], merge[at + 1 :]


def _model(vocabulary: dict[str, int], merges: list[tuple[str, str]], row: PreTokenizer) -> models.BPE:
    try:
        return models.BPE(vocabulary, merges, ignore_merges=row.ignore_merges, byte_fallback=not row.byte_level,
                          cache_capacity=_CACHED_WORDS)
    except Exception as error:  # the library raises bare Exception, for a merge whose parts or result are no tokens
        raise ModelFileError(f"tokenizer.ggml.merges does not fit tokenizer.ggml.tokens: {error}", DAMAGED) from None


def _return_memory() -> None:
    """Gives the pages of the lists that building needed back to the system: 20 of 60 MB for 150 thousand tokens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
