"""Unigram, as XLM-RoBERTa has it (``tokenizer.ggml.model`` = t5): the `tokenizers` library over the file's pieces.

Text is normalised by the tables inside the file (``precompiled_charsmap``, SentencePiece's), cut at white space, and
each word becomes its most likely row of pieces. Steps as in the tokenizer.json of xlm-roberta-base.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models, normalizers, pre_tokenizers

from tenth.errors import ModelFileError
from tenth.text.metadata import MetadataSource
from tenth.text.vocabulary import DAMAGED, NORMAL, USER_DEFINED

_KEY = "tokenizer.ggml.precompiled_charsmap"


class UnigramEncoder:
    """Text without special tokens -> ids. Only tokens of the types normal and user-defined are pieces of words."""

    def __init__(self, metadata: MetadataSource, tokens: Sequence[str], scores: npt.NDArray[np.float32],
                 types: npt.NDArray[np.uint8], unknown_id: int):
        # What no text can be: normalised text holds no NUL.
        pieces = [(token if kind in (NORMAL, USER_DEFINED) else f"\0{i}", float(score))
                  for i, (token, score, kind) in enumerate(zip(tokens, scores, types, strict=True))]
        self._library = LibraryTokenizer(models.Unigram(pieces, unknown_id, False))
        if metadata.has(_KEY):
            self._library.normalizer = _normaliser(np.asarray(metadata.get_ints(_KEY)).astype(np.uint8).tobytes())
        self._library.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])

    def encode(self, text: str, *, first: bool) -> list[int]:
        """The ids of ``text``. ``first`` changes nothing here: every word begins with a space."""
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids


def _normaliser(table: bytes) -> normalizers.Normalizer:
    try:
        return normalizers.Precompiled(table)
    except Exception as error:  # the library raises bare Exception
        raise ModelFileError(f"{_KEY} cannot be read: {error}", DAMAGED) from None
