"""With several NUMA nodes every worker touches the memory of the weights that it will read, before they are there."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tenth import _core
from tenth.program import builder as b

from .native import all_logits, golden, open_golden, open_program

WIDTH, VOCAB = 2048, 4096


def one_product():
    """A program of one large linear, and its weights."""
    shapes = {"embd.weight": (VOCAB, WIDTH), "out.weight": (VOCAB, WIDTH)}
    builder = b.Builder(shapes)
    w = b.Weights(builder)
    program = builder.finish(b.linear(b.select_outputs(b.embed(builder.inputs["tokens"], w.embd)), w.out), "test", 256)
    rng = np.random.default_rng(1)
    return program, {name: rng.normal(0, WIDTH**-0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
def test_workers_share_every_panel_of_a_linear_among_them(n_threads):
    plan = open_golden("qwen2", context_tokens=64, chunk_tokens=32)._plan
    everyone = [plan.panels_of(thread, n_threads) for thread in range(n_threads)]
    of_all = {}
    for ranges in everyone:
        for matrix, first, last in ranges:
            of_all.setdefault(matrix, []).append((first, last))
    alone = {matrix: last for matrix, first, last in plan.panels_of(0, 1)}
    assert of_all.keys() == alone.keys()
    for matrix, ranges in of_all.items():
        assert [first for first, _ in ranges] == [0, *(last for _, last in ranges[:-1])]
        assert ranges[-1][1] == alone[matrix]


def test_stretches_of_two_workers_meet_nowhere_and_are_all_there_is():
    plan = open_golden("qwen2", context_tokens=64, chunk_tokens=32, threads=2)._plan
    of_both = sorted({stretch for thread in range(2) for stretch in plan.stretches_of(thread)})
    assert all(end <= start for (_, end), (start, _) in pairwise(of_both))
    of_one = open_golden("qwen2", context_tokens=64, chunk_tokens=32, threads=1)._plan.stretches_of(0)
    assert sum(end - start for start, end in of_both) == sum(end - start for start, end in set(of_one))


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_who_waits_fetches_the_beginning_of_its_own_part_of_the_next_product(n_threads):
    runtime = open_golden("quantised", context_tokens=64, chunk_tokens=32, threads=n_threads)
    ops = [i.op for i in runtime.program.instructions]
    n_behind = ops[::-1].index("linear")  # instructions behind the last product
    for thread in range(n_threads):
        own, fetched = runtime._plan.stretches_of(thread), runtime._plan.fetched_of(thread)
        assert len(fetched) == len(ops)
        assert fetched[len(ops) - n_behind :] == [(0, 0)] * n_behind
        ahead = [next(of for of in own if of[0] == start) for start, _ in fetched[: len(ops) - n_behind]]
        for (start, end), (_, whole) in zip(fetched, ahead, strict=False):  # at most a part of the second cache
            assert min(whole - start, 64 << 10) <= end - start <= min(whole - start, 256 << 10)
        places = [own.index(stretch) for stretch in ahead]
        assert places == sorted(places)
        assert places[0] == 0
        assert len(set(places)) == ops.count("linear")
        changes = [at for at, (before, after) in enumerate(pairwise(places)) if before != after]
        assert [ops[at] for at in changes] == ["linear"] * (ops.count("linear") - 1)


@pytest.mark.parametrize("spans", [False, True])
def test_memory_is_there_before_weights_are_read_into_it(spans, tmp_path, monkeypatch):
    seen, read_weights = [], _core.Plan.read_weights

    def read(plan):
        seen.append(resident_bytes())
        return read_weights(plan)

    monkeypatch.setattr(_core.Plan, "spans_nodes", spans)
    monkeypatch.setattr(_core.Plan, "read_weights", read)
    program, weights = one_product()
    n_bytes = weights["out.weight"].nbytes
    before = resident_bytes()
    runtime = open_program(program, weights, tmp_path)
    assert (seen[0] - before > n_bytes * 0.8) == spans
    tokens = np.array([3, 1], np.int32)
    expected = weights["embd.weight"][tokens] @ weights["out.weight"].T
    np.testing.assert_allclose(all_logits(runtime, tokens), expected, rtol=2e-3, atol=2e-3)


def test_a_model_says_the_same_wherever_its_weights_lie(monkeypatch):
    tokens = golden("qwen2")["tokens"][:20]
    plain = all_logits(open_golden("qwen2", context_tokens=64, chunk_tokens=32), tokens)
    monkeypatch.setattr(_core.Plan, "spans_nodes", True)
    placed = all_logits(open_golden("qwen2", context_tokens=64, chunk_tokens=32), tokens)
    np.testing.assert_array_equal(plain, placed)
