"""embed and rerank: lines in, vectors or scores out, with real tiny models."""

import json

import numpy as np
import pytest

import tenth as package
from tests.golden_files import DATA

EMBEDDER, RERANKER, WRITER = (str(DATA / f"golden_{name}.gguf") for name in ("bert", "bert_rerank", "chat"))
LINES = "Why is the sky blue?\n\nThe cat sat on the mat.\r\n"
TEXTS = ["Why is the sky blue?", "The cat sat on the mat.\r"]


def test_a_line_gives_a_vector(tenth):
    with package.load(EMBEDDER) as model:
        expected = model.embed(TEXTS)
    found = [json.loads(line) for line in tenth("embed", EMBEDDER, stdin=LINES).out.splitlines()]
    assert np.array_equal(np.array(found, np.float32), expected)
    few = json.loads(tenth("embed", EMBEDDER, "--json", "--dimensions", "5", stdin=LINES).out)
    assert np.array(few["embeddings"]).shape == (2, 5)
    assert set(few) == {"model", "embeddings", "usage"}
    assert few["usage"]["prompt_tokens"] > 10


def test_lines_are_sorted_by_their_scores(tenth):
    documents = ["the cat sat", "light of the sky", "blue"]
    with package.load(RERANKER) as model:
        scores = model.rerank("why is the sky blue", documents)
    best = sorted(zip(scores.tolist(), documents, strict=True), reverse=True)
    lines = tenth("rerank", RERANKER, "why is the sky blue", stdin="\n".join(documents)).out.splitlines()
    assert lines == [f"{score:.6f}  {text}" for score, text in best]
    found = json.loads(tenth("rerank", RERANKER, "why is the sky blue", "--json", "--top", "1",
                             stdin="\n".join(documents)).out)
    assert found["results"] == [{"index": documents.index(best[0][1]), "relevance_score": best[0][0],
                                 "document": best[0][1]}]


@pytest.mark.parametrize(("args", "stdin", "message"), [
    (("embed", EMBEDDER), "\n \n", "there are no lines on standard input"),
    (("embed", EMBEDDER), "the sky is blue and " * 40, "the model reads at most 128"),
    (("embed", EMBEDDER, "--dimensions", "99"), "a", "dimensions is 99, expected 1 to 64"),
    (("embed", WRITER), "a", "writes text, it gives no vectors"),
    (("embed", RERANKER), "a", "it gives no vectors"),
    (("rerank", EMBEDDER, "why"), "a", "it judges no documents"),
    (("run", EMBEDDER, "hello"), "", "it writes no text"),
])  # fmt: skip
def test_what_cannot_be_is_one_line_with_a_hint(tenth, args, stdin, message):
    result = tenth(*args, stdin=stdin)
    assert result.code == 2
    assert message in result.err
    assert "hint:" in result.err
    assert result.out == ""


def test_long_lines_are_cut_when_that_is_asked_for(tenth):
    assert tenth("embed", EMBEDDER, "--truncate", stdin="the sky is blue and " * 40).code == 0
