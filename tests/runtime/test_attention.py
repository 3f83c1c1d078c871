"""Attention over several spans of keys: what it means, and that its bits depend on the position of a query alone."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from tenth import _core
from tenth.program import builder as b
from tenth.program import reference
from tests.runtime.native import open_program, step_logits

PAGES, OTHER_PAGES = (3, 1, 4, 12, 5, 9, 2, 6, 8, 7), (10, 11, 13, 14)
VOCAB, DIM, N_TOKENS = 50, 64, 300  # three spans of 128 tokens; the last page and the last span are not full


@dataclass(frozen=True)
class Case:
    """One attention. Groups of 3, 7 and 12 query heads per key head; heads that are and are not whole registers."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int = 0
    softcap: float = 0.0
    sinks: bool = False

    def formats(self):
        return ["f32", "f16", "bf16"] + ["q8_0"] * (self.head_dim % 32 == 0)


CASES = [Case(6, 2, 32), Case(7, 1, 64, window=140), Case(12, 1, 32, softcap=3.0), Case(3, 3, 40, window=33),
         Case(2, 2, 96), Case(8, 2, 64, window=128, sinks=True), Case(3, 3, 32, sinks=True)]
PAIRS = [(case, kv) for case in CASES for kv in case.formats()]


def program_of(case):
    width, kv_width = case.heads * case.head_dim, case.kv_heads * case.head_dim
    builder = b.Builder({"embd.weight": (VOCAB, DIM), "q.weight": (width, DIM), "k.weight": (kv_width, DIM),
                         "v.weight": (kv_width, DIM), "out.weight": (VOCAB, width), "sinks.weight": (case.heads,)})
    w = b.Weights(builder)
    x = b.embed(builder.inputs["tokens"], w.embd, scale=1.0)
    angles = b.rope_angles(builder.inputs["positions"], tuple(100.0 ** (-j / 8) for j in range(8)))
    q = b.heads(b.linear(x, w.q), case.heads)
    k, v = (b.heads(b.linear(x, weight), case.kv_heads) for weight in (w.k, w.v))
    y = b.attention(b.rope(q, angles, "half"), b.rope(k, angles, "half"), v, layer=0, scale=case.head_dim**-0.5,
                    window=case.window, softcap=case.softcap, sinks=w.sinks if case.sinks else None)
    return builder.finish(b.linear(b.select_outputs(y), w.out), "test", 512)


def weights_of(program):
    rng = np.random.default_rng(3)
    shapes = {v.name: v.shape for i in program.instructions for v in i.inputs if v.kind == "weight"}
    spread = {"embd.weight": 1.0, "sinks.weight": 8.0}  # sinks below the scores and above them
    return {name: rng.normal(0, spread.get(name, 0.2), shapes[name]).astype(np.float32) for name in sorted(shapes)}


def tokens_of(seed=0):
    return np.random.default_rng(seed).integers(0, VOCAB, N_TOKENS)


def open_case(case, kv, folder, threads=2):
    program = program_of(case)
    return open_program(program, weights_of(program), folder, rows=N_TOKENS, kv_format=kv, threads=threads, context=512)


def logits(runtime, tokens, chunk, begin=0):
    """Of the tokens from ``begin`` on, ``chunk`` in a step."""
    pieces = [step_logits(runtime, [(tokens[i : i + chunk], i, PAGES)]) for i in range(begin, len(tokens), chunk)]
    return np.concatenate(pieces)


def rounded(x, kv):
    """Keys or values as the cache keeps them."""
    if kv == "q8_0":
        flat = reference.dequantize(reference.quantize(x.reshape(-1, x.shape[-1])))
        return flat.reshape(x.shape).astype(x.dtype)
    if kv == "bf16":
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(x.dtype)
    return x.astype({"f16": np.float16, "f32": np.float32}[kv]).astype(x.dtype)


# Root mean square of the error, to that of the numbers. In float16 and int8 a few numbers turn over, where keys in
# float32 and in float64 lie on two sides of a rounding; for q8_0 the kernels round queries to 16 bits,
# weights to 15; for bf16 both to 8 significant ones.
TOLERANCES = {"f32": 1e-6, "f16": 4e-5, "bf16": 4e-3, "q8_0": 2e-4}


