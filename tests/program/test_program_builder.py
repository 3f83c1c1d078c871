import pytest

from tenth.program import builder as b


@pytest.fixture
def made():
    return b.Builder({"a.weight": (6, 4), "a.bias": (6,), "blk.3.c.weight": (4,)})


def test_views_are_not_instructions(made):
    x = b.linear(b.embed(made.inputs["tokens"], b.Weights(made).a), b.Weights(made).a)
    before = len(made.instructions)
    seen = b.flat(b.heads(x, 2))
    assert len(made.instructions) == before
    assert b.heads(x, 2).shape == (2, 3)
    assert seen.storage is x


def test_a_bias_comes_along_when_the_file_has_it(made):
    w = b.Weights(made)
    b.linear(b.embed(made.inputs["tokens"], w.a), w.a)
    last = made.instructions[-1]
    assert [value.name for value in last.inputs] == ["t0", "a.weight", "a.bias"]
    assert last.attrs == {"n_weights": 1, "biases": (1,), "residual": 0}


def test_a_weight_is_true_when_the_file_has_it(made):
    w = b.Weights(made)
    assert w.a
    assert w.blk[3].c
    assert not w.blk[2].c


def test_one_tensor_is_one_value(made):
    w = b.Weights(made)
    x = b.embed(made.inputs["tokens"], w.a)
    b.rms_norm(b.rms_norm(x, w.blk[3].c, 1e-6), w.blk[3].c, 1e-6)
    assert list(made.weights) == ["a.weight", "blk.3.c.weight"]
    assert made.instructions[1].inputs[1] is made.instructions[2].inputs[1]


def test_attention_stores_first_and_declares_its_state(made):
    w = b.Weights(made)
    x = b.heads(b.embed(made.inputs["tokens"], w.a), 2)
    b.attention(x, x, x, layer=5, scale=1.0, window=9)
    assert [i.op for i in made.instructions[-2:]] == ["kv_store", "attention"]
    assert [(s.layer, s.n_kv_heads, s.head_dim, s.window) for s in made.state] == [(5, 2, 2, 9)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, w: b.linear(b.linear(x, w.a), w.a),
        lambda x, w: b.rms_norm(x, w.a, 1e-6),
        lambda x, w: b.linear(x, w.absent),
        lambda x, w: b.heads(x, 3),
        lambda x, w: x + b.linear(x, w.a),
        lambda x, w: b.rope(b.heads(x, 2), x, "half"),
        lambda x, w: b.swiglu(x, b.select_outputs(x)),
        lambda x, w: b.select_outputs(b.select_outputs(x)),
        lambda x, w: b.softcap(x, 0.0),
    ],
)
def test_maths_that_does_not_fit_is_our_bug(made, wrong):
    x = b.embed(made.inputs["tokens"], b.Weights(made).a)
    with pytest.raises(AssertionError):
        wrong(x, b.Weights(made))
