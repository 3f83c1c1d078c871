"""Byte-pair merges for vocabularies that list them (``tokenizer.ggml.merges``): the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models

from tenth.errors import ModelFileError
from tenth.text.pretokenizers import PreTokenizer, build_normalizer, build_steps
from tenth.text.vocabulary import DAMAGED, SPACE

_CACHED_WORDS = 4096  # of the library's own cache; its default of 10000 costs a megabyte more and gains nothing here


class MergeEncoder:
    """Text without special tokens -> ids, by the merges (of which it leaves none) and the pre-tokenizer of the file."""

    def __init__(self, tokens: Sequence[str], merges: list[str], row: PreTokenizer):
        self._row = row
        vocabulary = dict(zip(tokens, range(len(tokens)), strict=True))
        self._library = LibraryTokenizer(_model(vocabulary, _Pairs(merges), row))
        self._library.pre_tokenizer = build_steps(row)
        normalizer = build_normalizer(row)
        if normalizer is not None:
            self._library.normalizer = normalizer

    def encode(self, text: str, *, first: bool) -> list[int]:
        """The ids of ``text``. ``first`` changes nothing here (see ScoreEncoder)."""
        if not self._row.byte_level:
            text = text.replace(" ", SPACE)
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids


class _Pairs(Sequence[tuple[str, str]]):
    """The two sides of each merge, made while the library takes them; what it has taken is gone.

    As a list of tuples they cost 31 MB for 150 thousand merges, and a third more time. The taken ones would cost 10 MB
    just when most memory is used.
    """

    def __init__(self, merges: list[str]):
        self._merges = merges
        self.problem: ModelFileError | None = None  # the library hides what is raised while it takes them

    def __len__(self) -> int:
        return len(self._merges)

    def __getitem__(self, at: Any) -> Any:
        return _pair(self._merges[at])  # a sequence has to have it; the library iterates

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self._merges.reverse()
        while self._merges:
            merge = self._merges.pop()
            left, found, right = merge.partition(" ")
            if not left or not found or " " in right:
                try:
                    left, right = _pair(merge)
                except ModelFileError as problem:
                    self.problem = problem
                    raise
            yield left, right


def _pair(merge: str) -> tuple[str, str]:
    """The two sides of one merge. The first character is never the separator."""
    at = merge.find(" ", 1)
    if at < 0:
        raise ModelFileError(f"tokenizer.ggml.merges holds {merge[:40]!r}, expected two parts with a space between",
                             DAMAGED)
    return merge[:at], merge[at + 1 :]


def _model(vocabulary: dict[str, int], merges: _Pairs, row: PreTokenizer) -> models.BPE:
    try:
        # In a thread of its own Ctrl-C is raised here, not in what the library calls: it would hide it and go on.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(
                models.BPE, vocabulary, merges, ignore_merges=row.ignore_merges, byte_fallback=not row.byte_level,
                cache_capacity=_CACHED_WORDS,
            ).result()
    except Exception as error:  # the library raises bare Exception, for a merge whose parts or result are no tokens
        if merges.problem is not None:
            raise merges.problem from None
        raise ModelFileError(f"tokenizer.ggml.merges does not fit tokenizer.ggml.tokens: {error}", DAMAGED) from None
