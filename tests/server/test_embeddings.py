"""Vectors and scores over HTTP: the official clients, every field, turns among callers, and what is refused."""

import asyncio
import base64
import json
import socket
import threading

import numpy as np
import ollama
import openai
import pytest
from openai.types import embedding_create_params

import tenth
from tenth.server.dialects.openai_embeddings import EmbeddingRequest
from tests.golden_files import nmse

from .running import DATA, TINY, Held, Running, wait_until

NAMES = ["bert", "bert_each", "bert_rerank", "qwen3_embed", "qwen3_rerank"]
TEXTS = ["Why is the sky blue?", "The cat sat on the mat."]
LONG = "the sky is blue and " * 40


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = {"tiny": TINY, **{name: DATA / f"golden_{name}.gguf" for name in NAMES}}
    with Running(models, tmp_path_factory.mktemp("state"), {"kv_format": "f32"}) as running:
        yield running


@pytest.fixture(scope="module")
def bert():
    with tenth.load(DATA / "golden_bert.gguf") as model:
        yield model


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def recorded(name):
    kept = np.load(DATA / f"golden_{name}.npz")
    return kept["texts"].tolist(), kept["results"]


# ---- OpenAI's


@pytest.mark.parametrize("name", ["bert", "qwen3_embed"])
def test_the_official_client_gets_what_transformers_computed(client, name):
    texts, expected = recorded(name)
    said = client.embeddings.create(model=name, input=texts)  # asks for base64 and decodes it
    found = np.array([row.embedding for row in said.data])
    assert nmse(found, expected) <= 1e-11
    assert [row.index for row in said.data] == [0, 1, 2, 3]
    assert (said.model, said.object, said.data[0].object) == (name, "list", "embedding")
    numbers = client.embeddings.create(model=name, input=texts, encoding_format="float")
    assert np.array_equal(np.array([row.embedding for row in numbers.data]), found)


def test_one_text_a_list_and_token_ids_are_taken(client, bert):
    expected = bert.embed(TEXTS)
    ids = [bert.tokenize(text) for text in TEXTS]
    for given, rows in ((TEXTS[0], expected[:1]), (TEXTS, expected), (ids[0], expected[:1]), (ids, expected)):
        said = client.embeddings.create(model="bert", input=given)
        assert np.array_equal(np.array([row.embedding for row in said.data], np.float32), rows)
        n_tokens = sum(map(len, ids[: len(rows)]))
        assert (said.usage.prompt_tokens, said.usage.total_tokens) == (n_tokens, n_tokens)


def test_base64_is_float32_in_little_endian(server, bert):
    body = {"model": "bert", "input": TEXTS, "encoding_format": "base64", "dimensions": 12}
    rows = server.post("/v1/embeddings", body).json()["data"]
    found = np.array([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows])
    assert np.array_equal(found, bert.embed(TEXTS, dimensions=12))


def test_the_async_client_has_several_requests_at_work(server, bert):
    async def ask():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(client.embeddings.create(model="bert", input=TEXTS * 30) for _ in range(12)))

    expected = np.tile(bert.embed(TEXTS), (30, 1))
    for said in asyncio.run(ask()):
        assert np.array_equal(np.array([row.embedding for row in said.data], np.float32), expected)


def test_every_field_of_the_official_schema_is_known():
    assert set(embedding_create_params.EmbeddingCreateParams.__annotations__) == set(EmbeddingRequest.model_fields)


@pytest.mark.parametrize(("changes", "message"), [
    ({"input": []}, "0 texts, expected 1 to 2048"), ({"input": ["a"] * 2049}, "2049 texts"),
    ({"input": LONG}, "has 202 tokens, the model reads at most 128"), ({"input": [[1, 9999]]}, "9999 is not in the"),
    ({"input": [[]]}, "no tokens"), ({"input": [1.5]}, "input"), ({"input": None}, "input"),
    ({"dimensions": 65}, "dimensions is 65, expected 1 to 64"), ({"dimensions": 0}, "dimensions"),
    ({"encoding_format": "int8"}, "encoding_format"), ({"surprise": 1}, "no field 'surprise'"),
    ({"model": "tiny"}, "writes text, it gives no vectors"), ({"model": "bert_rerank"}, "it gives no vectors"),
    ({"model": "bert_each"}, "a vector for each token"),
])  # fmt: skip
def test_what_cannot_be_embedded_is_a_400(server, changes, message):
    answer = server.post("/v1/embeddings", {"model": "bert", "input": "a"} | changes)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("name", ["bert", "bert_rerank", "qwen3_embed"])
