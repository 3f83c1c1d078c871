"""What instructions must read and multiply, counted by hand beside the code's counts."""

from dataclasses import dataclass

import pytest

from tenth.bench.costs import Cost, StepShape, costs, seen, span
from tenth.bench.work import count
from tenth.program import builder as b
from tenth.program.expanding import expand_prompts
from tenth.program.values import Instruction, KvLayer, Program, Value


@dataclass
class Tensor:
    n_bytes: int
    format: str


def layer_program(window=0):
    """embed, rms_norm_q8, linear (q and v), kv_store, attention (2 heads of 32, 1 KV head), select_outputs, linear."""
    weight = lambda name, *shape: Value(name, "weight", shape)  # noqa: E731
    temp = lambda name, *shape, rows="tokens", dtype="f32": Value(name, "temp", shape, rows, dtype)  # noqa: E731
    table, head = weight("token_embd.weight", 100, 64), weight("output", 100, 64)
    norm, q_w = weight("blk.0.attn_norm.weight", 64), weight("blk.0.attn_q.weight", 64, 64)
    v_w = weight("blk.0.attn_v.weight", 32, 64)
    tokens = Value("tokens", "input", (), "tokens", "i32")
    x, n, q, v = temp("x", 64), temp("n", 64, dtype="q8"), temp("q", 64), temp("v", 32)
    q_heads, v_heads = Value("q", "temp", (2, 32), "tokens", base=q), Value("v", "temp", (1, 32), "tokens", base=v)
    y, last, logits = temp("y", 64), temp("last", 64, rows="outputs"), temp("logits", 100, rows="outputs")
    steps = [
        Instruction("embed", (tokens, table), (x,), {"scale": 1.0}),
        Instruction("rms_norm_q8", (x, norm), (n,), {"eps": 1e-5}),
        Instruction("linear", (n, q_w, v_w), (q, v), {"n_weights": 2, "biases": (0, 0), "residual": 0}),
        Instruction("kv_store", (v_heads, v_heads), (), {"layer": 0}),
        Instruction("attention", (q_heads,), (y,), {"layer": 0, "n_kv_heads": 1, "head_dim": 32, "window": window}),
        Instruction("select_outputs", (y,), (last,)),
        Instruction("linear", (last, head), (logits,), {"n_weights": 1, "biases": (0,), "residual": 0}),
    ]
    weights = {w.name: w for w in (table, norm, q_w, v_w, head)}
    return Program(steps, weights, {"tokens": tokens}, logits, [KvLayer(0, 1, 32, window)])


TENSORS = {"token_embd.weight": Tensor(6400, "Q8_0"), "blk.0.attn_norm.weight": Tensor(256, "F32"),
           "blk.0.attn_q.weight": Tensor(2304, "Q4_K"), "blk.0.attn_v.weight": Tensor(1680, "Q6_K"),
           "output": Tensor(6800, "Q8_0")}


def test_a_step_of_three_rows_behind_ten():
    embed, norm, linear, store, attention, select, head = costs(layer_program(), TENSORS, "f16", StepShape(3, 10))
    assert embed == Cost("embed", "token_embd", "Q8_0", weight_bytes=3 * 64, activation_bytes=3 * 4 + 3 * 256)
    assert norm == Cost("rms_norm_q8", activation_bytes=3 * (256 + 2 * 52) + 256)
    assert linear == Cost("linear", "attn_q+attn_v", "Q4_K+Q6_K", 2304 + 1680, 0, 3 * (104 + 256 + 128), 3 * 96 * 64)
    assert store.kv_bytes == 3 * 2 * 32 * 2
    assert attention.kv_bytes == 13 * 2 * 32 * 2
    assert attention.multiply_adds == 2 * 64 * (11 + 12 + 13)
    assert select.activation_bytes == 2 * 256
    assert head == Cost("linear", "output", "Q8_0", 6800, 0, 256 + 400, 100 * 64)
    assert (head.memory_bytes, head.n_bytes) == (6800, 6800 + 656)


