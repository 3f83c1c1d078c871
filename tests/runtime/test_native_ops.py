"""Every op of the table: the native result against its meaning in NumPy (program/meanings/)."""

import numpy as np
import pytest

from tenth.program import builder as b
from tenth.program import passes
from tenth.program.expanding import expand_prompts
from tenth.program.ops import OPS
from tenth.program.reference import Batch, Cache, run
from tests.runtime.native import open_program, step_logits
from tests.runtime.test_rounding import MAKERS

VOCAB, DIM, HEADS, KV_HEADS, HEAD_DIM = 40, 96, 6, 2, 16
SHAPES = {
    "embd.weight": (VOCAB, DIM), "norm.weight": (DIM,), "head_norm.weight": (HEAD_DIM,), "a.weight": (DIM, DIM),
    "key_norm.weight": (HEAD_DIM,),
    "a.bias": (DIM,), "c.weight": (DIM, DIM), "kv.weight": (KV_HEADS * HEAD_DIM, DIM), "factors.weight": (6,),
    "out.weight": (VOCAB, DIM), "by_head.weight": (HEADS, 32, HEAD_DIM), "rows.weight": (HEADS * 32, HEAD_DIM),
    "of_192.weight": (DIM, HEADS * 32), "latent.weight": (25, DIM), "queries.weight": (HEADS * 25, DIM),
    "met.weight": (HEADS, 16, 16),
    "of_72.weight": (DIM, 72), "of_24.weight": (DIM, 24), "router.weight": (12, DIM), "router.bias": (12,),
    "gates.weight": (4, DIM), "factor": (4,), "dt.bias": (4,), "wide": (DIM,), "wide.bias": (DIM,),
    "conv.weight": (DIM, 4), "conv_odd.weight": (41, 3), "odd.weight": (DIM, 41),
    "choice.bias": (12,), "up.weight": (12, 20, DIM), "up.bias": (12, 20), "gate.weight": (12, 20, DIM),
    "down.weight": (12, DIM, 20), "sinks.weight": (HEADS,), "positions.weight": (256, DIM), "types.weight": (3, DIM),
    "norm.bias": (DIM,), "odd_norm.weight": (41,), "odd_norm.bias": (41,),
}  # fmt: skip
INV_FREQ = tuple(1e4 ** (-j / 6) for j in range(6))


def attend(x, w, **attrs):
    q, k = b.heads(b.linear(x, w.c), HEADS), b.heads(b.linear(x, w.kv), KV_HEADS)
    return b.attention(q, k, b.scale(k, 1.5), layer=0, scale=0.25, **attrs)


def turn_and_attend(x, w, pairing, norm=None):
    """Keys of 16 numbers, 12 of them turned, and six heads of queries; normed with another weight each."""
    angles = b.rope_angles(x.builder.inputs["positions"], INV_FREQ)
    q, k = b.heads(b.linear(x, w.c), HEADS), b.heads(b.linear(x, w.kv), KV_HEADS)
    if norm:
        q, k = b.rms_norm(q, w.head_norm, 1e-2), b.rms_norm(k, norm, 1e-2)
    v = b.scale(b.heads(b.linear(x, w.kv), KV_HEADS), 1.5)
    return b.attention(b.rope(q, angles, pairing), b.rope(k, angles, pairing), v, layer=0, scale=0.25)


def encode(x, w):
    """Six heads of queries, two of keys."""
    q, k = b.heads(b.linear(x, w.c), HEADS), b.heads(b.linear(x, w.kv), KV_HEADS)
    return b.encoder_attention(q, k, b.scale(k, 1.5), scale=0.25)


def tokens_of(positions):
    return positions.builder.inputs["tokens"]


def rotate(x, angles, pairing):
    return b.flat(b.rope(b.heads(x, HEADS), angles, pairing))


def latent_attend(x, w):
    """Keys of 16 numbers that are the value too and 9 others; six heads."""
    latent, rope = b.split(b.linear(x, w.latent), 16, 9)
    q, q_rope = b.split(b.heads(b.linear(x, w.queries), HEADS), 16, 9)
    return b.flat(b.latent_attention(q, q_rope, latent, rope, layer=0, scale=0.3))


def expand(x, w):
    """Heads with keys of 16 numbers and 9 rotated ones, values of 32, all rows at their prompt."""
    latent, rope = b.split(b.linear(x, w.latent), 16, 9)
    q, q_rope = b.split(b.heads(b.linear(x, w.queries), HEADS), 16, 9)
    met = b.head_linear(q, w.met, n_heads=HEADS)
    seen = b.latent_attention(met, q_rope, latent, rope, layer=0, scale=0.3)
    return b.flat(b.head_linear(seen, w.by_head, n_heads=HEADS))


def cut(x, w):
    first, second = b.split(b.heads(x, HEADS), 12, 4)
    return b.linear(b.flat(first), w.of_72) + b.linear(b.flat(second), w.of_24)


def by_head(x, w, **rows):
    return b.flat(b.head_linear(b.heads(x, HEADS), w.by_head, n_heads=HEADS, **rows))