def test_a_chat_with_a_model_that_writes_no_text_is_a_400(server, name):
    hi = [{"role": "user", "content": "hi"}]
    for path, body in (("/v1/chat/completions", {"messages": hi}), ("/v1/completions", {"prompt": "hi"}),
                       ("/v1/responses", {"input": "hi"}), ("/v1/messages", {"messages": hi, "max_tokens": 5}),
                       ("/api/chat", {"messages": hi}), ("/api/generate", {"prompt": "hi"})):  # fmt: skip
        answer = server.post(path, {"model": name} | body)
        assert answer.status_code == 400, path
        assert "it writes no text" in answer.text


def test_models_say_what_they_are_for(server, client):
    for name, task, capability in (("bert", "embed", "embedding"), ("bert_rerank", "rerank", "rerank"),
                                   ("tiny", "generate", "completion")):
        assert server.post("/api/show", {"model": name}).json()["capabilities"] == [capability]
        assert client.models.retrieve(name).model_extra["meta"]["task"] == task
    assert {model.id for model in client.models.list()} == {"tiny", *NAMES}


def test_a_batch_of_embeddings(server, client, bert):
    lines = [{"custom_id": str(i), "method": "POST", "url": "/v1/embeddings", "body": {"model": "bert", "input": text}}
             for i, text in enumerate([*TEXTS, LONG])]
    file = client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed")
    batch = client.batches.retrieve(batch.id)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 1)
    said = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    rows = {line["custom_id"]: line["response"]["body"]["data"][0]["embedding"] for line in said}
    assert np.array_equal(np.array([rows["0"], rows["1"]], np.float32), bert.embed(TEXTS))


# ---- Ollama's


@pytest.fixture(scope="module")
def llama(server):
    with ollama.Client(server.url) as client:
        yield client


def test_ollamas_client_embeds_one_text_and_several(llama, bert):
    expected = bert.embed(TEXTS)
    for given, rows in ((TEXTS[0], expected[:1]), (TEXTS, expected)):
        said = llama.embed(model="bert", input=given)
        assert np.array_equal(np.array(said.embeddings, np.float32), rows)
        assert said.prompt_eval_count == sum(len(bert.tokenize(text)) for text in TEXTS[: len(rows)])
        assert said.total_duration > 0
    few = llama.embed(model="bert:latest", input=TEXTS, dimensions=8, truncate=True, options={"num_ctx": None})
    assert np.array_equal(np.array(few.embeddings, np.float32), bert.embed(TEXTS, dimensions=8))


def test_texts_that_are_too_long_are_cut_unless_that_is_refused(llama, bert):
    said = llama.embed(model="bert", input=LONG)
    assert np.array_equal(np.array(said.embeddings, np.float32), bert.embed(LONG, truncate=True))
    assert said.prompt_eval_count == 128
    with pytest.raises(ollama.ResponseError, match="reads at most 128"):
        llama.embed(model="bert", input=LONG, truncate=False)


def test_the_older_route_gives_what_the_model_computed(llama, bert):
    said = llama.embeddings(model="bert", prompt=TEXTS[0])
    assert np.array_equal(np.array(said.embedding, np.float32), bert.embed(TEXTS[0], normalize=False)[0])


@pytest.mark.parametrize(("changes", "message"), [
    ({"options": {"temperature": 1.0}}, "temperature is not supported: no tokens are chosen here"),
    ({"options": {"num_ctx": 512}}, "num_ctx is not supported: it is a setting of tenth serve"),
    ({"keep_alive": [5]}, "keep_alive"), ({"input": ["a"] * 2049}, "2049 texts"), ({"input": []}, "no texts"),
    ({"model": "tiny"}, "gives no vectors"), ({"dimensions": 99}, "dimensions is 99"),
])  # fmt: skip
def test_what_ollamas_route_refuses(server, changes, message):
    answer = server.post("/api/embed", {"model": "bert", "input": "a"} | changes)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


# ---- reranking


