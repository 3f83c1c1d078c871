"""A GGUF file of a BERT encoder, made of the files that models are published as: config.json, tokenizer.json and so on.

Names and keys are those of llama.cpp's converter (conversion/bert.py; ggml's docs/gguf.md for the format). Matrices
become F16; norms, biases, positions and token types stay F32, as there. The same files give the same bytes.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tenth.errors import ModelFileError

ALIGNMENT = 32
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9  # gguf_metadata_value_type
_TENSOR_F32, _TENSOR_F16 = 0, 1
_KEPT_AS_F32 = re.compile(r".*(_norm|position_embd|token_types)\.|.*\.bias$")
_NORMAL, _CONTROL = 1, 3
_POOLINGS = {"pooling_mode_mean_tokens": 1, "pooling_mode_cls_token": 2, "pooling_mode_lasttoken": 3}
_LAYER = r"encoder\.layer\.(\d+)\."
_NAMES = {
    r"embeddings\.word_embeddings\.": "token_embd.",
    r"embeddings\.position_embeddings\.": "position_embd.",
    r"embeddings\.token_type_embeddings\.": "token_types.",
    r"embeddings\.LayerNorm\.": "token_embd_norm.",
    _LAYER + r"attention\.self\.query\.": r"blk.\1.attn_q.",
    _LAYER + r"attention\.self\.key\.": r"blk.\1.attn_k.",
    _LAYER + r"attention\.self\.value\.": r"blk.\1.attn_v.",
    _LAYER + r"attention\.output\.dense\.": r"blk.\1.attn_output.",
    _LAYER + r"attention\.output\.LayerNorm\.": r"blk.\1.attn_output_norm.",
    _LAYER + r"intermediate\.dense\.": r"blk.\1.ffn_up.",
    _LAYER + r"output\.dense\.": r"blk.\1.ffn_down.",
    _LAYER + r"output\.LayerNorm\.": r"blk.\1.layer_output_norm.",
}
_LEFT_OUT = re.compile(r"embeddings\.position_ids|pooler\.")

_T = TypeVar("_T")
Read = Callable[[str], bytes]  # a file of the model by its name


def bert_file(name: str, read: Read) -> Iterator[bytes]:
    """The file in pieces. Raises ModelFileError for files that are not those of a BERT encoder."""
    try:
        config, pooling, tokenizer = (
            json.loads(read(part)) for part in ("config.json", "1_Pooling/config.json", "tokenizer.json")
        )
        keys = [*_keys(name, config, pooling), *_vocabulary(tokenizer, config)]
        tensors = list(_tensors(read("model.safetensors")))
    except (KeyError, ValueError, TypeError, struct.error) as error:
        raise ModelFileError(f"the files of {name} are not those of a BERT encoder: {error!r}", "pull again") from error
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys)
    at = 0
    for tensor in tensors:
        header += tensor.described(at)
        at += _padded(tensor.n_bytes)
    yield header + bytes(_padded(len(header)) - len(header))
    for tensor in tensors:
        yield tensor.stored().tobytes() + bytes(_padded(tensor.n_bytes) - tensor.n_bytes)


@dataclass(frozen=True)
class _Tensor:
    name: str
    values: NDArray[Any]

    @property
    def is_f32(self) -> bool:
        return _KEPT_AS_F32.match(self.name) is not None

    @property
    def n_bytes(self) -> int:
        return self.values.size * (4 if self.is_f32 else 2)

    def stored(self) -> NDArray[Any]:
        return self.values.astype("<f4" if self.is_f32 else "<f2")

    def described(self, offset: int) -> bytes:
        shape = self.values.shape[::-1]
        kind = _TENSOR_F32 if self.is_f32 else _TENSOR_F16
        return _string(self.name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def _tensors(data: bytes) -> Iterator[_Tensor]:
    """Those of a safetensors file (github.com/huggingface/safetensors, README) under their GGUF names."""
    begin = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:begin])
    header.pop("__metadata__", None)
    for hf_name, entry in header.items():
        short = hf_name.removeprefix("bert.")
        if _LEFT_OUT.match(short):
            continue
        pattern, name = _only([pair for pair in _NAMES.items() if re.match(pair[0], short)], short)
        first, last = entry["data_offsets"]
        kind = {"F32": "<f4", "F16": "<f2"}[entry["dtype"]]
        values = np.frombuffer(data[begin + first : begin + last], kind).reshape(entry["shape"])
        yield _Tensor(re.sub("^" + pattern, name, short), values)


def _keys(name: str, config: Mapping[str, Any], pooling: Mapping[str, Any]) -> Iterator[bytes]:
    yield _key("general.architecture", _STRING, "bert")
    yield _key("general.name", _STRING, name)
    yield _key("general.file_type", _U32, 1)  # mostly F16
    for key, of in (("context_length", "max_position_embeddings"), ("embedding_length", "hidden_size"),
                    ("block_count", "num_hidden_layers"), ("feed_forward_length", "intermediate_size"),
                    ("attention.head_count", "num_attention_heads")):  # fmt: skip
        yield _key(f"bert.{key}", _U32, config[of])
    yield _key("bert.attention.layer_norm_epsilon", _F32, config["layer_norm_eps"])
    yield _key("bert.attention.causal", _BOOL, False)
    modes = [kind for mode, kind in _POOLINGS.items() if pooling.get(mode)]
    yield _key("bert.pooling_type", _U32, _only(modes, "pooling_mode_…"))


def _vocabulary(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[bytes]:
    """A WordPiece vocabulary: words begin with U+2581 in the file, and what goes on has no "##"."""
    ids: dict[str, int] = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    tokens = sorted(ids, key=ids.__getitem__)
    written = [token if token in special else token[2:] if token.startswith("##") else f"\u2581{token}"
               for token in tokens]  # fmt: skip
    yield _key("tokenizer.ggml.model", _STRING, "bert")
    yield _key("tokenizer.ggml.pre", _STRING, "jina-v2-en" if tokenizer["normalizer"]["lowercase"] else "default")
    yield _key("tokenizer.ggml.tokens", _STRING, written)
    yield _key("tokenizer.ggml.token_type", _I32, [_CONTROL if token in special else _NORMAL for token in tokens])
    yield _key("tokenizer.ggml.token_type_count", _U32, config.get("type_vocab_size", 1))
    yield _key("tokenizer.ggml.normalizer.lowercase", _BOOL, tokenizer["normalizer"]["lowercase"])
    for key, token in (("bos", "[CLS]"), ("seperator", "[SEP]"), ("padding", "[PAD]"), ("unknown", "[UNK]"),
                       ("mask", "[MASK]")):  # fmt: skip
        yield _key(f"tokenizer.ggml.{key}_token_id", _U32, ids[token])


def _only(found: list[_T], what: str) -> _T:
    if len(found) != 1:
        raise KeyError(what)
    return found[0]


def _key(name: str, kind: int, value: Any) -> bytes:
    if isinstance(value, list):
        values = b"".join(_value(kind, one) for one in value)
        return _string(name) + struct.pack("<IIQ", _ARRAY, kind, len(value)) + values
    return _string(name) + struct.pack("<I", kind) + _value(kind, value)


def _value(kind: int, value: Any) -> bytes:
    layouts = {_U32: "<I", _I32: "<i", _F32: "<f", _BOOL: "<?"}
    return _string(value) if kind == _STRING else struct.pack(layouts[kind], value)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT
