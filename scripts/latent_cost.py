"""What always absorbing costs: latent attention against attention whose heads have keys and values of their own.

    python scripts/latent_cost.py                     V2-Lite's 16 heads
    python scripts/latent_cost.py --heads 128         V2 and V3

One layer, random weights, a prompt in chunks, then generation. "absorbed" is what tenth does: latent_attention with 512
+ 64 numbers a token, and the products of each head around it. "expanded" is ordinary attention with as many key heads
as query heads and 192 numbers for keys and values, what is left when latents are expanded: DeepSeek's values have 128,
so it is a sixth too slow, and the expanding itself (once per chunk for all tokens before it) is not counted. Times are
the lowest of several steps, in milliseconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tenth.batch import Batch, pages_for
from tenth.program import builder as b
from tenth.program import memory
from tenth.program.values import Program
from tenth.runtime import Limits, MatrixSource, Runtime

DIM, VOCAB, LATENT, ROPE, NOPE, VALUE = 64, 64, 512, 64, 128, 128
COUNTED = ("latent_attention", "head_linear", "attention")


def absorbed(n_heads: int) -> Program:
    """One layer of latent attention."""
    shapes = {
        "e.weight": (VOCAB, DIM), "kv.weight": (LATENT + ROPE, DIM), "q.weight": (n_heads * (NOPE + ROPE), DIM),
        "k_b.weight": (n_heads, LATENT, NOPE), "v_b.weight": (n_heads, VALUE, LATENT),
        "out.weight": (VOCAB, n_heads * VALUE),
    }  # fmt: skip
    made = b.Builder(shapes)
    w = b.Weights(made)
    x = b.embed(made.inputs["tokens"], w.e)
    latent, key_rope = b.split(b.linear(x, w.kv), LATENT, ROPE)
    q, q_rope = b.split(b.heads(b.linear(x, w.q), n_heads), NOPE, ROPE)
    q = b.head_linear(q, w.k_b, n_heads=n_heads)
    seen = b.latent_attention(q, q_rope, latent, key_rope, layer=0, scale=0.05)
    values = b.flat(b.head_linear(seen, w.v_b, n_heads=n_heads))
    return made.finish(b.linear(b.select_outputs(values), w.out), "absorbed", 1 << 16)


def expanded(n_heads: int) -> Program:
    """One layer of attention whose heads have keys and values of their own."""
    shapes = {"e.weight": (VOCAB, DIM), "out.weight": (VOCAB, n_heads * (NOPE + ROPE))}
    shapes |= {f"{name}.weight": (n_heads * (NOPE + ROPE), DIM) for name in "qk"}
    made = b.Builder(shapes)
    w = b.Weights(made)
    x = b.embed(made.inputs["tokens"], w.e)
    q, k = (b.heads(b.linear(x, weight), n_heads) for weight in (w.q, w.k))
    seen = b.attention(q, k, k, layer=0, scale=0.05)
    return made.finish(b.linear(b.select_outputs(seen), w.out), "expanded", 1 << 16)


def open_random(program: Program, n_tokens: int, chunk: int, threads: int) -> Runtime:
    """The program with random F32 weights and float16 keys and values."""
    rng = np.random.default_rng(0)

    def source(shape: tuple[int, ...]) -> MatrixSource:
        rows = (rng.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)
        return MatrixSource(Path("random"), 0, rows.nbytes, 0, lambda: rows)

    sources = {name: source(value.shape) for name, value in program.weights.items()}
    arena = memory.plan(program, {"tokens": chunk, "outputs": 1})
    limits = Limits(threads, chunk, 1, n_tokens + 1, pages_for(n_tokens) + 1, "f16", arena)
    return Runtime(program, sources, {}, limits)


def milliseconds(runtime: Runtime, first: int, rows: int, repetitions: int) -> float:
    """Of the counted instructions in one step, the lowest of some."""
    positions = np.arange(first, first + rows, dtype=np.int32)
    pages = np.arange(pages_for(first + rows), dtype=np.int32)
    starts, last = np.array([0, rows], np.int32), np.array([rows - 1], np.int32)
    found = []
    for _ in range(repetitions):
        runtime.reset_profile()
        runtime.step(Batch(positions * 7 % VOCAB, positions, starts, [pages], last))
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
    runtimes = [open_random(made(o.heads), o.tokens, o.chunk, o.threads) for made in (absorbed, expanded)]
    print(f"{o.heads} heads, {o.threads} threads, f16 KV: absorbed, expanded, ratio")
    for first in range(0, o.tokens, o.chunk):
        times = [milliseconds(runtime, first, o.chunk, 3) for runtime in runtimes]
        print(f"{o.chunk} rows behind {first:5d}: {times[0]:8.1f} {times[1]:8.1f} {times[0] / times[1]:6.2f}")
    for first in (o.tokens // 4 - 1, o.tokens - 1):
        times = [milliseconds(runtime, first, 1, 30) for runtime in runtimes]
        print(f"  one row behind {first:5d}: {times[0]:8.2f} {times[1]:8.2f} {times[0] / times[1]:6.2f}")


if __name__ == "__main__":
    main()