@pytest.mark.parametrize("name", ["bert_rerank", "qwen3_rerank"])
def test_scores_come_best_first(server, name):
    with tenth.load(DATA / f"golden_{name}.gguf", kv="f32") as model:
        documents = ["the cat sat", "light of the sky", "blue", "the cat sat"]
        expected = model.rerank("why is the sky blue", documents)
        n_tokens = sum(map(len, model.prepare_pairs("why is the sky blue", documents)))
    body = {"model": name, "query": "why is the sky blue", "documents": documents}
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        said = server.post(path, body).json()
        assert [row["index"] for row in said["results"]] == sorted(range(4), key=lambda i: (-expected[i], i))
        assert [row["relevance_score"] for row in said["results"]] == sorted(expected, reverse=True)
        assert said["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        assert (said["model"], said["object"], "document" in said["results"][0]) == (name, "list", False)
    few = server.post("/v1/rerank", body | {"top_n": 2, "return_documents": True,
                                            "documents": [{"text": text} for text in documents]}).json()  # fmt: skip
    assert [row["document"]["text"] for row in few["results"]] == [documents[r["index"]] for r in said["results"][:2]]


def test_documents_are_cut_as_asked(server):
    body = {"model": "bert_rerank", "query": "why", "documents": [LONG]}
    assert server.post("/v1/rerank", body).json()["usage"]["total_tokens"] <= 128
    few = server.post("/v1/rerank", body | {"max_tokens_per_doc": 5}).json()["usage"]["total_tokens"]
    assert few == 4 + 5  # [CLS] why [SEP] and [SEP] beside the document
    refused = server.post("/v1/rerank", body | {"truncation": False})
    assert (refused.status_code, "reads at most 128" in refused.text) == (400, True)


@pytest.mark.parametrize(("changes", "message"), [
    ({"documents": []}, "documents"), ({"query": ""}, "query"), ({"top_n": 0}, "top_n"), ({"priority": 3}, "priority"),
    ({"max_chunks_per_doc": 10}, "max_chunks_per_doc is not supported"), ({"return_embeddings": True}, "return_embed"),
    ({"documents": ["a"] * 2049}, "documents"), ({"documents": [{"title": "a"}]}, "documents"),
    ({"model": "bert"}, "it judges no documents"), ({"model": None}, "the model has to be named"),
    ({"query": LONG}, "leaves no room"),
])  # fmt: skip
def test_what_cannot_be_ranked_is_a_400(server, changes, message):
    answer = server.post("/v1/rerank", {"model": "bert_rerank", "query": "a", "documents": ["b"]} | changes)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


# ---- several at a time


def test_a_request_of_thousands_of_texts_keeps_others_waiting_for_little_of_it(server):
    many = {"model": "bert_rerank", "query": "why", "documents": ["the cat sat " * 20] * 700}
    few = many | {"documents": ["blue"]}
    server.post("/v1/rerank", few)  # opens the model
    model = server.app.shelf.models["bert_rerank"].model
    (blue,) = set(model.prepare_pairs("why", ["blue"])[0]) - set(model.prepare_pairs("why", many["documents"][:1])[0])
    answers = []

    def ask(body):
        answers.append(server.post("/v1/rerank", body, timeout=120).status_code)

    threads = [threading.Thread(target=ask, args=(body,)) for body in (many, few)]
    with Held(model, after=1) as held:
        threads[0].start()
        held.wait()
        threads[1].start()
        wait_until(lambda: len(server.app.service.readings) == 2)
        held.go.set()
        for thread in threads:
            thread.join(120)
    assert answers == [200, 200]
    (at,) = [number for number, step in enumerate(held.steps) if blue in step.tokens]
    assert at * 10 < len(held.steps), "the small request waited for much of the large one"


def test_who_goes_away_is_read_no_further(server):
    body = {"model": "bert_rerank", "query": "why", "documents": ["the cat sat " * 30] * 2048}
    server.post("/v1/rerank", body | {"documents": ["a"]})  # opens the model
    served = server.app.shelf.models["bert_rerank"]
    data, before = json.dumps(body).encode(), served.model.stats.n_requests
    head = (f"POST /v1/rerank HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head.encode() + data)
        wait_until(lambda: served.model.stats.n_requests > before)
    wait_until(lambda: served.gate.n_at_work == 0)
    assert served.model.stats.n_requests - before < 2048


def test_metrics_count_texts(server):
    server.post("/v1/embeddings", {"model": "bert", "input": ["a", "b", "c"]})
    page = server.get("/metrics").text
    assert 'tenth_read_texts_total{model="bert"}' in page


def test_shutting_down_ends_readers_cleanly(tmp_path):
    with Running({"rank": DATA / "golden_bert_rerank.gguf"}, tmp_path, grace=0.0) as running:
        running.post("/v1/rerank", {"query": "a", "documents": ["b"]})
        answers = []

        def ask():
            body = {"query": "why", "documents": ["the cat sat " * 30] * 2048}
            answers.append(running.post("/v1/rerank", body, timeout=60))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: running.served.gate.n_at_work == 1)
        running.server.should_exit = True
        thread.join(30)
        assert [answer.status_code for answer in answers] == [503]
