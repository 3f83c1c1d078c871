"""SentencePiece-style encoding for vocabularies with scores instead of merges (``tokenizer.ggml.model`` = llama).

Algorithm: SentencePiece's BPE model (``src/bpe_model.cc``): start from characters, always join the neighbouring pair
whose joint text is the piece of the highest score, leftmost first on a tie. Not built on the `tokenizers` library:
merges reconstructed from scores give the splits of one piece different ranks, so that runs such as eight spaces can
come out otherwise than from the model's own tokenizer; and for 256 thousand pieces they cost 580 thousand merges.
"""

from __future__ import annotations

import re
from functools import lru_cache
from heapq import heapify, heappop, heappush

import numpy as np
import numpy.typing as npt

from tenth.errors import ModelFileError
from tenth.text.metadata import Texts
from tenth.text.vocabulary import BYTE, CONTROL, DAMAGED, SPACE, UNKNOWN, UNUSED

_WORD = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
_CACHED_WORDS = 4096
_LONGEST_CACHED = 64


class ScoreEncoder:
    """Text without special tokens -> ids, by scores, with bytes for what the vocabulary lacks."""

    def __init__(self, tokens: Texts, scores: npt.NDArray[np.float32], types: npt.NDArray[np.uint8],
                 *, space_prefix: bool, unknown_id: int | None):
        self._scores = scores
        self._space_prefix = space_prefix
        reserved = np.isin(types, (CONTROL, UNKNOWN, BYTE)).view(np.uint8)
        self._ids = tokens.index(reserved)
        self._unused = frozenset(np.flatnonzero(types == UNUSED).tolist())
        by_text = {tokens[i].upper(): i for i in np.flatnonzero(types == BYTE).tolist()}
        self._bytes = [by_text.get(f"<0X{byte:02X}>") for byte in range(256)]
        self._unknown_id = unknown_id
        if None in self._bytes and unknown_id is None:
            raise ModelFileError("the vocabulary has neither a token for every byte nor an unknown token, expected one "
                                 "of the two", DAMAGED)
        # Words can be encoded (and remembered) one by one when no piece reaches over a space into the next word.
        self._by_word = not tokens.joins_words(reserved)
        self._word = lru_cache(_CACHED_WORDS)(self._encode_word)

    def encode(self, text: str, *, first: bool) -> list[int]:
        """The ids of ``text``. ``first``: at the start or after a special token, where a space may be put."""
        if not text:
            return []
        text = text.replace(" ", SPACE)
        if first and self._space_prefix:
            text = SPACE + text
        ids: list[int] = []
        for word in _WORD.findall(text) if self._by_word else [text]:
            ids += self._word(word) if len(word) <= _LONGEST_CACHED else self._encode_word(word)
        return ids if None not in self._bytes else self._join_unknown(ids)

    def _join_unknown(self, ids: list[int]) -> list[int]:
        """Neighbouring unknown tokens become one, as SentencePiece does for vocabularies without bytes."""
        return [i for at, i in enumerate(ids) if i != self._unknown_id or at == 0 or ids[at - 1] != i]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        whole = self._ids.get(word) if len(word) == 1 else None
        if whole is not None and whole not in self._unused:
            return (whole,)
        pieces, parts = self._merge(word)
        ids: list[int] = []
        for piece in pieces:
            self._emit(piece, parts, ids)
        return tuple(ids)

    def _merge(self, word: str) -> tuple[list[str], dict[str, tuple[str, str]]]:
        """The joined pieces in order, and what each unused piece was joined from."""
        pieces: list[str] = list(word)
        after = [*range(1, len(pieces)), -1]
        before = [*range(-1, len(pieces) - 1)]
        parts: dict[str, tuple[str, str]] = {}
        queue: list[tuple[float, int, int, int]] = []
        scores, ids, unused = self._scores, self._ids, self._unused

        def consider(left: int, right: int) -> tuple[float, int, int, int] | None:
            text = pieces[left] + pieces[right]
            token = ids.get(text)
            if token is None:
                return None
            if token in unused:
                parts[text] = pieces[left], pieces[right]
            return -float(scores[token]), left, right, len(text)

        queue = [pair for at in range(len(pieces) - 1) if (pair := consider(at, at + 1))]
        heapify(queue)
        while queue:
            _, left, right, length = heappop(queue)
            if not pieces[left] or not pieces[right] or len(pieces[left]) + len(pieces[right]) != length:
                continue  # one side has been joined with something else since
            pieces[left] += pieces[right]
            pieces[right] = ""
            after[left] = following = after[right]
            if following >= 0:
                before[following] = left
                if pair := consider(left, following):
                    heappush(queue, pair)
            if before[left] >= 0 and (pair := consider(before[left], left)):
                heappush(queue, pair)
        return [piece for piece in pieces if piece], parts

    def _emit(self, piece: str, parts: dict[str, tuple[str, str]], ids: list[int]) -> None:
        """Appends the ids of ``piece``: itself, what an unused piece was made of, its bytes, or unknown."""
        waiting = [piece]
        while waiting:
            text = waiting.pop()
            token = self._ids.get(text)
            if token is not None and token in self._unused and text in parts:
                waiting += reversed(parts[text])
            elif token is not None:
                ids.append(token)
            else:
                as_bytes = [i for byte in text.encode() if (i := self._bytes[byte]) is not None]
                known = len(as_bytes) == len(text.encode()) or self._unknown_id is None
                ids += as_bytes if known else [self._unknown_id or 0]
