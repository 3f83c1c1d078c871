"""What each token id is: its bytes, its type, and which tokens are special. Compact: one byte string, one offset array.

Token types and key names are those of GGUF (``tokenizer.ggml.token_type``: 1 normal, 2 unknown, 3 control,
4 user-defined, 5 unused, 6 byte). Texts that mark the end of generation are those llama.cpp knows
(``src/llama-vocab.cpp``), since many files name only one of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tenth.errors import ModelFileError
from tenth.text.metadata import MetadataSource, Texts

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"  # how SentencePiece writes a space

DAMAGED = "the file's tokenizer is damaged; use another file of the model"  # a hint

_END_TEXTS = ("<|eot_id|>",
              "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
              "<|endoftext|>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
              "<end_of_utterance>", "<turn|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[",
              "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>",
              "<reponame>", "<|file_sep|>")
_END_TEXTS_IF_CONTROL = ("</s>", "<eos>")  # plain text in some vocabularies
_NO_TOKEN = (-1, 2**32 - 1)  # how some files say that there is no such token
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Control tokens that structure an answer (thinking, channels): shown, so that streams can find them.
_MARKERS = ("<think>", "</think>", "[THINK]", "[/THINK]", "<seed:think>", "</seed:think>", "<|START_THINKING|>",
            "<|END_THINKING|>", "<|channel>", "<channel|>", "<thinking>", "</thinking>", "<unused94>", "<unused95>",
            "<\uff5cbegin\u2581of\u2581thought\uff5c>")
_HARMONY = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>", "<|end|>")
# How tokens of each type are read: 0 as the vocabulary writes them, 1 as they are, 2 as one byte (see _core.Texts).
_READ_AS = np.array([0, 0, 1, 1, 1, 0, 2], np.uint8)


def gpt2_byte_of() -> dict[str, int]:
    """GPT-2's reading of printable characters as bytes: printable Latin-1 stands for itself, the rest for 256 + n."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    return table | {chr(256 + n): byte for n, byte in enumerate(hidden)}


@dataclass(frozen=True)
class TokenBytes:
    """The bytes of every token, end to end: token ``i`` is ``blob[ends[i-1]:ends[i]]``."""

    blob: bytes
    ends: npt.NDArray[np.uint32]

    def __getitem__(self, token: int) -> bytes:
        start = int(self.ends[token - 1]) if token else 0
        return self.blob[start : int(self.ends[token])]


@dataclass(frozen=True)
class Vocabulary:
    """Types, bytes and special tokens of a vocabulary. ``special``: text -> id of every token matched before words."""

    size: int
    types: npt.NDArray[np.uint8]
    pieces: TokenBytes
    special: dict[str, int]
    hidden: frozenset[int]  # ids that decode to nothing unless special tokens are asked for
    bos_id: int | None
    eos_id: int | None
    stop_ids: frozenset[int]


def read_vocabulary(metadata: MetadataSource, tokens: Texts, *, byte_level: bool) -> Vocabulary:
    """The vocabulary of a file. ``tokens``: ``tokenizer.ggml.tokens``. Raises ModelFileError for what cannot be."""
    if not len(tokens):
        raise ModelFileError("tokenizer.ggml.tokens is empty, expected at least one token", DAMAGED)
    types = _read_types(metadata, len(tokens))
    special = (types == CONTROL) | (types == USER_DEFINED) | (types == UNKNOWN)
    names = {tokens[i]: i for i in np.flatnonzero(special).tolist()}
    stops = _stop_ids(metadata, tokens, types, names)
    visible = _visible(names)
    hidden = set(np.flatnonzero((types == CONTROL) | (types == UNKNOWN) | ((types == UNUSED) & byte_level)).tolist())
    return Vocabulary(
        size=len(tokens), types=types, pieces=_pieces(tokens, types, byte_level=byte_level),
        special={text: i for text, i in names.items() if text},
        hidden=frozenset((hidden | stops) - visible),
        bos_id=token_id(metadata, "bos_token_id", len(tokens)),
        eos_id=token_id(metadata, "eos_token_id", len(tokens)),
        stop_ids=frozenset(stops))


def _read_types(metadata: MetadataSource, size: int) -> npt.NDArray[np.uint8]:
    """[size] uint8; all normal when the file does not say."""
    values = metadata.get_ints("tokenizer.ggml.token_type", default=None)
    if values is None:
        return np.full(size, NORMAL, np.uint8)
    if len(values) != size:
        raise ModelFileError(f"tokenizer.ggml.token_type has {len(values)} entries, expected {size}", DAMAGED)
    types = np.asarray(values, dtype=np.int64)
    return np.where((types >= NORMAL) & (types <= BYTE), types, NORMAL).astype(np.uint8)


def token_id(metadata: MetadataSource, name: str, size: int) -> int | None:
    """The id under ``tokenizer.ggml.NAME``, None when the file has none; ModelFileError outside the vocabulary."""
    value = metadata.get_int(f"tokenizer.ggml.{name}", default=None)
    if value is None or value in _NO_TOKEN:
        return None
    if not 0 <= value < size:
        raise ModelFileError(f"tokenizer.ggml.{name} is {value}, expected 0 to {size - 1}", DAMAGED)
    return int(value)


def _stop_ids(metadata: MetadataSource, tokens: Texts, types: npt.NDArray[np.uint8],
              names: dict[str, int]) -> set[int]:
    by_text = tokens.find(_END_TEXTS + _END_TEXTS_IF_CONTROL)
    # gpt-oss and solar-open end an answer elsewhere: there <|end|> only closes one message of several, also where a key
    # of the file names it.
    has_messages = any(by_text.keys() >= {other, calls, "<|end|>"} for other, calls in (
        ("<|return|>", "<|call|>"), ("<|flush|>", "<|calls|>")))
    no_end = {by_text.pop("<|end|>")} if has_messages else set[int]()
    stops = {i for text, i in by_text.items() if text in _END_TEXTS or types[i] == CONTROL}
    for text, i in by_text.items():
        if i in stops:
            names[text] = i  # some files give these the normal type
    stops |= {end for key in _END_KEYS if (end := token_id(metadata, key, len(tokens))) is not None}
    return stops - no_end


def _visible(names: dict[str, int]) -> set[int]:
    texts = _MARKERS + (_HARMONY if "<|channel|>" in names else ())
    return {names[text] for text in texts if text in names}


def _pieces(tokens: Texts, types: npt.NDArray[np.uint8], *, byte_level: bool) -> TokenBytes:
    alphabet = None
    if byte_level:
        alphabet = np.full(0x200, 0x100, np.uint16)
        for char, byte in gpt2_byte_of().items():
            alphabet[ord(char)] = byte
    return TokenBytes(*tokens.token_bytes(_READ_AS[types], alphabet))
