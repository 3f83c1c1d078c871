"""Trains a small mixture-of-experts model on text that packages carry, to record how trained experts are used.

    python scripts/train_small_moe.py OUT.gguf [--minutes 25] [--text OUT.txt]

Random weights choose experts at random; caches of experts live from what training makes of that. The model is in
qwen3moe's shape, small: 6 layers of 64 experts, of which a token uses 4 (1 in 16, as Qwen3-30B-A3B), 32 million weights
in all. Trained by next-token prediction with a load-balancing loss of 0.01 and nothing else that would spread or gather
experts. The text is documentation, licences and source code; --text gets what was held out, for a trace
(docs/experts.md). Needs the `reference` extra; one thread is enough.

The text differs between machines, so does the model; the committed trace is of one run.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from goldens.architecture import Architecture, Config
from goldens.case import Case
from goldens.formats import encode
from goldens.making import write_file
from goldens.tokenizer import QWEN2_WORDS, write_tokenizer

FOLDERS = ("/usr/share/doc", "/usr/share/common-licenses", sysconfig.get_paths()["purelib"])
ENDINGS = {".py", ".md", ".rst", ".txt", ".c", ".h", ".html", ""}
MOST_BYTES, MOST_FILE_BYTES, HELD_OUT_BYTES = 48_000_000, 60_000, 400_000
CONTEXT, BATCH, RATE, VOCABULARY = 512, 4, 1e-3, 4096
END = "<|endoftext|>"


def texts(seed: int) -> Iterator[str]:
    """Texts of packages in random order, each file once, none of them large."""
    found = (p for folder in FOLDERS for p in Path(folder).rglob("*") if p.suffix in ENDINGS)
    paths = sorted(p for p in found if p.is_file() and not p.is_symlink())
    random.Random(seed).shuffle(paths)
    for path in paths:
        data = path.read_bytes()[:MOST_FILE_BYTES]
        if len(data) > 500 and b"\0" not in data:
            yield data.decode("utf-8", errors="ignore")


def collect() -> tuple[list[str], list[str]]:
    """(texts to train on, texts held out)."""
    kept, held, n_kept, n_held = [], [], 0, 0
    for text in texts(seed=1):
        if n_held < HELD_OUT_BYTES:
            held.append(text)
            n_held += len(text)
            continue
        kept.append(text)
        n_kept += len(text)
        if n_kept > MOST_BYTES:
            break
    return kept, held


def make_tokenizer(kept: list[str]) -> tokenizers.Tokenizer:
    """Byte-level BPE, split into words as tenth's "qwen2" does."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    words = tokenizers.pre_tokenizers.Split(tokenizers.Regex(QWEN2_WORDS), "isolated")
    as_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([words, as_bytes])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(kept[:: max(len(kept) // 1000, 1)], trainer)
    return tokenizer


def configuration() -> transformers.Qwen3MoeConfig:
    return transformers.Qwen3MoeConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=256, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, num_experts=64, num_experts_per_tok=4, moe_intermediate_size=96,
        norm_topk_prob=True, max_position_embeddings=4 * CONTEXT, tie_word_embeddings=False, router_aux_loss_coef=0.01,
        output_router_logits=True,
    )  # fmt: skip


def train(tokens: np.ndarray, minutes: float) -> transformers.Qwen3MoeForCausalLM:
    """Until the time is over, or interrupted; the learning rate stays, so that any end will do."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    model = transformers.Qwen3MoeForCausalLM._from_config(configuration(), experts_implementation="grouped_mm")
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.1, betas=(0.9, 0.95), fused=True)
    start, step, is_interrupted = time.monotonic(), 0, []
    signal.signal(signal.SIGINT, lambda *_: is_interrupted.append(True))
    while time.monotonic() - start < 60 * minutes and not is_interrupted:
        optimiser.param_groups[0]["lr"] = RATE * min((step + 1) / 50, 1)
        at = rng.integers(0, len(tokens) - CONTEXT - 1, BATCH)
        batch = torch.from_numpy(np.stack([tokens[i : i + CONTEXT] for i in at]).astype(np.int64))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(batch, labels=batch)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 50 == 0:
            seconds = time.monotonic() - start
            print(f"{seconds:5.0f} s, step {step}: loss {out.loss:.3f}, balance {out.aux_loss:.3f}", flush=True)
        step += 1
    return model.eval()


class WithTokenizer(Architecture):
    """qwen3moe, and the tokenizer in the file."""

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        super().__init__("qwen3moe", head_dim=True)
        self._bpe = json.loads(tokenizer.to_str())["model"]

    def add_keys(self, writer: gguf.GGUFWriter, c: Config) -> None:
        """Both."""
        super().add_keys(writer, c)
        tokens = sorted(self._bpe["vocab"], key=self._bpe["vocab"].get)
        write_tokenizer(writer, tokens, [" ".join(pair) for pair in self._bpe["merges"]], [END])


def save(model: transformers.Qwen3MoeForCausalLM, tokenizer: tokenizers.Tokenizer, path: Path) -> None:
    """The model as a GGUF file, matrices in Q8_0."""
    case, stored = Case(WithTokenizer(tokenizer), type(model), model.config), {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().float().numpy()
        parts = case.architecture.parts(case.architecture.name_in_file(name), values.shape, case.config)
        pieces = np.split(values, len(parts), axis=-2 if len(parts) > 1 else 0)
        for (part, shape), piece in zip(parts.items(), pieces, strict=True):
            kind = "Q8_0" if len(shape) > 1 and "gate_inp" not in part else "F32"
            stored[part] = encode(np.ascontiguousarray(piece), kind, np.random.default_rng(0))
    write_file(path, "small mixture of experts", case, stored)


def main() -> None:
    """Collect, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--text", type=Path, help="gets the text that was held out")
    options = parser.parse_args()
    kept, held = collect()
    tokenizer = make_tokenizer(kept)
    ids = [np.array([*encoded.ids, 0], np.uint16) for encoded in tokenizer.encode_batch(kept)]
    tokens = np.concatenate(ids)
    print(f"{len(kept)} files, {len(tokens)} tokens to train on; {len(held)} files held out", flush=True)
    if options.text:
        options.text.write_text(END.join(held), encoding="utf-8")
    save(train(tokens, options.minutes), tokenizer, options.out)


if __name__ == "__main__":
    main()
