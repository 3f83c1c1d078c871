"""Models that write no text, from Python: what transformers computed, with any company, and what is refused."""

import threading

import numpy as np
import pytest

import tenth
from tenth.errors import ModelFileError, RequestError
from tests.golden_files import DATA, nmse

EMBEDDERS = ["bert", "bert_first", "bert_quantised", "nomic_bert", "qwen3_embed"]
RERANKERS = ["bert_rerank", "qwen3_rerank"]


def open_golden(case, **settings):
    return tenth.load(DATA / f"golden_{case}.gguf", **({"kv": "f32"} | settings))


def recorded(case):
    kept = np.load(DATA / f"golden_{case}.npz")
    return kept["texts"].tolist(), kept["results"]


@pytest.mark.parametrize("case", EMBEDDERS)
def test_vectors_are_those_of_transformers(case):
    texts, expected = recorded(case)
    with open_golden(case) as model:
        found = model.embed(texts)
        raw = model.embed(texts, normalize=False)
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    assert nmse(found, expected) <= (1e-4 if case == "bert_quantised" else 1e-11)
    assert np.allclose((found.astype(np.float64) ** 2).sum(-1), 1, atol=1e-6)
    assert np.allclose(raw / np.sqrt((raw**2).sum(-1, keepdims=True)), found, atol=1e-6)


@pytest.mark.parametrize("case", RERANKERS)
def test_scores_are_those_of_transformers(case):
    pairs, expected = recorded(case)
    with open_golden(case) as model:
        found = [model.rerank(query, [document])[0] for query, document in pairs]
        together = model.rerank(pairs[0][0], [document for _, document in pairs])
    assert np.allclose(found, expected, atol=1e-6)
    assert together[:2].tolist() == found[:2]


@pytest.mark.parametrize("case", ["bert_first", "bert_quantised", "nomic_bert", "qwen3_embed"])
def test_company_threads_and_order_do_not_change_a_bit(case):
    rng = np.random.default_rng(5)
    texts = [" ".join(rng.choice(["the", "sky", "is", "blue", "cats", "sat", "?"], n)) for n in rng.integers(1, 60, 90)]
    with open_golden(case, threads=1, prefix_reuse=False) as model:
        alone = np.concatenate([model.embed(text) for text in texts])
    for settings in ({"threads": 2}, {"threads": 3, "max_sequences": 2}):
        with open_golden(case, **settings) as model:
            assert np.array_equal(model.embed(texts), alone)
            assert np.array_equal(model.embed(texts[::-1]), alone[::-1])


def test_chunks_and_known_beginnings_do_not_change_a_bit():
    texts = ["the same beginning of all of these " * 4 + end for end in ("one", "two", "three")]
    with open_golden("qwen3_embed", prefix_reuse=False) as model:
        alone = np.concatenate([model.embed(text) for text in texts])
    with open_golden("qwen3_embed", chunk_tokens=37) as model:
        assert np.array_equal(np.concatenate([model.embed(text) for text in texts]), alone)
        assert model.stats.n_cached_tokens > 32


def test_several_threads_may_ask_at_once():
    texts, _ = recorded("bert")
    with open_golden("bert") as model:
        expected, found = model.embed(texts), {}

        def ask(number):
            found[number] = model.embed(texts * 20)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert all(np.array_equal(found[n], np.tile(expected, (20, 1))) for n in range(4))


def test_token_ids_are_taken_as_they_are():
    with open_golden("bert") as model:
        assert np.array_equal(model.embed([model.tokenize("the sky")]), model.embed("the sky"))


def test_fewer_dimensions_have_length_one_too():
    with open_golden("bert") as model:
        whole, few = model.embed("the sky"), model.embed("the sky", dimensions=7)
        assert few.shape == (1, 7)
        assert np.allclose(few, whole[:, :7] / np.linalg.norm(whole[:, :7]), atol=1e-6)
        assert np.array_equal(model.embed("the sky", dimensions=64), whole)
        for wrong in (0, 65, True, 2.0):
            with pytest.raises(RequestError, match=r"dimensions is .*, expected 1 to 64"):
                model.embed("the sky", dimensions=wrong)


def test_a_model_that_pools_nothing_gives_a_vector_for_each_token():
    kept = np.load(DATA / "golden_bert_each.npz")
    with open_golden("bert_each") as model:
        found = model.embed_tokens(kept["texts"].tolist()[0])
        assert nmse(found, kept["vectors"]) <= 1e-11
        assert np.array_equal(model.embed_tokens(kept["tokens"].tolist()), found)
        with pytest.raises(RequestError, match="a vector for each token") as refused:
            model.embed("the sky")
        with pytest.raises(RequestError, match="a text is 5"):
            model.embed_tokens(5)
        assert "embed_tokens" in refused.value.hint
    with open_golden("bert") as model, pytest.raises(RequestError, match="one vector for a text"):
        model.embed_tokens("the sky")


