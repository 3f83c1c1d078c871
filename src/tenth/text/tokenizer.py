"""Text to token ids and back, as the model's own tokenizer does it, from the vocabulary inside a GGUF file.

Special tokens are found first, so that text inside a prompt can never turn into a control token unless the caller
asks for it (``parse_special``); what lies between goes to an encoder: merges (bpe.py), scores (spm.py), pieces of words
(wordpiece.py) or the most likely pieces (unigram.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tenth.errors import ModelFileError, RequestError
from tenth.text.bpe import MergeEncoder
from tenth.text.metadata import MetadataSource, Texts
from tenth.text.pretokenizers import pretokenizer
from tenth.text.spm import ScoreEncoder
from tenth.text.unigram import UnigramEncoder
from tenth.text.vocabulary import CONTROL, DAMAGED, SPACE, UNKNOWN, Vocabulary, read_vocabulary, token_id
from tenth.text.wordpiece import WordPieceEncoder

LIKELY_CHARACTERS = 16  # of a token, at most: a text with more than these for each token it may have is looked into
LEAST_SLICE = 4096  # characters


class _Encoder(Protocol):
    def encode(self, text: str, *, first: bool) -> list[int]: ...


class Tokenizer:
    """Encodes and decodes text for one model. Safe to use from several threads."""

    def __init__(self, vocabulary: Vocabulary, encoder: _Encoder, *, add_bos: bool, add_eos: bool, space_prefix: bool,
                 strip_after: frozenset[int], escaped_spaces: bool):
        self.vocabulary = vocabulary
        self.vocab_size = vocabulary.size
        self.bos_id, self.eos_id = vocabulary.bos_id, vocabulary.eos_id
        self.stop_ids = vocabulary.stop_ids
        self.add_bos = add_bos and self.bos_id is not None
        self.add_eos = add_eos and self.eos_id is not None
        self.space_prefix = space_prefix
        self._encoder = encoder
        self._strip_after = strip_after
        self._escaped_spaces = escaped_spaces
        secret = {i for i in vocabulary.special.values() if vocabulary.types[i] in (CONTROL, UNKNOWN)}
        secret |= vocabulary.stop_ids
        special = {_unescaped(text) if escaped_spaces else text: i for text, i in vocabulary.special.items()}
        self._all_special = _Matcher(special)
        self._user_defined = _Matcher({text: i for text, i in special.items() if i not in secret})

    @classmethod
    def from_metadata(cls, metadata: MetadataSource, tokens: Texts | None = None) -> Tokenizer:
        """The tokenizer that the metadata describes. Keeps none of its lists. Raises ModelFileError for other kinds.

        ``tokens``: the file's, which are read if they are not given.
        """
        return build_tokenizer(metadata, tokens)

    def encode(self, text: str, *, special: bool = True, parse_special: bool = False,
               continuing: bool = False) -> list[int]:
        """The ids of ``text``. ``continuing``: it follows other text, so no space is put before its first word.

        ``special``: add the begin and end tokens that the file asks for. ``parse_special``: text such as <|im_start|>
        becomes its token; a begin token that the text already starts with is then not added again. Raises RequestError
        for a text that is no Unicode (lone surrogates).
        """
        _check_unicode(text)
        if self._escaped_spaces:
            text = _unescaped(text)
        ids: list[int] = []
        first = not continuing
        for part in (self._all_special if parse_special else self._user_defined).cut(text):
            if isinstance(part, int):
                ids.append(part)
            else:
                if ids and first and ids[-1] in self._strip_after:
                    part = part.lstrip()
                ids += self._encoder.encode(part, first=first)
            first = isinstance(part, int)
        return self._with_ends(ids, parsed=parse_special) if special else ids

    def beginning(self, text: str, most: int, *, parse_special: bool = False) -> str:
        """The whole text, or, if it has far more than ``most`` tokens, a beginning that has more than twice as many.

        So that nobody has millions of tokens made of a text that is refused, or cut, behind ``most`` of them.
        """
        size = max(LIKELY_CHARACTERS * most, LEAST_SLICE)
        n_tokens, end = 0, 0 if len(text) > size else len(text)
        while n_tokens <= 2 * most and end < len(text):
            part = text[end : end + size]
            n_tokens += len(self.encode(part, special=False, parse_special=parse_special, continuing=True))
            end += size
        return text[:end]

    def fill(self, template: str, places: re.Pattern[str], texts: Mapping[str, str]) -> list[int]:
        """The ids of a template whose ``places`` (names in group 1) are filled with texts.

        Control tokens are those of the template alone. Words are found across the borders of texts, as they were when
        the model was trained.
        """
        for text in texts.values():
            _check_unicode(text)
        ids: list[int] = []
        for part in self._all_special.cut(template):
            if isinstance(part, str):
                part = places.sub(lambda found: texts[found[1]], part)
                for inner in self._user_defined.cut(part):
                    ids += [inner] if isinstance(inner, int) else self._encoder.encode(inner, first=False)
            else:
                ids.append(part)
        return self._with_ends(ids, parsed=True)

    def _with_ends(self, ids: list[int], *, parsed: bool) -> list[int]:
        if self.add_bos and self.bos_id is not None and not (parsed and ids[:1] == [self.bos_id]):
            ids.insert(0, self.bos_id)
        if self.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    def decode(self, ids: Iterable[int], *, special: bool = False, continuing: bool = False) -> str:
        """The text of ``ids``; bytes that are no UTF-8 become U+FFFD.

        ``special``: show control tokens. ``continuing``: the ids follow other text, so the space that a
        SentencePiece-style vocabulary puts before the first word is kept.
        """
        hidden = frozenset() if special else self.vocabulary.hidden
        data = b"".join([piece for i in ids if (piece := self.token_bytes(i)) and i not in hidden])
        if self.space_prefix and not continuing and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes of ``token``; a control token's are its name. Raises RequestError outside the range."""
        if type(token) is bool or not isinstance(token, (int, np.integer)) or not 0 <= token < self.vocab_size:
            raise RequestError(f"token id {token!r} is outside the vocabulary, expected 0 to {self.vocab_size - 1}")
        return self.vocabulary.pieces[token]