def test_prompts_are_expanded_and_what_follows_them_is_absorbed():
    """16 heads' keys of 128 + 64 numbers and values of 128, of latents of 512; both matrices in one tensor."""
    shapes = {"embd.weight": (8, 64), "kv.weight": (576, 64), "q.weight": (16 * 192, 64), "out.weight": (8, 16 * 128)}
    made = b.Builder({**shapes, "kv_b.weight": (16 * 256, 512)})
    w = b.Weights(made)
    x = b.embed(made.inputs["tokens"], w.embd)
    latent, key_rope = b.split(b.linear(x, w.kv), 512, 64)
    q, q_rope = b.split(b.heads(b.linear(x, w.q), 16), 128, 64)
    q = b.head_linear_transposed(q, w.kv_b, n_heads=16, first=0, n_rows=128)
    seen = b.latent_attention(q, q_rope, latent, key_rope, layer=0, scale=1.0)
    y = b.head_linear(seen, w.kv_b, n_heads=16, first=128, n_rows=128)
    program = expand_prompts(made.finish(b.linear(b.select_outputs(b.flat(y)), w.out)))
    stored = {name: Tensor(1000, "Q8_0") for name in program.weights}
    shapes = StepShape(8, 100), StepShape(1, 100)
    prompt, generation = ({cost.op: cost for cost in costs(program, stored, "f16", shape)} for shape in shapes)
    pairs = sum(range(101, 109))
    expanded = prompt["expanded_attention"]
    assert expanded.multiply_adds == 16 * (192 + 128) * pairs + 16 * 256 * 512 * 108
    assert (expanded.weight_bytes, expanded.kv_bytes) == (1000, 576 * 2 * 108)
    assert (generation["expanded_attention"].multiply_adds, generation["expanded_attention"].weight_bytes) == (0, 0)
    assert (prompt["latent_attention"].memory_bytes, prompt["head_linear"].memory_bytes) == (0, 0)
    assert generation["latent_attention"].multiply_adds == 16 * 1088 * 101
    assert count(program, stored, "f16").weight_bytes == 1000 / 8 + 3 * 1000 + 500 + 1000  # of the table a row


def test_recurrent_state_is_read_and_written_once_in_a_step():
    temp = lambda name, *shape: Value(name, "temp", shape, "tokens")  # noqa: E731
    q, v, gate, x = temp("q", 2, 8), temp("v", 4, 16), temp("gate", 4), temp("x", 40)
    conv = Value("blk.0.ssm_conv1d.weight", "weight", (40, 4))
    steps = [
        Instruction("short_conv", (x, conv), (temp("y", 40),), {"state": 0}),
        Instruction("delta_net", (q, q, v, gate, gate), (temp("z", 4, 16),), {"state": 1, "tiled": 0, "scale": 1.0}),
    ]
    tensors = {"blk.0.ssm_conv1d.weight": Tensor(640, "F32")}
    short_conv, delta_net = costs(Program(steps, {}, {}, x, []), tensors, "f16", StepShape(5, 10))
    assert (short_conv.weight_bytes, short_conv.kv_bytes, short_conv.multiply_adds) == (640, 2 * 4 * 3 * 40, 0)
    assert (delta_net.kv_bytes, delta_net.multiply_adds) == (2 * 4 * 4 * 8 * 16, 5 * 3 * 4 * 8 * 16)


@pytest.mark.parametrize(("shape", "window", "positions", "pairs"), [
    (StepShape(1, 0), 0, 1, 1), (StepShape(1, 99), 0, 100, 100), (StepShape(1, 99), 8, 8, 8),
    (StepShape(4, 0), 8, 4, 10), (StepShape(4, 6), 8, 10, 7 + 8 + 8 + 8), (StepShape(3, 10), 8, 10, 24),
])
def test_a_window_bounds_what_attention_reads(shape, window, positions, pairs):
    assert (span(shape, window), seen(shape, window)) == (positions, pairs)
    attention = costs(layer_program(window), TENSORS, "f32", shape)[4]
    assert (attention.kv_bytes, attention.multiply_adds) == (positions * 2 * 32 * 4, 2 * 64 * pairs)


def test_experts_are_read_once_however_many_rows_use_them():
    experts, x = Value("e", "temp", (2,), "tokens", "i32"), Value("x", "temp", (64,), "tokens", "q8")
    w, y = Value("blk.0.ffn_up_exps.weight", "weight", (8, 32, 64)), Value("y", "temp", (2, 32), "tokens")
    step = Instruction("expert_linear", (x, experts, w), (y,), {"n_weights": 1, "biases": (0,)})
    program = Program([step], {w.name: w}, {}, y, [])
    tensors = {w.name: Tensor(8000, "Q4_K")}
    (one,), (four,) = (costs(program, tensors, "f16", StepShape(rows, 0)) for rows in (1, 4))
    assert (one.label, one.weight_bytes, one.multiply_adds) == ("ffn_up_exps", 2000, 2 * 32 * 64)
    assert (four.weight_bytes, four.multiply_adds) == (round(8000 * (1 - 0.75**4)), 4 * 2 * 32 * 64)
    assert one.activation_bytes == 2 * 52 + 2 * 4 + 2 * 32 * 4
    work = count(program, tensors, "f16")
    assert (work.weight_bytes, work.every) == (2000, 2 * 32 * 64)
