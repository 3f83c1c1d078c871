"""What prompts cost absorbed and expanded (--prefill), in latent attention: one layer, random weights.

    python scripts/latent_cost.py                     V2-Lite's 16 heads
    python scripts/latent_cost.py --heads 128         V2 and V3
    python scripts/latent_cost.py --chunk 256 --tokens 8192

A prompt in chunks, then a short one behind a known beginning, then generation; float16 keys and values, Q8_0 weights.
Counted is what differs: attention, the products of each head around it, and the rounding of what they take. "expanded"
makes keys of attn_k_b, which lies turned in files of today, so of a copy; "from kv_b" of the one matrix that files of
old have, as it lies (absorbing it needs a copy in float32). Times are the lowest of several steps, in milliseconds.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, quantize

from tenth.batch import Batch, pages_for
from tenth.program import builder as b
from tenth.program import memory
from tenth.program.expanding import expand_prompts
from tenth.program.passes import optimise
from tenth.program.reference import derived
from tenth.program.values import Program, Transposed
from tenth.runtime import Limits, MatrixSource, Runtime

DIM, VOCAB, LATENT, ROPE, NOPE, VALUE = 64, 64, 512, 64, 128, 128
COUNTED = ("latent_attention", "expanded_attention", "head_linear", "select_generated", "quantize")


def program(n_heads: int, old: bool, expands: bool) -> Program:
    """One layer of latent attention. ``old``: with one matrix for keys and values."""
    shapes = {
        "e.weight": (VOCAB, DIM), "kv.weight": (LATENT + ROPE, DIM), "q.weight": (n_heads * (NOPE + ROPE), DIM),
        "k_b.weight": (n_heads, LATENT, NOPE), "v_b.weight": (n_heads, VALUE, LATENT),
        "kv_b.weight": (n_heads * (NOPE + VALUE), LATENT), "out.weight": (VOCAB, n_heads * VALUE),
    }  # fmt: skip
    made = b.Builder(shapes)
    w = b.Weights(made)
    x = b.embed(made.inputs["tokens"], w.e)
    latent, key_rope = b.split(b.linear(x, w.kv), LATENT, ROPE)
    q, q_rope = b.split(b.heads(b.linear(x, w.q), n_heads), NOPE, ROPE)
    by_head = partial(b.head_linear, n_heads=n_heads)
    turned = partial(b.head_linear_transposed, n_heads=n_heads, first=0, n_rows=NOPE)
    q = turned(q, w.kv_b) if old else by_head(q, w.k_b)
    seen = b.latent_attention(q, q_rope, latent, key_rope, layer=0, scale=0.05)
    values = by_head(seen, w.kv_b, first=NOPE, n_rows=VALUE) if old else by_head(seen, w.v_b)
    plain = made.finish(b.linear(b.select_outputs(b.flat(values)), w.out), "latents", 1 << 16)
    whole = expand_prompts(plain, set(plain.weights)) if expands else plain
    return optimise(whole, {name for name in whole.weights if not _is_float(whole, name)})


def _is_float(program: Program, name: str) -> bool:
    how = program.derived.get(name)
    return isinstance(how, Transposed) and not how.rounds


def open_random(program: Program, n_tokens: int, chunk: int, threads: int) -> Runtime:
    """The program with random weights in Q8_0, those that are made in F32, and float16 keys and values."""
    rng = np.random.default_rng(0)

    def source(name: str, shape: tuple[int, ...]) -> MatrixSource:
        how = program.derived.get(name)
        shape = program.weights[how.source].shape if how else shape
        rows = (rng.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)
        rows = np.ascontiguousarray(derived(rows, how)) if how else rows
        if _is_float(program, name):
            return MatrixSource(Path("random"), 0, rows.nbytes, 0, lambda: rows)
        blocks = quantize(rows, GGMLQuantizationType.Q8_0)
        return MatrixSource(Path("random"), 0, blocks.nbytes, int(GGMLQuantizationType.Q8_0), lambda: blocks)

    sources = {name: source(name, value.shape) for name, value in program.weights.items()}
    arena = memory.plan(program, {"tokens": chunk, "outputs": 1})
    limits = Limits(threads, chunk, 1, n_tokens + 1, pages_for(n_tokens) + 1, "f16", arena)
    return Runtime(program, sources, {}, limits)


def milliseconds(runtime: Runtime, first: int, rows: int, repetitions: int) -> float:
    """Of the counted instructions in one step, the lowest of some. One row is generated, more are of a prompt."""
    positions = np.arange(first, first + rows, dtype=np.int32)
    pages = np.arange(pages_for(first + rows), dtype=np.int32)
    starts, last = np.array([0, rows], np.int32), np.array([rows - 1], np.int32)
    batch = Batch(positions * 7 % VOCAB, positions, starts, [pages], last, n_generated=int(rows == 1))
    found = []
    for _ in range(repetitions):
        runtime.reset_profile()
        runtime.step(batch)
        found.append(1e3 * sum(row.seconds for row in runtime.profile() if row.op in COUNTED))
    return min(found)


def main() -> None:
    """Print one line per place in the context."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    o = parser.parse_args()
    ways = {"absorbed": (False, False), "expanded": (False, True), "from kv_b": (True, True)}
    programs = [program(o.heads, *way) for way in ways.values()]
    runtimes = [open_random(made, o.tokens, o.chunk, o.threads) for made in programs]
    print(f"{o.heads} heads, {o.threads} threads, f16 KV, ms: {', '.join(ways)}; the last two by the first")

    def line(rows: int, first: int, repetitions: int) -> None:
        absorbed, *others = (milliseconds(runtime, first, rows, repetitions) for runtime in runtimes)
        ratios = "".join(f"{ms / absorbed:6.2f}" for ms in others)
        print(f"{rows:4d} rows behind {first:5d}: {absorbed:8.2f}" + "".join(f"{ms:8.2f}" for ms in others) + ratios)

    for first in range(0, o.tokens, o.chunk):
        line(o.chunk, first, 3)
    for first in (o.tokens // 4, o.tokens - 16):
        line(16, first, 10)
    for first in (o.tokens // 4 - 1, o.tokens - 1):
        line(1, first, 30)


if __name__ == "__main__":
    main()
