"""Unigram, as XLM-RoBERTa has it (``tokenizer.ggml.model`` = t5): the `tokenizers` library over the file's pieces.

Text is normalised by the tables inside the file (``precompiled_charsmap``, SentencePiece's), cut at white space, and
each word becomes its most likely row of pieces. Steps as in the tokenizer.json of xlm-roberta-base.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models, normalizers, pre_tokenizers

from tenth.errors import ModelFileError
from tenth.text.metadata import MetadataSource, Texts
from tenth.text.vocabulary import DAMAGED, NORMAL, USER_DEFINED

_KEY = "tokenizer.ggml.precompiled_charsmap"


class UnigramEncoder:
    """Text without special tokens -> ids. Only tokens of the types normal and user-defined are pieces of words."""

    def __init__(self, metadata: MetadataSource, tokens: Texts, scores: npt.NDArray[np.float32],
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
        normaliser = normalizers.Precompiled(table)
    except Exception as error:  # the library raises bare Exception
        raise ModelFileError(f"{_KEY} cannot be read: {error}", DAMAGED) from None
    if not _is_sound(table):
        raise ModelFileError(f"{_KEY} cannot be read: its tables lead outside of themselves", DAMAGED)
    return normaliser


def _is_sound(table: bytes) -> bool:
    """Whether no text leads outside of the tables, which the library does not see before it happens, and then panics.

    They are the bytes of a trie, its units of 32 bits, and texts that end in NUL. A unit (s-yata/darts-clone, darts.h):
    bit 31 of one that is a value, the place of a text; else bits 0 to 7 its byte, bit 8 whether a value follows it, and
    how far away its followers are. Follower c is at place XOR c, the value at XOR 0.
    """
    n_bytes = int.from_bytes(table[:4], "little")
    units = np.frombuffer(table[4 : 4 + n_bytes // 4 * 4], "<u4").astype(np.int64)
    texts = np.frombuffer(table[4 + n_bytes :] + b"\0", np.uint8)
    places = np.arange(len(units)) ^ (units >> 10 << ((units & 1 << 9) >> 6))
    is_node = (units >> 31 == 0) & (units & 0xFF != 0)
    is_node[:1] = True  # the root
    if not len(units) or (places[is_node] | 0xFF).max() >= len(units):
        return False
    values = units[places[is_node & (units >> 8 & 1 == 1)]] & 0x7FFFFFFF
    if len(values) and values.max() >= len(texts):
        return False
    return not (texts[values] & 0xC0 == 0x80).any()  # in the middle of a character
