"""A tiny mixture of experts that can read and write text: a golden model's weights with another's vocabulary."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

DATA = Path(__file__).parents[1] / "data"


def write(path):
    """The file: golden_qwen3moe with the vocabulary and the template of golden_chat."""
    experts, text = (gguf.GGUFReader(DATA / f"golden_{name}.gguf") for name in ("qwen3moe", "chat"))
    writer = gguf.GGUFWriter(path, "qwen3moe")
    for reader, mine in ((experts, lambda key: not key.startswith(("GGUF.", "general.architecture"))),
                         (text, lambda key: key.startswith("tokenizer."))):
        for key, field in reader.fields.items():
            if mine(key):
                kind = field.types[0]
                writer.add_key_value(key, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    n_vocabulary = len(text.fields["tokenizer.ggml.tokens"].data)
    for tensor in experts.tensors:
        data = np.array(tensor.data)
        if tensor.name in ("token_embd.weight", "output.weight"):  # whose rows are tokens
            data = np.resize(data, (n_vocabulary, data.shape[1]))
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
