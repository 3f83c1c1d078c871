"""Prompts expanded: what rows of a prompt give, that it is what absorbed gives, and that only a row's kind matters."""

from dataclasses import replace
from types import MappingProxyType

import gguf
import numpy as np
import pytest

from tenth.config import EngineConfig
from tenth.errors import RequestError
from tenth.loader import lay_out, matrix_source, open_runtime, optimised_program
from tenth.program import builder as b
from tenth.program.expanding import expand_prompts
from tenth.program.passes import optimise
from tenth.program.reference import Batch, Cache, derived, run
from tenth.program.values import Transposed
from tenth.runtime import expanded_scratch_bytes
from tenth.weights.decode import q8_0 as decode_q8_0
from tenth.weights.gguf import read_header, read_tensor
from tests.golden_files import nmse
from tests.models.test_goldens import Golden
from tests.runtime.native import DATA, all_logits, golden, open_golden, open_program, step_logits
from tests.runtime.test_latent import LATENT as LATENTS
from tests.runtime.test_latent import TOKENS, N, largest_error, meant, weights
from tests.runtime.test_latent import program as absorbed_program

# A small layer, for many tokens: several blocks, spans and tiles, the last of each not full.
VOCAB, DIM, HEADS, LATENT, NOPE, ROPE, VALUE, LONG = 32, 32, 3, 32, 16, 8, 48, 700
SHAPES = {
    "embd.weight": (VOCAB, DIM), "kv.weight": (LATENT + ROPE, DIM), "q.weight": (HEADS * (NOPE + ROPE), DIM),
    "kv_b.weight": (HEADS * (NOPE + VALUE), LATENT), "out.weight": (VOCAB, HEADS * VALUE),
}  # fmt: skip


def small_program():
    """As files of old have it: one matrix for keys and values, values longer than keys."""
    made = b.Builder(SHAPES)
    w = b.Weights(made)
    x = b.scale(b.embed(made.inputs["tokens"], w.embd), 8.0)
    latent, key_rope = b.split(b.linear(x, w.kv), LATENT, ROPE)
    q, q_rope = b.split(b.heads(b.linear(x, w.q), HEADS), NOPE, ROPE)
    q = b.head_linear_transposed(q, w.kv_b, n_heads=HEADS, first=0, n_rows=NOPE)
    seen = b.latent_attention(q, q_rope, latent, key_rope, layer=0, scale=0.3)
    values = b.flat(b.head_linear(seen, w.kv_b, n_heads=HEADS, first=NOPE, n_rows=VALUE))
    return made.finish(b.linear(b.select_outputs(values), w.out), "test", 1024)


def open_small(folder, threads=2, kv_format="f16"):
    program = expand_prompts(small_program())
    return open_program(program, weights(SHAPES), folder, LONG, kv_format, threads, context=1024, pages=64)


LONG_TOKENS = np.random.default_rng(4).integers(0, VOCAB, LONG)


@pytest.mark.parametrize(("kv_format", "bound"), [("f32", 1e-6), ("f16", 1e-3), ("bf16", 8e-3), ("q8_0", 2e-2)])
def test_expanded_natively_is_what_papers_write(kv_format, bound, tmp_path):
    runtime = open_program(expand_prompts(absorbed_program()), weights(), tmp_path, rows=N, kv_format=kv_format)
    assert largest_error(all_logits(runtime, TOKENS), meant()) < bound


@pytest.mark.parametrize("case", ["deepseek2", "deepseek2_lite", "deepseek3"])
def test_expanded_prompts_give_what_absorbed_ones_give(case):
    """Today's files with and without a low rank of queries, and one of old; natively within the reference's bound."""
    of = Golden(case)
    assert 0 < nmse(meaning(of), run(of.program, of.weights, of.batch, dtype=np.float64)) ** 0.5 < 1e-12
    logits = all_logits(open_golden(case, kv_format="f32", prefill="expanded"), of.batch.tokens)
    assert nmse(logits, of.expected["logits"]) <= of.bounds[np.float32]


@pytest.mark.parametrize("case", ["deepseek2_quantised", "deepseek3_quantised"])
def test_latents_are_rounded_for_the_matrices_that_want_it(case):
    of = Golden(case)
    logits = all_logits(open_golden(case, kv_format="f32", prefill="expanded"), of.batch.tokens)
    assert nmse(logits, meaning(of, of.reads)) <= 2e-5  # as test_native_goldens.py has it for absorbed ones
    assert nmse(logits, meaning(of, set())) > 2e-5  # without rounding