def by_head_transposed(x, w):
    return b.flat(b.head_linear_transposed(b.heads(x, HEADS), w.rows, n_heads=HEADS, first=16, n_rows=16))


def through_odd(x, w, op):
    """An op on 41 numbers a row."""
    return b.linear(op(b.split(x, 41, 55)[0]), w.odd)


def delta(x, w, tiled):
    """Two key heads of 48 numbers and four value heads of 24: a group of 16 columns and half of one."""
    q, k, v = b.heads(b.linear(x, w.a), 2), b.heads(b.linear(x, w.c), 2), b.heads(x, 4)
    gates = b.linear(x, w.gates)
    kept, beta = b.decay(gates, w.factor, w.dt), b.sigmoid(gates)
    y = b.delta_net(b.l2_norm(q, 1e-6), b.l2_norm(k, 1e-6), v, decay=kept, beta=beta, tiled=tiled, scale=0.7)
    return b.flat(y)


def mix(x, w, bias=False, **how):
    """Experts of 20 numbers, one of their matrices with a bias: the last panel of each expert is not full."""
    experts, weights = b.route(b.linear(x, w.router), b.Routing(**how), w.choice if bias else None)
    y = b.swiglu(b.expert_linear(x, experts, w.gate), b.expert_linear(x, experts, w.up))
    return b.expert_sum(b.expert_linear(y, experts, w.down), weights)


# What stands between the embedding and the output matrix. The name begins with the op that is tested.
BODIES = {
    "embed": lambda x, p, w: x,
    "embed by position": lambda x, p, w: x + b.embed(p, w.positions),
    "embed_segments": lambda x, p, w: x + b.embed_segments(tokens_of(p), w.types, separator=7),
    "embed_segments of one": lambda x, p, w: x + b.embed_segments(tokens_of(p), w.types),
    "layer_norm": lambda x, p, w: b.layer_norm(x + b.linear(x, w.a), w.norm, 1e-5),
    "layer_norm odd": lambda x, p, w: through_odd(x, w, lambda y: b.layer_norm(y, w.odd_norm, 0.5)),
    "gelu": lambda x, p, w: b.gelu(b.scale(x, 3.0)),
    "rms_norm": lambda x, p, w: b.rms_norm(x, w.norm, 1e-5),
    "rms_norm of heads": lambda x, p, w: b.flat(b.rms_norm(b.heads(x, HEADS), w.head_norm, 1e-5)),
    "rms_norm with residual": lambda x, p, w: x + b.rms_norm(b.linear(x, w.c), w.norm, 1e-5),
    "linear": lambda x, p, w: b.linear(x, w.c),
    "linear with bias": lambda x, p, w: b.linear(x, w.a),
    "linear with residual": lambda x, p, w: x + b.linear(x, w.c),
    "linear merged": lambda x, p, w: b.linear(x, w.a) + b.linear(x, w.c),
    "rope_angles": lambda x, p, w: rotate(x, b.rope_angles(p, INV_FREQ, 1.25, w.factors), "half"),
    "rope half": lambda x, p, w: rotate(x, b.rope_angles(p, INV_FREQ), "half"),
    "rope pairs": lambda x, p, w: rotate(x, b.rope_angles(p, INV_FREQ), "pairs"),
    "kv_store": lambda x, p, w: attend(x, w),
    "rope_store half": lambda x, p, w: turn_and_attend(x, w, "half"),
    "rope_store pairs": lambda x, p, w: turn_and_attend(x, w, "pairs"),
    "rope_store of norms": lambda x, p, w: turn_and_attend(x, w, "half", w.key_norm),
    "attention": lambda x, p, w: attend(x, w),
    "attention windowed": lambda x, p, w: attend(x, w, window=7),
    "attention with sinks": lambda x, p, w: attend(x, w, sinks=w.sinks),
    "attention softcapped": lambda x, p, w: attend(x, w, softcap=2.0),
    "encoder_attention": lambda x, p, w: encode(x, w),
    "head_linear": lambda x, p, w: b.linear(by_head(x, w), w.of_192),
    "head_linear of some rows": lambda x, p, w: by_head(x, w, first=16, n_rows=16),
    "head_linear transposed": lambda x, p, w: by_head_transposed(x, w),
    "latent_store": lambda x, p, w: latent_attend(x, w),
    "latent_attention": lambda x, p, w: latent_attend(x, w),
    "expanded_attention": lambda x, p, w: b.linear(expand(x, w), w.of_192),
    "select_generated": lambda x, p, w: b.linear(expand(x, w), w.of_192),
    "split": lambda x, p, w: cut(x, w),
    "join": lambda x, p, w: b.linear(b.join(*b.split(x, 41, 31, 24)[:2]), w.of_72),
    "add": lambda x, p, w: x + b.linear(x, w.c) + x,
    "scale": lambda x, p, w: b.scale(x, 0.37),
    "softcap": lambda x, p, w: b.softcap(x, 1.5),
    "swiglu": lambda x, p, w: b.swiglu(x, b.linear(x, w.c)),
    "clamped_swiglu": lambda x, p, w: b.clamped_swiglu(b.scale(x, 5.0), b.linear(x, w.c), alpha=1.702, limit=2.5),
    "geglu": lambda x, p, w: b.geglu(x, b.linear(x, w.c)),
    "l2_norm": lambda x, p, w: b.flat(b.l2_norm(b.heads(x, HEADS), 0.5)),
    "l2_norm odd": lambda x, p, w: through_odd(x, w, lambda y: b.l2_norm(y, 1e-6)),
    "sigmoid": lambda x, p, w: b.sigmoid(b.scale(x, 9.0)),
    "sigmoid_gate": lambda x, p, w: b.sigmoid_gate(x, b.linear(x, w.c)),
    "decay": lambda x, p, w: b.decay(b.scale(x, 9.0), w.wide, w.wide),
    "short_conv": lambda x, p, w: b.short_conv(x, w.conv),
    "short_conv odd": lambda x, p, w: through_odd(x, w, lambda y: b.short_conv(y, w.conv_odd)),
    "delta_net": lambda x, p, w: delta(x, w, False),
    "delta_net tiled": lambda x, p, w: delta(x, w, True),
    "sequence_mean": lambda x, p, w: b.sequence_mean(x),
    "select_outputs": lambda x, p, w: x,
    "route": lambda x, p, w: mix(x, w, k=3, normalise=False),
    "route normalised, with bias": lambda x, p, w: mix(x, w, bias=True, k=3, scale=2.5),
    "route by sigmoid": lambda x, p, w: mix(x, w, k=4, score="sigmoid", bias=True),
    "route by the chosen": lambda x, p, w: mix(x, w, k=4, score="softmax_selected"),
    "route in groups": lambda x, p, w: mix(x, w, k=3, n_groups=4, groups_used=2),
    "route in groups by two": lambda x, p, w: mix(x, w, bias=True, k=4, score="sigmoid", n_groups=3, groups_used=2,
                                                  group_score="top2"),
    "expert_linear": lambda x, p, w: mix(x, w, k=1),
    "expert_linear of all experts": lambda x, p, w: mix(x, w, k=12),
    "expert_sum": lambda x, p, w: mix(x, w, k=2),
    "expert_sum with residual": lambda x, p, w: x + mix(x, w, k=5),
}  # fmt: skip
OF_PROMPTS = {"expanded_attention", "select_generated"}
# These need quantised weights: test_native_goldens.py.
Q8_OPS = {"quantize", "rms_norm_q8", "swiglu_q8", "geglu_q8", "gelu_q8", "sigmoid_gate_q8", "clamped_swiglu_q8"}
BF16_OPS = {"round_bf16", *(f"{maker}_bf16" for maker in MAKERS if maker != "scale")}  # test_rounding.py
OF_DRAFTERS = {"hidden_store", "hidden_load"}  # test_drafter.py
# Those depend on what is in memory, or have none: test_streaming.py, test_lossy.py, test_tracing.py.
WITHOUT_NUMBERS = {"expert_read", "expert_predict", "expert_trace", "route_lossy"}


