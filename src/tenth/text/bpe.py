"""Byte-pair merges for vocabularies that list them (``tokenizer.ggml.merges``): the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models

from tenth.errors import ModelFileError
from tenth.text.metadata import Texts
from tenth.text.pretokenizers import PreTokenizer, build_normalizer, build_steps
from tenth.text.vocabulary import DAMAGED, SPACE

_CACHED_WORDS = 4096  # of the library's own cache; its default of 10000 costs a megabyte more and gains nothing here


class MergeEncoder:
    """Text without special tokens -> ids, by the merges (of which it leaves none) and the pre-tokenizer of the file."""

    def __init__(self, tokens: Texts, merges: Texts, row: PreTokenizer):
        self._row = row
        self._library = LibraryTokenizer(_model(tokens.ids(), merges, row))
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
    """The two sides of each merge, made while the library takes them, one after the other.

    As a list of tuples they cost 31 MB for 150 thousand merges, and a third more time.
    """

    def __init__(self, merges: Texts):
        self._merges = merges

    def __len__(self) -> int:
        return len(self._merges)

    def __getitem__(self, at: Any) -> Any:
        raise NotImplementedError  # a sequence has to have it; the library iterates

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return self._merges.pairs()


def _check_merges(merges: Texts) -> None:
    """ModelFileError at the first that has no two sides. The first character is never the separator."""
    for merge in merges:
        if " " not in merge[1:]:
            raise ModelFileError(f"tokenizer.ggml.merges holds {merge[:40]!r}, expected two parts with a space between",
                                 DAMAGED)


def _model(vocabulary: dict[str, int], merges: Texts, row: PreTokenizer) -> models.BPE:
    try:
        # In a thread of its own Ctrl-C is raised here, not in what the library calls: it would hide it and go on.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(
                models.BPE, vocabulary, _Pairs(merges), ignore_merges=row.ignore_merges,
                byte_fallback=not row.byte_level, cache_capacity=_CACHED_WORDS,
            ).result()
    except Exception as error:  # the library raises bare Exception, and hides what was raised while it took the merges
        _check_merges(merges)
        raise ModelFileError(f"tokenizer.ggml.merges does not fit tokenizer.ggml.tokens: {error}", DAMAGED) from None