def meaning(of, reads=MappingProxyType({})):
    """What the reference says of a golden's prompt, expanded."""
    program = expand_prompts(of.program, of.reads)
    made = {name: "q8" for name, how in program.derived.items() if isinstance(how, Transposed) and how.rounds}
    program = optimise(program, {**reads, **made} if reads else {})
    return run(program, of.weights, of.batch, dtype=np.float64)


@pytest.mark.parametrize("kv_format", ["bf16", "f16", "f32"])  # rows of 40 numbers: test_same_bits.py has q8_0
def test_threads_chunks_and_mates_change_no_bit_of_many_tokens(kv_format, tmp_path):
    whole = all_logits(open_small(tmp_path, 1, kv_format), LONG_TOKENS)
    for threads, chunks in ((1, (256, 97)), (2, (7, 64, 256)), (5, (300,))):
        runtime = open_small(tmp_path, threads, kv_format)
        for chunk in chunks:
            assert np.array_equal(whole, all_logits(runtime, LONG_TOKENS, chunk)), (threads, chunk)
        other, its = LONG_TOKENS[::-1], np.arange(22, 44)
        step_logits(runtime, [(other[:300], 0, its), (LONG_TOKENS[:350], 0, np.arange(22))])
        together = step_logits(runtime, [(other[300:450], 300, its), (LONG_TOKENS[350:], 350, np.arange(22))])
        assert np.array_equal(together[150:], whole[350:]), threads


def test_kinds_side_by_side_are_what_the_reference_says_and_change_nothing_of_each_other(tmp_path):
    """A prompt in one step with a sequence behind its own, whose rows meet latents; then its last row alone."""
    program, kept, cache = expand_prompts(small_program()), weights(SHAPES), Cache()
    prompt, answer = LONG_TOKENS[:150], LONG_TOKENS[150:170]
    runtime = open_small(tmp_path, kv_format="f32")
    pages, others = np.arange(10), np.arange(10, 20)
    first = step_logits(runtime, [(prompt, 0, pages)])
    mixed = step_logits(runtime, [(answer, 150, pages), (prompt[::-1], 0, others)], n_generated=1)
    run(program, kept, Batch(prompt, np.arange(150), np.array([0, 150]), np.arange(150)), cache, dtype=np.float64)
    rows = np.concatenate([np.arange(150, 170), np.arange(150)])
    batch = Batch(np.concatenate([answer, prompt[::-1]]), rows, np.array([0, 20, 170]), np.arange(170), n_generated=1)
    assert largest_error(mixed, run(program, kept, batch, cache, dtype=np.float64)) < 1e-6
    alone = [step_logits(runtime, [(answer[i : i + 1], 150 + i, pages)], n_generated=1) for i in range(20)]
    assert np.array_equal(np.concatenate(alone), mixed[:20])
    assert np.array_equal(step_logits(runtime, [(prompt[::-1], 0, others)]), mixed[20:])
    assert np.array_equal(step_logits(runtime, [(prompt, 0, pages)]), first)
    absorbed = open_program(small_program(), kept, tmp_path, LONG, "f32", context=1024, pages=64)
    meeting = step_logits(absorbed, [(prompt, 0, pages)])
    assert np.array_equal(step_logits(runtime, [(prompt, 0, pages)], n_generated=1), meeting)


def test_latents_are_rounded_to_bfloat16_beside_a_matrix_of_that_format(tmp_path):
    program, kept = expand_prompts(absorbed_program()), weights()
    stored = gguf.quantize(kept["v_b.weight"].reshape(-1, LATENTS), gguf.GGMLQuantizationType.BF16)
    kept["v_b.weight"] = gguf.dequantize(stored, gguf.GGMLQuantizationType.BF16).reshape(kept["v_b.weight"].shape)
    given = {**kept, "v_b.weight": (stored, int(gguf.GGMLQuantizationType.BF16))}
    rounding = optimise(program, {"v_b.weight": "bf16"})
    logits = all_logits(open_program(rounding, given, tmp_path, rows=N), TOKENS)
    rounded, plain = (run(made, kept, Batch.single(TOKENS), dtype=np.float64) for made in (rounding, program))
    assert nmse(logits, rounded) < 1e-8 < nmse(logits, plain)  # some are rounded the other way in float64


