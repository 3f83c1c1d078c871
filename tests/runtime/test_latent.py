"""Native latent attention at DeepSeek V3's shape: what it keeps, and that it is what expanded keys and values give."""

import numpy as np
import pytest

from tenth import _core
from tenth.program import builder as b
from tests.models.test_deepseek2 import expanded
from tests.runtime.native import all_logits, open_program, step_logits

VOCAB, DIM, HEADS, LATENT, NOPE, ROPE, VALUE, N = 64, 96, 4, 512, 128, 64, 128, 70
SHAPES = {
    "embd.weight": (VOCAB, DIM), "kv.weight": (LATENT + ROPE, DIM), "q.weight": (HEADS * (NOPE + ROPE), DIM),
    "k_b.weight": (HEADS, LATENT, NOPE), "v_b.weight": (HEADS, VALUE, LATENT), "out.weight": (VOCAB, HEADS * VALUE),
}  # fmt: skip
SCALE = 0.0625
TOKENS = np.random.default_rng(3).integers(0, VOCAB, N)

NO_LEVELS = np.zeros(0, np.float32)


def weights(shapes=SHAPES):
    rng = np.random.default_rng(5)
    return {name: rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def program():
    made = b.Builder(SHAPES)
    w = b.Weights(made)
    x = b.scale(b.embed(made.inputs["tokens"], w.embd), 8.0)
    latent, key_rope = b.split(b.linear(x, w.kv), LATENT, ROPE)
    q, q_rope = b.split(b.heads(b.linear(x, w.q), HEADS), NOPE, ROPE)
    q = b.head_linear(q, w.k_b, n_heads=HEADS)
    seen = b.latent_attention(q, q_rope, latent, key_rope, layer=0, scale=SCALE)
    values = b.flat(b.head_linear(seen, w.v_b, n_heads=HEADS))
    return made.finish(b.linear(b.select_outputs(values), w.out), "test", 256)


def meant():
    w = {name.removesuffix(".weight"): array.astype(np.float64) for name, array in weights().items()}
    x = w["embd"][TOKENS] * 8
    latent, key_rope = np.split(x @ w["kv"].T, [LATENT], -1)
    q, q_rope = np.split((x @ w["q"].T).reshape(N, HEADS, -1), [NOPE], -1)
    values = expanded(q, q_rope, latent, key_rope, w["k_b"], w["v_b"], SCALE)
    return values.reshape(N, -1) @ w["out"].T


def largest_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(("kv_format", "bound"), [("f32", 1e-6), ("f16", 1e-3), ("bf16", 8e-3), ("q8_0", 2e-2)])
def test_absorbed_gives_what_expanded_keys_and_values_give(kv_format, bound, tmp_path):
    runtime = open_program(program(), weights(), tmp_path, rows=N, kv_format=kv_format)
    assert largest_error(all_logits(runtime, TOKENS), meant()) < bound


@pytest.mark.parametrize(("kv_format", "number_bytes"), [("f16", 2), ("bf16", 2), ("f32", 4), ("q8_0", 1 + 4 / 32)])
def test_a_page_holds_576_numbers_of_each_token_and_layer_and_nothing_else(kv_format, number_bytes, tmp_path):
    runtime = open_program(program(), weights(), tmp_path, kv_format=kv_format)
    n_bytes = 32 * (LATENT + ROPE) * number_bytes
    assert n_bytes <= runtime.page_bytes < n_bytes + 4096


@pytest.mark.parametrize("kv_format", ["bf16", "f16", "q8_0", "f32"])
def test_threads_chunks_and_mates_change_no_bit(kv_format, tmp_path):
    whole = all_logits(open_program(program(), weights(), tmp_path, rows=N, kv_format=kv_format, threads=1), TOKENS)
    for threads in (1, 2, 3, 7):
        runtime = open_program(program(), weights(), tmp_path, rows=N, kv_format=kv_format, threads=threads)
        for chunk in (1, 5, 33):
            assert np.array_equal(whole, all_logits(runtime, TOKENS, chunk)), (threads, chunk)
        step_logits(runtime, [(TOKENS[::-1][:40], 0, [7, 4]), (TOKENS[:3], 0, [5, 1, 9])])
        together = step_logits(runtime, [(TOKENS[::-1][40:50], 40, [7, 4]), (TOKENS[3:50], 3, [5, 1, 9])])
        assert np.array_equal(together[10:], whole[3:50]), threads


def test_numbers_of_another_sequence_left_in_a_page_are_not_seen(tmp_path):
    runtime = open_program(program(), weights(), tmp_path, rows=N, kv_format="f32")
    before = all_logits(runtime, TOKENS[:40])
    all_logits(runtime, np.roll(TOKENS, 9))
    assert np.array_equal(all_logits(runtime, TOKENS[:40]), before)


def test_a_layer_of_latents_has_latents_shorter_than_its_rows_and_one_head():
    def plan():
        return _core.Plan(1, 4, 4, 8, 64, 4096, 2, 0, 1)

    plan().add_layer(0, 1, 48, 32, NO_LEVELS)
    for heads, dim, latent in ((2, 48, 32), (1, 48, 48), (1, 48, -1)):
        with pytest.raises(ValueError, match="plan: latents of layer 0"):
            plan().add_layer(0, heads, dim, latent, NO_LEVELS)