class _Matcher:
    """Finds literal texts: leftmost, then longest. Without a regex of all texts, whose depth a file could choose."""

    def __init__(self, ids: dict[str, int]):
        self._ids = ids
        starts = {text[0] for text in ids}
        self._start = re.compile("[" + "".join(map(re.escape, sorted(starts))) + "]") if starts else None
        lengths: dict[str, set[int]] = {}
        for text in ids:
            lengths.setdefault(text[:2], set()).add(len(text))
        self._lengths = {key: sorted(values, reverse=True) for key, values in lengths.items()}

    def cut(self, text: str) -> Iterator[str | int]:
        """The stretches of plain text (never empty) and the ids found, in order."""
        done, at = 0, 0
        while self._start and (found := self._start.search(text, at)):
            at = found.start()
            token, length = self._longest(text, at)
            if token is None:
                at += 1
                continue
            if at > done:
                yield text[done:at]
            yield token
            done = at = at + length
        if done < len(text):
            yield text[done:]

    def _longest(self, text: str, at: int) -> tuple[int | None, int]:
        for length in (*self._lengths.get(text[at : at + 2], ()), 1):
            token = self._ids.get(text[at : at + length])
            if token is not None:
                return token, length
        return None, 0


def _unescaped(text: str) -> str:
    return text.replace(SPACE, " ")


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"the text holds a lone surrogate at character {error.start}, which no UTF-8 can carry",
                           hint="send valid Unicode") from None


def build_tokenizer(metadata: MetadataSource, tokens: Texts | None = None) -> Tokenizer:
    """See Tokenizer.from_metadata."""
    model = metadata.get_str("tokenizer.ggml.model", default=None)
    if model is None:
        raise ModelFileError("the file has no tokenizer (key tokenizer.ggml.model)",
                             hint="give token ids instead of text, or use a file with a vocabulary")
    if model not in MODELS:
        raise ModelFileError(f"tokenizer.ggml.model is {model!r}, expected one of {', '.join(MODELS)}",
                             hint="other kinds of vocabularies are not supported; give token ids instead")
    if tokens is None:
        tokens = metadata.get_texts("tokenizer.ggml.tokens")
    return MODELS[model](metadata, tokens)


def _merged(metadata: MetadataSource, tokens: Texts, model: str = "gpt2") -> Tokenizer:
    name = metadata.get_str("tokenizer.ggml.pre", default="") or "default"
    row = pretokenizer("gemma4" if model == "gemma4" else name)
    vocabulary = read_vocabulary(metadata, tokens, byte_level=row.byte_level)
    encoder = MergeEncoder(tokens, metadata.get_texts("tokenizer.ggml.merges"), row)
    return Tokenizer(vocabulary, encoder,
                     add_bos=row.add_bos if model == "gemma4" else _flag(metadata, "add_bos_token", row.add_bos),
                     add_eos=_flag(metadata, "add_eos_token", False), space_prefix=False,
                     strip_after=frozenset(), escaped_spaces=not row.byte_level)