@pytest.mark.parametrize(("case", "kv"), PAIRS)
def test_attention_over_spans_means_what_the_reference_says(case, kv, tmp_path, monkeypatch):
    store = reference.MEANINGS["kv_store"]

    def store_rounded(x, *rest):
        return store([rounded(part, kv) for part in x], *rest)

    monkeypatch.setitem(reference.MEANINGS, "kv_store", store_rounded)
    program = program_of(case)
    meant = reference.run(program, weights_of(program), reference.Batch.single(tokens_of()), dtype=np.float64)
    native = logits(open_case(case, kv, tmp_path), tokens_of(), N_TOKENS)
    assert np.sqrt(np.mean((native - meant) ** 2) / np.mean(meant**2)) < TOLERANCES[kv]


@pytest.mark.parametrize(("case", "kv"), PAIRS)
def test_threads_chunks_and_batch_mates_do_not_change_the_bits(case, kv, tmp_path):
    tokens, other = tokens_of(), tokens_of(1)
    whole = logits(open_case(case, kv, tmp_path, threads=1), tokens, N_TOKENS)
    for threads in (1, 2, 5):
        runtime = open_case(case, kv, tmp_path, threads)
        for chunk in (37, 128):
            assert np.array_equal(whole, logits(runtime, tokens, chunk)), (threads, chunk)
        assert np.array_equal(whole[250:], logits(runtime, tokens, 1, begin=250)), threads
        step_logits(runtime, [(other[:100], 0, OTHER_PAGES)])
        together = step_logits(runtime, [(other[100:103], 100, OTHER_PAGES), (tokens[297:], 297, PAGES)])
        assert np.array_equal(whole[297:], together[3:]), threads


def test_stale_numbers_in_a_page_do_not_change_the_bits(tmp_path):
    case = CASES[0]
    for kv in case.formats():
        runtime = open_case(case, kv, tmp_path)
        fresh = logits(runtime, tokens_of(), N_TOKENS)
        logits(runtime, tokens_of(1), N_TOKENS)
        assert np.array_equal(logits(runtime, tokens_of(), 1)[140:170], fresh[140:170]), kv


@pytest.mark.parametrize("kv", ["f16", "bf16"])
def test_keys_of_very_many_heads_leave_other_memory_alone(kv, tmp_path):
    runtime = open_case(Case(1024, 1024, 48), kv, tmp_path, threads=1)
    tokens = tokens_of()[:34]
    whole = step_logits(runtime, [(tokens, 0, (0, 1))])
    one_by_one = [step_logits(runtime, [(tokens[i : i + 1], i, (0, 1))]) for i in range(len(tokens))]
    assert np.array_equal(whole, np.concatenate(one_by_one))


def test_what_is_no_number_in_a_stale_page_is_not_seen(tmp_path):
    case, broken = CASES[0], 7
    program, weights = program_of(case), weights_of(program_of(case))
    weights["embd.weight"][broken] = 3e38  # its keys and values are infinite or no numbers
    tokens = np.where(tokens_of() == broken, broken + 1, tokens_of())
    for kv in case.formats():
        runtime = open_program(program, weights, tmp_path, rows=N_TOKENS, kv_format=kv, threads=2, context=512)
        fresh = logits(runtime, tokens, N_TOKENS)
        assert np.isnan(logits(runtime, np.full(N_TOKENS, broken), N_TOKENS)).all(), kv
        assert np.array_equal(logits(runtime, tokens, 1)[:40], fresh[:40]), kv


HASH = """
import hashlib, pathlib, sys
from tests.runtime.test_attention import PAIRS, logits, open_case, tokens_of
for case, kv in PAIRS:
    runtime = open_case(case, kv, pathlib.Path(sys.argv[1]))
    found = b"".join(logits(runtime, tokens_of(), chunk).tobytes() for chunk in (3, 300))
    print(case, kv, hashlib.sha256(found).hexdigest())
"""


def test_every_instruction_set_gives_the_same_bits(tmp_path):
    found = {}
    for isa in _core.kernel_isas():
        environment = {**os.environ, "TENTH_ISA": isa, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [sys.executable, "-c", HASH, str(tmp_path)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        found[isa] = done.stdout.splitlines()
    assert all(len(line.split()[-1]) == hashlib.sha256().digest_size * 2 for line in found["scalar"])
    assert len(found["scalar"]) == len(PAIRS)
    for isa, lines in found.items():
        assert lines == found["scalar"], isa
