"""How fast matrix products are in each weight format, as shares of what this machine could do at most.

    python scripts/format_speed.py                       every block format
    python scripts/format_speed.py IQ2_XXS Q4_K --threads 1

Random weights in the shape of a llama model are written to a temporary file (``--megabytes`` of them, which should be
more than the last cache keeps), loaded, and run as ``tenth inspect --profile`` runs a model: one row a step, then 256.
Only linears count. Limits are measured before and after each format, as everywhere (docs/performance.md).

    one row      bytes of the weights as the file has them, per second; share of the read bandwidth
    256 rows     int8 multiply-adds per second; share of the int8 limit of AVX-512, which AMX can pass
    tokens/s     of whole steps, attention included, for both
    load         seconds to read and pack

``--keep FOLDER`` keeps the files: llama-bench (``-p 256 -n 16``) opens them too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np

from tenth.bench import limits, profile
from tenth.bench.machine import read_machine
from tenth.config import EngineConfig
from tenth.loader import open_runtime
from tenth.weights.formats import FORMATS
from tenth.weights.gguf import read_header

DIM, FFN, HEADS, VOCABULARY, ROWS, STEPS = 2048, 6144, 16, 64, 256, 24
SHAPES = {"attn_q": (DIM, DIM), "attn_k": (DIM, DIM), "attn_v": (DIM, DIM), "attn_output": (DIM, DIM),
          "ffn_gate": (FFN, DIM), "ffn_up": (FFN, DIM), "ffn_down": (DIM, FFN)}  # [out, in]
LAYER_WEIGHTS = sum(out * k for out, k in SHAPES.values())


def random_blocks(name: str, n_blocks: int, rng: np.random.Generator) -> np.ndarray:
    """Uint8 [n_blocks, bytes]: any weights, scales below 2^-7, so that sums stay finite."""
    kind = FORMATS[name]
    blocks = rng.integers(0, 256, (n_blocks, kind.block_bytes), np.uint8)
    scales = {"Q2_K": (81, 83), "Q3_K": (109,), "Q4_1": (1, 3), "Q5_1": (1, 3), "Q4_K": (1, 3), "Q5_K": (1, 3),
              "Q6_K": (209,), "TQ2_0": (65,), "IQ1_M": (55,)}.get(name, (1,))  # upper bytes of float16 numbers
    for at in scales:
        blocks[:, at] = blocks[:, at] & 15 | 0x10
    if name == "MXFP4":
        blocks[:, 0] = 120
    return blocks


def write_model(path: Path, name: str, megabytes: float) -> None:
    """A model whose linears are of one format and take about so much."""
    kind, rng = FORMATS[name], np.random.default_rng(0)
    layer_bytes = LAYER_WEIGHTS // kind.block_weights * kind.block_bytes
    n_layers = max(1, round(megabytes * 1e6 / layer_bytes))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2 * ROWS)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(FFN)
    writer.add_block_count(n_layers)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("no_vocab")  # what llama.cpp calls a model without texts
    writer.add_tensor("token_embd.weight", rng.standard_normal((VOCABULARY, DIM), np.float32))
    writer.add_tensor("output_norm.weight", np.ones(DIM, np.float32))
    stored = {part: random_blocks(name, out * k // kind.block_weights, rng).reshape(out, -1)
              for part, (out, k) in SHAPES.items()}
    for layer in range(n_layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(DIM, np.float32))
        for part, raw in stored.items():
            writer.add_tensor(f"blk.{layer}.{part}.weight", raw, raw_dtype=gguf.GGMLQuantizationType[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(name: str, megabytes: float, threads: int, keep: Path | None) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = (keep or Path(folder)) / f"{name}.gguf"
        write_model(path, name, megabytes)
        config = EngineConfig(chunk_tokens=ROWS, context_tokens=2 * ROWS, threads=threads)
        start = time.perf_counter()
        loaded = open_runtime(read_header(path), config)
        load_s = time.perf_counter() - start
    runtime, machine = loaded.runtime, read_machine()
    n_bytes = limits.buffer_bytes(machine.l3_bytes, machine.available_bytes)

    def rates() -> profile.LimitRates:
        return profile.LimitRates(limits.read_bandwidth(runtime.n_threads, 0.5, n_bytes).best,
                                  limits.int8_rate(runtime.n_threads, 0.2).best)

    def run(phase: str) -> profile.PhaseProfile:
        if phase == "prompt":
            return profile.profile_prompt(runtime, loaded, 0, ROWS)
        return profile.profile_generation(runtime, loaded, 0, STEPS)

    one, many = profile.measure_phases(profile.PHASES, run, rates)
    linear = [[row for row in phase.rows if (row.cost.op, row.cost.formats) == ("linear", name)]
              for phase in (one, many)]
    seconds = [sum(row.seconds for row in rows) for rows in linear]
    read = sum(row.cost.weight_bytes for row in linear[0]) / seconds[0]
    products = sum(row.cost.multiply_adds for row in linear[1]) / seconds[1]
    of_read, of_int8 = 100 * read / one.limits.read, 100 * products / many.limits.int8
    return (f"{name:8} {read / 1e9:6.1f} {of_read:5.0f} % {1 / one.step_seconds:8.1f}   "
            f"{products / 1e9:8.0f} {of_int8:5.0f} % {ROWS / many.step_seconds:9.0f}  {load_s:7.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("formats", nargs="*", help="default: every block format")
    parser.add_argument("--threads", type=int, default=0, help="default: as the engine chooses")
    parser.add_argument("--megabytes", type=float, default=500)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the files there and leave them")
    settings = parser.parse_args()
    names = settings.formats or [name for name, kind in FORMATS.items() if kind.block_weights > 1]
    if unknown := set(names) - set(FORMATS):
        parser.error(f"unknown formats: {', '.join(sorted(unknown))}")
    print(f"{'':8} {'one row':25}   {'256 rows':26} load\n"
          f"format     GB/s of read tokens/s        G/s of int8  tokens/s        s")
    for name in names:
        print(measure(name, settings.megabytes, settings.threads, settings.keep), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