def _scored(metadata: MetadataSource, tokens: Texts) -> Tokenizer:
    vocabulary, scores = read_vocabulary(metadata, tokens, byte_level=False), _scores(metadata, tokens)
    space_prefix = _flag(metadata, "add_space_prefix", True)
    unknown = token_id(metadata, "unknown_token_id", len(tokens))
    unknown = 0 if unknown is None and not metadata.has("tokenizer.ggml.unknown_token_id") else unknown
    encoder = ScoreEncoder(tokens, scores, vocabulary.types, space_prefix=space_prefix,
                           unknown_id=unknown)
    return Tokenizer(vocabulary, encoder, add_bos=_flag(metadata, "add_bos_token", True),
                     add_eos=_flag(metadata, "add_eos_token", False), space_prefix=space_prefix,
                     strip_after=_strip_after(metadata, vocabulary), escaped_spaces=True)


def _scores(metadata: MetadataSource, tokens: Texts) -> npt.NDArray[np.float32]:
    scores = np.asarray(metadata.get_floats("tokenizer.ggml.scores"), dtype=np.float32)
    if len(scores) != len(tokens) or not np.isfinite(scores).all():
        raise ModelFileError(f"tokenizer.ggml.scores has {len(scores)} entries, expected {len(tokens)} finite numbers",
                             DAMAGED)
    return scores


def _word_pieces(metadata: MetadataSource, tokens: Texts) -> Tokenizer:
    """BERT's: [CLS] in front and [SEP] behind. The ids are bert-base-uncased's where an old file does not say."""
    vocabulary, n = read_vocabulary(metadata, tokens, byte_level=False), len(tokens)
    first = token_id(metadata, "cls_token_id", n) if vocabulary.bos_id is None else vocabulary.bos_id
    ids = {"bos_token_id (or cls_token_id)": 101 if first is None else first}
    for name, usual in (("seperator_token_id", 102), ("unknown_token_id", 100)):  # so spelt in GGUF
        found = token_id(metadata, name, n)
        ids[name] = usual if found is None else found
    for name, i in ids.items():
        if i >= n:
            raise ModelFileError(f"tokenizer.ggml.{name} is missing, and the vocabulary has only {n} tokens", DAMAGED)
    cls, sep, unknown = ids.values()
    encoder = WordPieceEncoder(metadata, tokens, vocabulary.special.values(), unknown)
    vocabulary = replace(vocabulary, bos_id=cls, eos_id=sep)
    return Tokenizer(vocabulary, encoder, add_bos=True, add_eos=True, space_prefix=True, strip_after=frozenset(),
                     escaped_spaces=False)


def _most_likely(metadata: MetadataSource, tokens: Texts) -> Tokenizer:
    """XLM-RoBERTa's: <s> in front and </s> behind."""
    vocabulary = read_vocabulary(metadata, tokens, byte_level=False)
    unknown = token_id(metadata, "unknown_token_id", len(tokens))
    if unknown is None:
        raise ModelFileError("tokenizer.ggml.unknown_token_id is missing", DAMAGED)
    encoder = UnigramEncoder(metadata, tokens, _scores(metadata, tokens), vocabulary.types, unknown)
    return Tokenizer(vocabulary, encoder, add_bos=_flag(metadata, "add_bos_token", True),
                     add_eos=_flag(metadata, "add_eos_token", True), space_prefix=True, strip_after=frozenset(),
                     escaped_spaces=False)


def _flag(metadata: MetadataSource, name: str, default: bool) -> bool:
    return bool(metadata.get_bool(f"tokenizer.ggml.{name}", default=default))


def _strip_after(metadata: MetadataSource, vocabulary: Vocabulary) -> frozenset[int]:
    """Phi-3's special tokens swallow the white space after them; only the model's name tells (so too in llama.cpp)."""
    name = (metadata.get_str("general.name", default="") or "").lower()
    if "phi-3" not in name and "phi3" not in name:
        return frozenset()
    return frozenset(i for text, i in vocabulary.special.items() if text not in ("<unk>", "<s>", "<|endoftext|>"))


# The names are those of tokenizer.ggml.model.
MODELS: dict[str, Callable[[MetadataSource, Texts], Tokenizer]] = {
    "gpt2": _merged, "llama": _scored, "gemma4": partial(_merged, model="gemma4"), "bert": _word_pieces,
    "t5": _most_likely,
}
