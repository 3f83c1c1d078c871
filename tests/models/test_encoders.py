"""What has to hold for every model that writes no text: its program in the NumPy reference, what its file may say."""

import numpy as np
import pytest
from tests.models.test_model_runner import logits, quantised, same

from tenth.errors import ModelFileError
from tenth.models.config import Pooling
from tenth.program import memory, passes
from tenth.program.reference import Batch, run

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3]


@pytest.fixture
def ready(encoder):
    return encoder.build(), encoder.weights()


def test_it_keeps_nothing_and_takes_sequences_whole(ready):
    program, _ = ready
    assert not program.state
    assert not program.recurrences
    assert program.takes_whole_sequences


def test_batched_equals_alone(ready):
    program, weights = ready
    alone = [logits(program, weights, Batch.single(tokens)) for tokens in (TOKENS, TOKENS[5:], TOKENS[:1])]
    batch = Batch(np.array(TOKENS + TOKENS[5:] + TOKENS[:1]), np.array([*range(16), *range(11), 0]),
                  np.array([0, 16, 27, 28]), np.array([0, 15, 16, 27]))  # fmt: skip
    expected = [alone[0][0], alone[0][15], alone[1][0], alone[2][0]]
    assert same(logits(program, weights, batch), expected)


def test_every_token_matters_to_the_first_and_so_does_its_place(ready):
    program, weights = ready
    first = logits(program, weights, Batch.single(TOKENS, outputs=[0]))
    for other in ([*TOKENS[:-1], 4], [*TOKENS[:4], *TOKENS[3:0:-1], *TOKENS[7:]]):
        assert not same(logits(program, weights, Batch.single(other, outputs=[0])), first)


def test_a_planned_arena_changes_nothing(ready):
    program, weights = ready
    for made in (program, passes.optimise(program, quantised(program))):
        arena = memory.plan(made, {"tokens": 16, "outputs": 4})
        batch = Batch.single(TOKENS, outputs=[0, 7, 15])
        assert np.array_equal(run(made, weights, batch, arena_bytes=arena), run(made, weights, batch))


def test_passes_keep_results(ready):
    program, weights = ready
    batch = Batch.single(TOKENS, outputs=[0, 7, 15])
    assert same(logits(passes.optimise(program, {}), weights, batch), logits(program, weights, batch))
    rounded = passes.optimise(program, quantised(program), (passes.round_once,))
    improved = passes.optimise(program, quantised(program))
    assert same(logits(improved, weights, batch), logits(rounded, weights, batch))


def test_behind_the_last_attention_only_rows_that_count_are_computed(make_tiny):
    program = passes.optimise(make_tiny("bert_rerank").build(), {})
    last = max(at for at, i in enumerate(program.instructions) if i.op == "encoder_attention")
    behind = program.instructions[last + 1 :]
    assert {i.outputs[0].rows for i in behind} == {"outputs"}
    assert {"linear", "layer_norm", "gelu", "softcap"} <= {i.op for i in behind}


def test_what_stands_behind_a_separator_is_of_the_next_type_only_in_a_reranker(make_tiny):
    def segments(name, **tokenizer):
        tiny = make_tiny(name)
        tiny.values |= {f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()}
        return next(i.attrs["separator"] for i in tiny.build().instructions if i.op == "embed_segments")

    assert segments("bert", model="bert", seperator_token_id=3) == -1
    assert segments("bert_rerank", model="bert", seperator_token_id=3) == 3
    assert segments("bert_rerank", model="bert") == 102
    assert segments("bert_rerank", model="t5") == -1


@pytest.mark.parametrize(("kind", "pooling", "task"), [
    (0, Pooling("every"), "embed"), (1, Pooling("mean"), "embed"), (2, Pooling("first"), "embed"),
    (3, Pooling("last"), "embed"), (4, Pooling("first", 1), "rerank"), (None, Pooling("every"), "embed"),
])  # fmt: skip
def test_the_file_says_how_an_encoder_is_pooled(make_tiny, kind, pooling, task):
    tiny = make_tiny("bert_rerank", pooling_type=kind)
    assert tiny.config().pooling == pooling
    if not pooling.n_scores:
        tiny.shapes = {name: shape for name, shape in tiny.shapes.items() if not name.startswith("cls")}
    program = tiny.build()
    assert (program.task, program.row) == (task, {"mean": "last"}.get(pooling.how, pooling.how))
    assert program.vocab_size == 37
    assert program.output_width == (pooling.n_scores or 64)


@pytest.mark.parametrize(("kind", "pooling"), [(None, None), (0, None), (1, Pooling("mean")), (3, Pooling("last"))])
def test_and_a_decoder_writes_text_unless_it_says_so(make_tiny, kind, pooling):
    program, config = make_tiny("qwen3", pooling_type=kind).build(), make_tiny("qwen3", pooling_type=kind).config()
    assert config.pooling == pooling
    assert program.task == ("embed" if pooling else "generate")
    assert program.takes_whole_sequences == (kind == 1)


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("bert", {"attention.causal": True}, "attention.causal is true, expected false: bert is an encoder"),
    ("bert", {"attention.layer_norm_epsilon": None}, "layer_norm_epsilon is missing"),
    ("bert", {"attention.head_count": 5}, "embedding_length 64 is not a multiple of attention.head_count 5"),
    ("bert", {"pooling_type": 5}, "pooling_type is 5, expected .*at most 4"),
    ("bert", {"context_length": 127}, r"position_embd.weight has shape \[128, 64\], expected \[127, 64\]"),
    ("bert_rerank", {"classifier.output_labels": ["a", "b"]}, "output_labels has 2 labels, expected one"),
    ("nomic-bert", {"attention.head_count": 64}, "a head has 1 numbers, expected an even number"),
    ("nomic-bert", {"rope.freq_base": 0.5}, "rope.freq_base is 0.5, expected more than 1"),
])  # fmt: skip
def test_values_that_contradict_each_other_are_named(make_tiny, name, changes, message):
    with pytest.raises(ModelFileError, match=message):
        make_tiny(name, **changes).build()


def test_missing_tensors_are_named(make_tiny):
    tiny = make_tiny("bert_rerank")
    del tiny.shapes["cls.output.weight"], tiny.shapes["cls.output.bias"]
    with pytest.raises(ModelFileError, match=r"no tensor cls.output.weight to judge with"):
        tiny.build()
    tiny = make_tiny("nomic-bert")
    del tiny.shapes["blk.1.attn_qkv.weight"]
    with pytest.raises(ModelFileError, match=r"neither attn_qkv.weight nor attn_q.weight"):
        tiny.build()
    tiny = make_tiny("bert")
    del tiny.shapes["blk.1.layer_output_norm.bias"]
    with pytest.raises(ModelFileError, match=r"tensor blk.1.layer_output_norm.bias is missing"):
        tiny.build()


def test_the_head_of_one_score_may_have_lost_its_dimension_of_one(make_tiny):
    tiny = make_tiny("bert_rerank")
    tiny.shapes["cls.output.weight"] = (64,)
    assert tiny.build().output_width == 1
