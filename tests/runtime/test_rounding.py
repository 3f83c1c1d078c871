"""Activations rounded for products: once for all that read them, in the op that makes them, with any number of rows."""

import numpy as np
import pytest

from tenth.program import builder as b
from tenth.program import memory, passes
from tenth.program.meanings.q8 import round_bf16
from tenth.program.reference import Batch, run
from tests.golden_files import nmse
from tests.kernels.test_kernels import decoded, random_rows
from tests.runtime.native import all_logits, open_program, step_logits

VOCAB, BF16 = 48, 30  # 30: number of the format

MAKERS = {
    "rms_norm": lambda x, w: b.rms_norm(x, w.norm, 1e-5),
    "swiglu": lambda x, w: b.swiglu(x, b.scale(x, 0.5)),
    "geglu": lambda x, w: b.geglu(x, b.scale(x, 0.5)),
    "gelu": lambda x, w: b.gelu(x),
    "clamped_swiglu": lambda x, w: b.clamped_swiglu(x, b.scale(x, 0.5), alpha=1.7, limit=2.0),
    "sigmoid_gate": lambda x, w: b.sigmoid_gate(x, b.scale(x, 0.5)),
    "scale": lambda x, w: b.scale(x, 1.5),  # rounded by an instruction of its own
}


def weights_of(k):
    rng = np.random.default_rng(k)
    out = (rng.normal(0, 1, (VOCAB, k)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    embd, norm = rng.normal(0, 2, (VOCAB, k)), rng.normal(1, 0.2, k)
    return {"embd.weight": embd, "norm.weight": norm, "out.weight": (out, BF16)}


def program_of(maker, k):
    made = b.Builder({"embd.weight": (VOCAB, k), "norm.weight": (k,), "out.weight": (VOCAB, k)})
    w = b.Weights(made)
    x = MAKERS[maker](b.embed(made.inputs["tokens"], w.embd), w)
    return made.finish(b.linear(b.select_outputs(x), w.out), "test", 256)


def rounded_program(maker, k, left_out=()):
    chosen = tuple(p for p in passes.PASSES if p not in left_out)
    return passes.optimise(program_of(maker, k), {"out.weight": "bf16"}, chosen)


def all_rows(runtime, tokens):
    return step_logits(runtime, [(tokens, 0, [0, 1])])


@pytest.mark.parametrize("k", [32, 75, 96, 130])  # one block, no whole pairs, whole blocks, no whole blocks
@pytest.mark.parametrize("maker", MAKERS)
def test_what_meets_bfloat16_weights_is_rounded_where_it_is_made(maker, k, tmp_path):
    weights, tokens = weights_of(k), np.arange(41) % VOCAB
    program = rounded_program(maker, k)
    ops = [i.op for i in program.instructions]
    assert (f"{maker}_bf16" in ops) == (maker != "scale") == ("round_bf16" not in ops)
    apart = rounded_program(maker, k, (passes.fuse_rounding,))
    found = {
        (made is program, threads): all_rows(open_program(made, weights, tmp_path, threads=threads), tokens)
        for made in (program, apart)
        for threads in (1, 3)
    }
    first = found[True, 1]
    assert all(np.array_equal(first, other) for other in found.values())
    alone = open_program(program, weights, tmp_path)
    rows = [step_logits(alone, [(tokens[row : row + 1], 0, [0])])[0] for row in (0, 16, 40)]
    assert np.array_equal(first[[0, 16, 40]], rows)
    read = {**weights, "out.weight": decoded("BF16", weights["out.weight"][0])}
    exact, plain = (run(made, read, Batch.single(tokens), dtype=np.float64) for made in (program, program_of(maker, k)))
    planned = memory.plan(program, {"tokens": 41, "outputs": 41})
    in_arena = run(program, read, Batch.single(tokens), arena_bytes=planned)
    assert np.array_equal(in_arena, run(program, read, Batch.single(tokens)))
    assert nmse(first, exact) < 2e-7 < 1e-6 < nmse(first, plain)


def test_rounding_to_bfloat16_takes_ties_to_even_and_the_least_to_zero():
    halves = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 2.0**-50, 2.0**-51, -(2.0**-51)], np.float32)
    assert round_bf16(halves).tolist() == [1.0, 1 + 2**-6, -1.0, 2.0**-50, 0.0, 0.0]


def test_one_value_read_in_two_ways_is_rounded_once_for_each():
    made = b.Builder({"embd.weight": (VOCAB, 64), **{f"{name}.weight": (VOCAB, 64) for name in "abcd"}})
    w = b.Weights(made)
    x = b.select_outputs(b.embed(made.inputs["tokens"], w.embd))
    program = made.finish(b.linear(x, w.a) + b.linear(x, w.b) + b.linear(x, w.c) + b.linear(x, w.d), "test", 256)
    reads = {"a.weight": "q8", "b.weight": "bf16", "c.weight": "q8"}
    ops = [i.op for i in passes.optimise(program, reads).instructions]
    assert (ops.count("quantize"), ops.count("round_bf16"), ops.count("linear")) == (1, 1, 3)  # a and c are one


@pytest.mark.parametrize("maker", ["swiglu", "geglu"])
@pytest.mark.parametrize("threads", [1, 2])
def test_gate_and_up_of_many_rows_join_in_their_product(maker, threads, tmp_path):
    """Without being stored, from 48 rows on; the bits of few rows, and of instructions of their own."""
    k, inner = 75, 7 * 32
    shapes = {"gate.weight": (inner, k), "up.weight": (inner, k), "down.weight": (VOCAB, inner)}
    weights = {"embd.weight": weights_of(k)["embd.weight"]}
    weights |= {name: (random_rows("BF16", *shape, seed), BF16) for seed, (name, shape) in enumerate(shapes.items())}
    made = b.Builder({"embd.weight": (VOCAB, k), **shapes})
    w = b.Weights(made)
    x = b.select_outputs(b.embed(made.inputs["tokens"], w.embd))
    y = getattr(b, maker)(b.linear(x, w.gate), b.linear(x, w.up))
    program = made.finish(b.linear(y, w.down), "test", 256)
    tokens, results = np.arange(70) % VOCAB, []
    for left_out in ((), (passes.fuse_rounding,)):
        chosen = tuple(p for p in passes.PASSES if p not in left_out)
        runtime = open_program(
            passes.optimise(program, dict.fromkeys(shapes, "bf16"), chosen), weights, tmp_path, rows=70, threads=threads
        )
        results += [all_logits(runtime, tokens, chunk) for chunk in (70, 53, 17)]
    assert np.isfinite(results[0]).all()
    assert all(np.array_equal(results[0], other) for other in results)
