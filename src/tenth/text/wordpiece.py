"""WordPiece, as BERT has it (``tokenizer.ggml.model`` = bert): the `tokenizers` library over the file's vocabulary.

Files write U+2581 before a piece that begins a word, and nothing before one that goes on; BERT writes nothing, and
"##". Whether text is made lower-case and loses its accents is in the key ``tokenizer.ggml.normalizer.lowercase`` of new
files; of older ones the vocabulary tells it: one that was made of lower-case text has no token with a capital letter.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models, normalizers, pre_tokenizers

from tenth.errors import ModelFileError
from tenth.text.metadata import MetadataSource, Texts
from tenth.text.vocabulary import DAMAGED, SPACE

LONGEST_WORD = 100  # characters; a longer one is unknown (transformers' BertTokenizer)
_KEY = "tokenizer.ggml.normalizer"


class WordPieceEncoder:
    """Text without special tokens -> ids. ``special``: the ids of tokens that are no pieces of words."""

    def __init__(self, metadata: MetadataSource, tokens: Texts, special: Iterable[int], unknown_id: int):
        names = [_bert_name(token) for token in tokens]
        for i in special:
            names[i] = tokens[i]
        ids = dict(zip(names, range(len(names)), strict=True))
        if ids.get(names[unknown_id]) != unknown_id:
            raise ModelFileError(f"tokenizer.ggml.tokens has the unknown token {names[unknown_id]!r} twice", DAMAGED)
        self._library = LibraryTokenizer(models.WordPiece(
            ids, unk_token=names[unknown_id], max_input_chars_per_word=LONGEST_WORD))  # fmt: skip
        lowercase = metadata.get_bool(f"{_KEY}.lowercase", default=None)
        lowercase = not _has_capitals(tokens) if lowercase is None else lowercase
        accents = metadata.get_bool(f"{_KEY}.strip_accents", default=None)
        self._library.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=accents)
        self._library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def encode(self, text: str, *, first: bool) -> list[int]:
        """The ids of ``text``. ``first`` changes nothing here (see ScoreEncoder)."""
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids


def _bert_name(token: str) -> str:
    """A token as BERT writes it. Older files leave those in brackets, such as [unused7], as they are."""
    if token.startswith(SPACE):
        return token[1:]
    return token if token.startswith("[") and token.endswith("]") and len(token) > 1 else "##" + token


def _has_capitals(tokens: Texts) -> bool:
    return any(token != token.lower() for token in tokens if not token.lstrip(SPACE).startswith("["))
