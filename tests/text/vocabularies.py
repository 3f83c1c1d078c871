"""Small vocabularies made on the spot, in the form a GGUF file gives them, next to the library tokenizer they equal."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tenth.weights.values import pack_texts

TEXTS = [
         "Hello world, it's 2024! I'll pay $1,234.50 for 12345 items.",
         "don't DON'T We'Ve camelCase HTMLParser 3.14159",
         "für Straße naïve café 你好世界 こんにちは 한국어 Привет мир ١٢٣ ½ x²",
         "  spaces   tabs\t\tlines\n\n\r\nmore   ",
         "def f(x):\n    return x + 1  # comment\n\n\nclass A:\n\tpass",
         "🙂👩‍👩‍👧 e\u0301 \u00a0\u3000 ... !!! --- /path/to/file"] * 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


class Metadata:
    """A dictionary with the getters of weights.Metadata, which give the caller a list of its own."""

    def __init__(self, values: dict[str, Any]):
        self.values = values

    def has(self, key: str) -> bool:
        return key in self.values

    def keys(self) -> Any:
        return self.values.keys()

    def _get(self, key: str, default: Any = ...) -> Any:
        if key not in self.values and default is ...:
            from tenth.errors import ModelFileError
            raise ModelFileError(f"no {key}")
        value = self.values.get(key, default)
        return list(value) if isinstance(value, list) else value

    get_int = get_str = get_bool = get_ints = get_floats = get_strs = _get

    def get_texts(self, key: str) -> Any:
        return pack_texts(self._get(key))


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def digits(individual: bool) -> dict[str, Any]:
    return {"type": "Digits", "individual_digits": individual}


_END = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# As in the models' own tokenizer.json: (normaliser, pre-tokenizers, ignore_merges).
PUBLISHED: dict[str, tuple[Any, list[dict[str, Any]], bool]] = {
    "gpt-2": (None, [byte_level(True)], False),
    "mpt": ({"type": "NFC"}, [byte_level(True)], False),
    "smollm": (None, [digits(True), byte_level(True)], False),
    "command-r": ({"type": "NFC"}, [digits(True), byte_level(True)], False),
    "llama-bpe": (None, [split(_END + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                               r"|\s+(?!\S)|\s+"), byte_level(False)], True),
    "qwen2": ({"type": "NFC"}, [split(_END + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                                      r"|\s+(?!\S)|\s+"), byte_level(False)], False),
    "falcon": (None, [{"type": "Punctuation", "behavior": "Contiguous"}, byte_level(True), digits(False),
                      split("[0-9][0-9][0-9]")], False),
    "deepseek-coder": (None, [split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
                              digits(True), byte_level(False)], False),
    "deepseek-v3": (None, [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"), byte_level(False)], False),
    "gpt-4o": (None, [split(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _END + r"?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _END + r"?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"), byte_level(False)], False),
}
PUBLISHED["deepseek-r1-qwen"] = PUBLISHED["qwen2"]


@cache
def published(pre: str) -> tuple[Tokenizer, Metadata]:
    """A tiny tokenizer trained with the published settings of ``pre``, and what its GGUF file would say."""
    normalizer, steps, ignore_merges = PUBLISHED[pre]
    library = Tokenizer(models.BPE())
    # Merges over whole lines, so that words cut wrongly come out as different ids.
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    data = json.loads(library.to_str())
    data["normalizer"] = normalizer
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    data["model"]["ignore_merges"] = ignore_merges
    vocabulary = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(data)), Metadata({
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": [3 if token in SPECIAL else 1 for token in vocabulary],
        "tokenizer.ggml.merges": merges, "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False})


@cache
def scored(*, unused: bool = False) -> Metadata:
    """A SentencePiece-style vocabulary: control, bytes, a few pieces with scores that compete."""
    pieces = ["▁", "a", "b", "c", "▁a", "ab", "bc", "aa", "▁▁", "▁▁▁▁", "aaa", "abc", "▁ab", "▁abc", "é", "<", ">", "s",
              "<s", "s>"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, "[U]"]
    types = [2, 3, 3, *[6] * 256, *[1] * len(pieces), 4]
    if unused:
        types[tokens.index("ab")] = 5
    scores = [0.0] * 259 + [-float(n % 13) for n in range(len(pieces))] + [0.0]
    return Metadata({"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens,
                     "tokenizer.ggml.token_type": types, "tokenizer.ggml.scores": scores,
                     "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2})


BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@cache
def word_pieces(lowercase: bool = True, told: bool = True) -> tuple[Tokenizer, Metadata]:
    """A tiny WordPiece vocabulary with BERT's settings, and what its GGUF file would say.

    ``told``: whether the file says if text is made lower-case, and has ids and brackets as new ones do.
    """
    library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.train_from_iterator(TEXTS, trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=[*BERT_SPECIAL, "[unused7]"], initial_alphabet=["A"] if not lowercase else [],
        show_progress=False))
    ids = library.get_vocab()
    library.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokens = sorted(ids, key=ids.__getitem__)
    special = [*BERT_SPECIAL, "[unused7]"]
    data = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": [
            token if token in special else token[2:] if token.startswith("##") else "▁" + token for token in tokens],
        "tokenizer.ggml.token_type": [3 if token in BERT_SPECIAL else 1 for token in tokens],
        "tokenizer.ggml.seperator_token_id": ids["[SEP]"], "tokenizer.ggml.unknown_token_id": ids["[UNK]"],
        "tokenizer.ggml.bos_token_id" if told else "tokenizer.ggml.cls_token_id": ids["[CLS]"],
    }
    if told:
        data["tokenizer.ggml.normalizer.lowercase"] = lowercase
    return library, Metadata(data)


@cache
def most_likely() -> tuple[Tokenizer, Metadata]:
    """A tiny Unigram vocabulary with XLM-RoBERTa's settings, and what its GGUF file would say."""
    library = Tokenizer(models.Unigram())
    steps = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    library.pre_tokenizer = pre_tokenizers.Sequence(steps)
    control = ["<s>", "<pad>", "</s>", "<unk>"]
    library.train_from_iterator(TEXTS, trainers.UnigramTrainer(
        vocab_size=200, special_tokens=control, unk_token="<unk>", show_progress=False))
    # A file keeps scores as float32: the same for both, or rounding decides between rows that are as likely.
    pieces = [(token, float(np.float32(score))) for token, score in json.loads(library.to_str())["model"]["vocab"]]
    library.model = models.Unigram(pieces, control.index("<unk>"), False)
    return library, Metadata({
        "tokenizer.ggml.model": "t5", "tokenizer.ggml.tokens": [token for token, _ in pieces],
        "tokenizer.ggml.scores": [score for _, score in pieces],
        "tokenizer.ggml.token_type": [3, 3, 3, 2] + [1] * (len(pieces) - 4),
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 3})
