"""Products with experts: the bits of a product with each expert's matrix alone, whoever else is in the step."""

import numpy as np
import pytest

from tenth.program import builder as b
from tenth.program import passes
from tests.kernels.test_kernels import FORMATS, random_rows
from tests.runtime.native import open_program, step_logits

IN, OUT, N_EXPERTS = 256, 40, 6  # the last panel of each expert is not full
VOCAB = OUT  # results stand where logits would
READS = {gguf_id: reads for gguf_id, _, _, reads in FORMATS.values()}
EACH = ["F32", "F16", "BF16", "Q8_0", "Q5_0", "Q4_K", "Q6_K"]


def weights_of(name, shape, seed):
    """Random rows as a file holds them: (bytes, format number)."""
    return random_rows(name, int(np.prod(shape[:-1])), shape[-1], seed), FORMATS[name][0]


def runtime_of(body, shapes, weights, folder, threads=2, left_out=()):
    builder = b.Builder({"embd.weight": (VOCAB, IN), **shapes})
    w = b.Weights(builder)
    x = b.select_outputs(body(b.embed(builder.inputs["tokens"], w.embd), w))
    program = builder.finish(x, "test", 256)
    reads = {name: READS[weights[name][1]] for name in shapes if isinstance(weights[name], tuple)}
    chosen = tuple(p for p in passes.PASSES if p not in left_out)
    return open_program(passes.optimise(program, reads, chosen), weights, folder, threads=threads)


@pytest.mark.parametrize("name", EACH)
def test_an_expert_gives_the_bits_of_its_matrix_alone(name, tmp_path):
    rng = np.random.default_rng(3)
    embd, router = rng.normal(0, 1, (VOCAB, IN)), rng.normal(0, 0.2, (N_EXPERTS, IN))
    bias = np.array([0, 0, 0, 0, -100, 0])  # an expert that nobody is routed to
    data, number = weights_of(name, (N_EXPERTS, OUT, IN), 1)
    weights = {"embd.weight": embd, "router.weight": router, "router.bias": bias, "up.weight": (data, number)}

    def routed(x, w):
        experts, _ = b.route(b.linear(x, w.router), b.Routing(k=1))
        return b.flat(b.expert_linear(x, experts, w.up))

    def alone(x, w):
        return b.linear(x, w.up)

    shapes = {"router.weight": (N_EXPERTS, IN), "router.bias": (N_EXPERTS,), "up.weight": (N_EXPERTS, OUT, IN)}
    mixed = runtime_of(routed, shapes, weights, tmp_path)
    tokens = rng.integers(0, VOCAB, 60)
    expected = []
    for expert in range(N_EXPERTS):
        rows = data[expert * OUT : (expert + 1) * OUT]
        one = runtime_of(alone, {"up.weight": (OUT, IN)}, {**weights, "up.weight": (rows, number)}, tmp_path)
        expected.append(step_logits(one, [(tokens, 0, [0, 1])]))
    chosen = (embd[tokens] @ router.T + bias).argmax(-1)
    assert set(chosen) == {0, 1, 2, 3, 5}
    found = step_logits(mixed, [(tokens, 0, [0, 1])])
    assert np.array_equal(found, np.array([expected[e][row] for row, e in enumerate(chosen)]))
    for row in (0, 7):  # by itself, where the row is its own tile
        assert np.array_equal(step_logits(mixed, [(tokens[row : row + 1], 0, [0])]), found[row : row + 1])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n_rows", [1, 2, 5, 17, 50])
def test_gate_and_up_together_and_rows_of_their_own_give_the_same_bits(n_rows, threads, tmp_path):
    """Two weights in one instruction against two instructions; then down, whose rows are each expert's own."""
    rng = np.random.default_rng(5)
    weights = {
        "embd.weight": rng.normal(0, 1, (VOCAB, IN)),
        "router.weight": rng.normal(0, 0.2, (N_EXPERTS, IN)),
        "gate.weight": weights_of("Q4_K", (N_EXPERTS, 64, IN), 1),
        "gate.bias": rng.normal(0, 1, (N_EXPERTS, 64)),
        "up.weight": weights_of("Q5_0", (N_EXPERTS, 64, IN), 2),
        "down.weight": weights_of("Q8_0", (N_EXPERTS, OUT, 64), 3),
    }
    shapes = {"router.weight": (N_EXPERTS, IN), "gate.weight": (N_EXPERTS, 64, IN), "gate.bias": (N_EXPERTS, 64),
              "up.weight": (N_EXPERTS, 64, IN), "down.weight": (N_EXPERTS, OUT, 64)}  # fmt: skip

    def body(x, w):
        experts, shares = b.route(b.linear(x, w.router), b.Routing(k=3))
        y = b.swiglu(b.expert_linear(x, experts, w.gate), b.expert_linear(x, experts, w.up))
        return b.expert_sum(b.expert_linear(y, experts, w.down), shares)

    results = []
    for left_out in ((), (passes.merge_linears, passes.fuse_rounding)):
        runtime = runtime_of(body, shapes, weights, tmp_path, threads, left_out)
        assert sum(i.op == "expert_linear" for i in runtime.program.instructions) == (3 if left_out else 2)
        results.append(step_logits(runtime, [(np.arange(n_rows) % VOCAB, 0, [0, 1])]))
    assert np.isfinite(results[0]).all()
    assert np.array_equal(*results)