def test_a_turned_copy_of_quantised_keys_is_int8_and_as_the_reference_rounds_it():
    loaded = open_runtime(read_header(DATA / "golden_deepseek3_quantised.gguf"), EngineConfig(prefill="expanded"))
    turned = {name: how for name, how in loaded.program.derived.items() if isinstance(how, Transposed)}
    formats = {(loaded.stored[name].format, loaded.header.tensors[how.source].format) for name, how in turned.items()}
    assert all((made == "F32") == (of == "F32") for made, of in formats)
    name, how = next((name, how) for name, how in turned.items() if how.rounds)
    rows = read_tensor(loaded.header.tensors[how.source])
    source = matrix_source(loaded.stored[name], loaded.header, loaded.program)
    blocks = source.make()
    assert (source.gguf_id, source.n_bytes) == (8, blocks.nbytes)
    exact = derived(rows, replace(how, rounds=False))
    assert np.array_equal(decode_q8_0(blocks.reshape(-1, 34)).reshape(exact.shape), derived(rows, how))
    assert np.array_equal(blocks, gguf.quantize(exact, gguf.GGMLQuantizationType.Q8_0))
    assert 0 < nmse(derived(rows, how), exact) < 1e-4


def test_without_latents_nothing_changes_and_a_drafter_goes_on_absorbing():
    plain = optimised_program(read_header(DATA / "golden_qwen3.gguf"))
    assert expand_prompts(plain) is plain
    tokens = golden("qwen3")["tokens"]
    assert np.array_equal(*(all_logits(open_golden("qwen3", prefill=how), tokens) for how in ("absorbed", "expanded")))
    drafting = optimised_program(read_header(DATA / "golden_deepseek3_quantised.gguf"), True, "expanded")
    assert "expanded_attention" not in {i.op for i in drafting.drafter.instructions}
    assert "latent_attention" in {i.op for i in drafting.drafter.instructions}


def test_what_expanding_takes_is_counted_and_grows_with_rows_not_with_the_context():
    header = read_header(DATA / "golden_deepseek3_quantised.gguf")
    few, many = (lay_out(header, EngineConfig(threads=2, prefill="expanded", chunk_tokens=n)) for n in (64, 512))
    scratch = [expanded_scratch_bytes(of.program, of.limits.max_rows) for of in (few, many)]
    assert 0 < scratch[0] < scratch[1]
    absorbed = lay_out(header, EngineConfig(threads=2, chunk_tokens=64))
    beyond = few.needs.workspace - few.limits.arena_bytes - (absorbed.needs.workspace - absorbed.limits.arena_bytes)
    assert beyond == 2 * scratch[0]
    assert expanded_scratch_bytes(absorbed.program, 64) == 0
    longer = lay_out(header, EngineConfig(threads=2, prefill="expanded", chunk_tokens=64, context_tokens=64))
    assert expanded_scratch_bytes(longer.program, 64) == scratch[0]


def test_the_cache_still_keeps_latents_only():
    sizes = [open_golden("deepseek3", prefill=how).page_bytes for how in ("absorbed", "expanded")]
    assert sizes[0] == sizes[1]


def test_only_two_ways_are_known():
    with pytest.raises(RequestError, match="prefill is 'both', expected absorbed or expanded"):
        EngineConfig(prefill="both")


def test_a_plan_refuses_matrices_that_do_not_fit_and_batches_with_more_generated_than_sequences(tmp_path):
    runtime = open_small(tmp_path)
    with pytest.raises(ValueError, match="more generated sequences"):
        step_logits(runtime, [(LONG_TOKENS[:3], 0, [0])], n_generated=2)
    with pytest.raises(ValueError, match="more generated sequences"):
        step_logits(runtime, [(LONG_TOKENS[:3], 0, [0])], n_generated=-1)


def test_expand_prompts_goes_before_the_other_passes():
    program = optimise(expand_prompts(small_program()), {"kv_b.weight": "q8"})
    (of,) = (i for i in program.instructions if i.op == "expanded_attention")
    assert of.attrs["keys_dtype"] == of.attrs["values_dtype"] == "q8"
    assert of.inputs[3] is of.inputs[4]  # the file's own matrix, its rows as they lie