LONG = "the sky is blue and " * 40  # 200 tokens; the encoders here read 128


def test_what_is_too_long_is_refused_or_cut_before_its_end_token():
    with open_golden("bert") as model:
        with pytest.raises(RequestError, match="has 202 tokens, the model reads at most 128"):
            model.embed(["the sky", LONG])
        ids = model.tokenize(LONG)
        cut = model.embed(LONG, truncate=True)
        assert np.array_equal(cut, model.embed([[*ids[:127], ids[-1]]]))
        assert np.array_equal(cut, model.embed(LONG * 100, truncate=True))
        with pytest.raises(RequestError, match="has more than 128 tokens"):
            model.embed(LONG * 100)
    with open_golden("bert", context=32) as model:
        assert np.array_equal(model.embed(LONG, truncate=True), model.embed([[*ids[:31], ids[-1]]]))


@pytest.mark.parametrize("case", RERANKERS)
def test_a_document_that_is_too_long_is_cut_or_refused(case):
    with open_golden(case, context=64) as model:
        prompts = model.prepare_pairs("why", [LONG, "the sky"])
        assert len(prompts[0]) in (63, 64)
        assert prompts[0][-1] == prompts[1][-1]  # what stands behind the document is still there
        with pytest.raises(RequestError, match="the model reads at most 64"):
            model.rerank("why", [LONG], truncate=False)
        with pytest.raises(RequestError, match="the question leaves no room"):
            model.rerank(LONG, ["the sky"])


@pytest.mark.parametrize(("case", "marks"), [("bert_rerank", "[SEP] [CLS]"), ("qwen3_rerank", "<|im_end|> {query}")])
def test_marks_inside_a_text_are_text(case, marks):
    with open_golden(case) as model:
        special = model.tokenizer.vocabulary.special
        control = {i for text, i in special.items() if text != "[UNK]"}
        plain, marked = (model.prepare_pairs(text, [text])[0] for text in ("the", f"the {marks}"))
        assert [i for i in plain if i in control] == [i for i in marked if i in control]


def test_what_a_model_is_not_for_it_refuses_naming_what_it_is_for():
    uses = {
        "generate": [lambda m: m.generate("a"), lambda m: m.chat([{"role": "user", "content": "a"}]),
                     lambda m: m.logits([1])],
        "embed": [lambda m: m.embed("a"), lambda m: m.embed_tokens("a")],
        "rerank": [lambda m: m.rerank("a", ["b"])],
    }  # fmt: skip
    words = {"generate": "writes text", "embed": "gives vectors", "rerank": "judges how well"}
    for case, task in (("bert", "embed"), ("bert_rerank", "rerank"), ("chat", "generate"), ("qwen3_embed", "embed")):
        with open_golden(case) as model:
            assert model.task == task
            for other in uses.keys() - {task}:
                for use in uses[other]:
                    with pytest.raises(RequestError, match=words[task]) as refused:
                        use(model)
                    assert words[other] in refused.value.hint


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize(("texts", "message"), [
    ([], "no texts"), (5, "no texts"), ([5], "a text is 5"), ([[]], "no tokens"), (["\ud800"], "lone surrogate"),
    (["a", [9999]], "9999 is not in the vocabulary"),
])  # fmt: skip
def test_what_is_no_text_is_refused(texts, message, truncate):
    with open_golden("bert") as model, pytest.raises(RequestError, match=message):
        model.embed(texts, truncate=truncate)


@pytest.mark.parametrize(("documents", "message"), [([], "no documents"), ("a", "no documents"), ([5], "is 5,")])
def test_what_is_no_document_is_refused(documents, message):
    with open_golden("bert_rerank") as model, pytest.raises(RequestError, match=message):
        model.rerank("why", documents)


def test_a_decoder_that_ranks_without_saying_how_is_refused(tmp_path):
    data = (DATA / "golden_qwen3_rerank.gguf").read_bytes()
    path = tmp_path / "unnamed.gguf"
    path.write_bytes(data.replace(b"tokenizer.chat_template.rerank", b"tokenizer.chat_template.ranker"))
    with tenth.load(path) as model, pytest.raises(ModelFileError, match="no template"):
        model.rerank("why", ["because"])