def program_of(body):
    builder = b.Builder(SHAPES)
    w = b.Weights(builder)
    x = b.embed(builder.inputs["tokens"], w.embd, scale=1.1)
    y = body(x, builder.inputs["positions"], w)
    y = b.select_outputs(y) if y.rows == "tokens" else y
    return builder.finish(b.linear(y, w.out), "test", 256)


def written(name):
    """The program of a body; what only a pass makes is made by it."""
    program = program_of(BODIES[name])
    return expand_prompts(program) if name in OF_PROMPTS else program


def weights():
    rng = np.random.default_rng(7)
    spread = {"embd.weight": 1.0}
    return {name: rng.normal(0, spread.get(name, 0.3), shape).astype(np.float32) for name, shape in SHAPES.items()}


def test_every_op_of_the_table_is_tested_here():
    assert {name.split()[0] for name in BODIES} | Q8_OPS | BF16_OPS | OF_DRAFTERS | WITHOUT_NUMBERS == set(OPS)


@pytest.mark.parametrize("optimised", [False, True], ids=["as written", "optimised"])
@pytest.mark.parametrize("name", BODIES)
def test_the_native_op_means_what_the_reference_says(name, optimised, tmp_path):
    program = written(name)
    if optimised:
        program = passes.optimise(program, {})
    runtime = open_program(program, weights(), tmp_path)
    tokens, cache = np.random.default_rng(1).integers(0, VOCAB, 45), Cache()
    for first, last in ((0, 33), (33, 45)):  # the second step looks back into pages of the first
        native = step_logits(runtime, [(tokens[first:last], first, [3, 1])])
        batch = Batch.single(tokens[first:last], first)
        meant = run(written(name), weights(), batch, cache, dtype=np.float64)
        np.testing.assert_allclose(native, meant, rtol=2e-5, atol=2e-5 * np.abs(meant).max())
