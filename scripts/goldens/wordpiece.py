"""The small WordPiece vocabulary of the goldens: letters, a few words and endings, as bert-base-uncased has them."""

from __future__ import annotations

import string

import gguf
import tokenizers
from convert_bert import add_wordpiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "sky", "is", "blue", "why", "of", "light", "air", "and", "cat", "sat", "on", "mat", "cafe", "it", "was"]
WORDS += ["日", "本"]
ENDINGS = ["##s", "##ing", "##ed", "##er", "##ly", "##ness"]


def tokenizer_json() -> dict[str, object]:
    """The vocabulary as a tokenizer.json describes it."""
    letters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL, *letters, *(f"##{c}" for c in letters), *".,;:!?'\"()-", *WORDS, *ENDINGS]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return {
        "added_tokens": [{"content": token, "special": True, "id": vocabulary[token]} for token in SPECIAL],
        "normalizer": {"lowercase": True, "strip_accents": None},
        "model": {"vocab": vocabulary},
    }


def add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Write the metadata."""
    add_wordpiece(writer, tokenizer_json())


def library_tokenizer() -> tokenizers.Tokenizer:
    """As Hugging Face's library runs it."""
    vocabulary = tokenizer_json()["model"]["vocab"]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return tokenizer
