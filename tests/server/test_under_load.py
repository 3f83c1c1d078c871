"""A real model under several clients: cancelling in every phase, fairness, resuming, stopping, idle models."""

import asyncio
import gc
import logging
import threading
import time

import httpx2
import pytest

import tenth
from tenth.errors import ResourceError
from tenth.loader import ALWAYS_STREAM
from tenth.server import app, streams
from tenth.server.admission import Need
from tenth.server.keys import Keys
from tenth.server.state import State
from tenth.weights.budget import GRANTS

from . import moe
from .running import TINY, Held, Running, events, wait_until

TEXT = "The quick brown fox jumps over the lazy dog while the sun sets slowly behind the old stone bridge. "


def body(model="small", content="Count to a thousand.", **fields):
    return {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0.0,
            "ignore_eos": True, **fields}


def idle(running):
    gate = running.gate()
    return gate.n_at_work == gate.n_waiting == 0 and not running.app.service.answers


def n_sequences(running):
    return len(running.served.model._engine._loop.scheduler)


@pytest.mark.model
def test_a_client_that_goes_while_tokens_come_frees_everything(real):
    for stream in (True, False):
        client = httpx2.Client(base_url=real.url, timeout=60, trust_env=False)
        if stream:
            with client.stream("POST", "/v1/chat/completions", json=body(max_tokens=4000, stream=True)) as answer:
                lines = answer.iter_lines()
                for _ in range(12):
                    next(lines)
        else:
            with pytest.raises(httpx2.ReadTimeout):
                client.post("/v1/chat/completions", json=body(max_tokens=4000), timeout=1.0)
        client.close()
        took_s = wait_until(lambda: idle(real) and not n_sequences(real))
        print(f"gone while generating (stream={stream}): free after {took_s:.3f} s")


def asks(running, **fields):
    """A task that asks for an answer, and can be left."""
    return asyncio.create_task(_ask(running, body(**fields)))


async def _ask(running, asked):
    async with httpx2.AsyncClient(base_url=running.url, timeout=120, trust_env=False) as client:
        return await client.post("/v1/chat/completions", json=asked)


async def leave(task):
    """The client goes away."""
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.model
def test_a_client_that_goes_during_its_prompt_keeps_the_finished_part(real):
    prompt = {"content": TEXT * 50, "max_tokens": 2}

    async def play(held):
        asking = asks(real, **prompt)
        await asyncio.to_thread(held.wait)
        await leave(asking)

    with Held(real.opened(), after=2) as held:
        asyncio.run(play(held))
        wait_until(lambda: idle(real))
    wait_until(lambda: not n_sequences(real))
    usage = real.post("/v1/chat/completions", body(**prompt)).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 256


@pytest.mark.model
def test_a_client_that_goes_while_it_waits_is_dropped_and_the_queue_goes_on(real):
    async def until(happens):
        await asyncio.to_thread(wait_until, happens)

    async def play(held):
        busy = [asks(real, max_tokens=20) for _ in range(4)]
        await until(lambda: real.gate().n_at_work == 4)
        leaver, stayer = asks(real, max_tokens=20), asks(real, max_tokens=5)
        await until(lambda: real.gate().n_waiting == 2)
        await leave(leaver)
        await until(lambda: real.gate().n_waiting == 1)
        held.go.set()
        answers = await asyncio.gather(*busy, stayer)
        assert [answer.status_code for answer in answers] == [200] * 5

    with Held(real.opened()) as held:
        asyncio.run(play(held))
    wait_until(lambda: idle(real))


@pytest.mark.model
def test_a_long_prompt_does_not_stop_other_answers(real):
    """Each step of a prompt also gives another answer its token."""
    other = threading.Thread(target=lambda: real.post("/v1/chat/completions", body(
        content="Now another. " + TEXT * 40, max_tokens=1)))
    with httpx2.Client(base_url=real.url, timeout=60, trust_env=False) as client, Held(
            real.opened(), after=10) as held, client.stream(
            "POST", "/v1/chat/completions", json=body(max_tokens=200, stream=True)) as answer:
        held.wait()
        other.start()
        wait_until(lambda: real.gate().n_at_work == 2)
        held.go.set()
        assert answer.read().rstrip().endswith(b"[DONE]")
        other.join(60)
    of_the_prompt = [step for step in held.steps[10:] if len(step.tokens) > 64]
    assert len(of_the_prompt) >= 4
    assert {len(step.row_starts) - 1 for step in of_the_prompt} == {2}
    wait_until(lambda: idle(real))


def test_a_full_queue_is_a_429_before_the_first_byte(tmp_path):
    with Running({"tiny": TINY}, tmp_path, {"max_sequences": 1}, waiting=2) as running:
        running.chat(max_tokens=1)
        gate = running.gate()
        tickets = [gate.enter("local", Need(1, 1)) for _ in range(3)]  # one at work, two waiting
        answer = running.chat(stream=True, max_tokens=1)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        for ticket in tickets:
            running.server.servers[0].get_loop().call_soon_threadsafe(gate.leave, ticket)


def test_a_resumable_stream_goes_on_without_its_reader(server):
    whole = server.chat(max_tokens=40, temperature=0.0, ignore_eos=True).json()["choices"][0]["message"]["content"]
    headers = {"x-tenth-resumable": "1"}
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.0, "max_tokens": 40,
             "ignore_eos": True, "stream": True}
    with httpx2.Client(base_url=server.url, trust_env=False) as client, client.stream(
            "POST", "/v1/chat/completions", json=asked, headers=headers) as answer:
        id = answer.headers["x-tenth-stream"]
        first = []
        for line in answer.iter_lines():
            first.append(line)
            if len([line for line in first if line.startswith("data")]) == 3:
                break
    last = [line for line in first if line.startswith("id: ")][-1].removeprefix("id: ")
    rest = server.get(f"/v1/streams/{id}", headers={"last-event-id": last}).text
    assert rest.rstrip().endswith("[DONE]")
    found = events("\n".join(first) + "\n\n" + rest)
    text = "".join(value["choices"][0]["delta"].get("content", "") for _, value in found if value != "[DONE]")
    assert text == whole
    assert events(server.get(f"/v1/streams/{id}").text)[-1] == (None, "[DONE]")
    for wrong in ("x", f"{id}:100000", f"{id}:-1"):
        assert server.get(f"/v1/streams/{id}", headers={"last-event-id": wrong}).status_code == 400
    assert server.get("/v1/streams/stream_0").status_code == 404


def test_a_resumable_stream_that_nobody_reads_is_forgotten(server, monkeypatch):
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "stream": True}
    answer = server.post("/v1/chat/completions", asked, headers={"x-tenth-resumable": "1"})
    id = answer.headers["x-tenth-stream"]
    assert server.get(f"/v1/streams/{id}").status_code == 200
    monkeypatch.setattr(streams, "KEPT_S", 0.0)
    time.sleep(0.01)
    assert server.get(f"/v1/streams/{id}").status_code == 404


def test_one_caller_keeps_only_so_many_streams(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "MOST_OF_ONE", 2)
    state = State(tmp_path / "state.db")
    keys = [Keys(state).new(name, ("infer",)) for name in ("one", "two")]
    state.close()
    with Running({"tiny": TINY}, tmp_path) as running:
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "stream": True}
        found = [running.post("/v1/chat/completions", asked, headers={"x-tenth-resumable": "1", "x-api-key": keys[i]})
                 for i in (0, 0, 0, 1)]
        assert [answer.status_code for answer in found] == [200, 200, 429, 200]
        assert int(found[2].headers["retry-after"]) >= 1
        wait_until(lambda: idle(running))


@pytest.mark.model
def test_stopping_lets_answers_finish_within_the_grace_and_fails_the_rest(real, tmp_path):
    source = real.app.shelf.models["small"].source
    for grace, expected in ((20.0, "length"), (0.1, "shutting down")):
        with Running({"small": source}, tmp_path, {"max_sequences": 1}, grace=grace) as running:
            running.post("/v1/chat/completions", body(max_tokens=1))
            said = {}

            def ask(name, n_tokens, running=running, said=said):
                said[name] = httpx2.post(running.url + "/v1/chat/completions", trust_env=False, timeout=60,
                                         json=body(max_tokens=n_tokens, stream=True))

            first = threading.Thread(target=ask, args=("running", 60 if grace > 1 else 4000))
            first.start()
            wait_until(lambda running=running: running.gate().n_at_work == 1)
            second = threading.Thread(target=ask, args=("waiting", 5))
            second.start()
            wait_until(lambda running=running: running.gate().n_waiting == 1)
            running.server.should_exit = True
            first.join(30)
            second.join(30)
            assert expected in said["running"].text
            assert "shutting down" in said["waiting"].text


def test_models_open_on_demand_close_when_idle_and_make_room_for_each_other(tmp_path):
    with Running({"one": TINY, "two": TINY}, tmp_path, idle_unload=0.4) as running:
        two = running.app.shelf.models["two"]
        assert [row["loaded"] for row in running.get("/v1/models").json()["data"]] == [False, False]
        two.n_users += 1  # somebody is at work with it
        assert running.chat("two", max_tokens=1).status_code == 200
        assert [row["loaded"] for row in running.get("/v1/models").json()["data"]] == [False, True]
        assert len(running.loads) == 1
        two.n_users -= 1
        wait_until(lambda: two.model is None)
        assert running.chat("two", max_tokens=1).status_code == 200
        assert len(running.loads) == 2
        load, left = running.app.shelf._load, [1]

        def short_of_memory(source):
            if left and running.app.shelf.models["two"].model is not None:
                left.pop()
                raise ResourceError("this model needs more memory than there is")
            return load(source)

        running.app.shelf._load = short_of_memory
        assert running.chat("one", max_tokens=1).status_code == 200
        assert running.app.shelf.models["two"].model is None


def test_models_of_the_library_are_listed_before_anybody_has_named_one(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(app, "ready_models", lambda: names)
    with Running({}, tmp_path) as running:
        running.app.shelf._load = lambda source: running.load(TINY)
        assert running.post("/tokenize", {"content": "Hi"}).status_code == 409
        for name in ("one", "two"):
            names.append(name)
            assert running.post("/tokenize", {"content": "Hi"}).status_code == (200 if name == "one" else 400)
            assert [row["id"] for row in running.get("/v1/models").json()["data"]] == names
            assert [row["name"] for row in running.get("/api/tags").json()["models"]] == names
        said = running.post("/api/generate", {"model": "two:latest", "prompt": "Hi", "stream": False,
                                              "options": {"num_predict": 1}})
        assert said.json()["done"] is True


def test_models_share_one_budget_of_memory(tmp_path):
    """The keys and values of each are granted, though nobody has touched them yet."""
    with tenth.load(TINY):  # whatever loading the first model brings into this process
        pass
    gc.collect()  # nor what tests before it have left
    engine = {"kv_tokens": 1 << 21}  # 537 MB, of which nothing is used: much more than Python's memory changes by
    with tenth.load(TINY, **engine) as model:
        kv_bytes = model.memory()["kv_bytes"]
    memory = GRANTS.own_bytes() + int(1.5 * kv_bytes)
    with Running({"one": TINY, "two": TINY}, tmp_path, {**engine, "memory": memory}) as running:
        models = running.app.shelf.models
        for name, other in (("one", "two"), ("two", "one"), ("one", "two")):
            assert running.chat(name, max_tokens=1).status_code == 200
            assert (models[name].model is not None, models[other].model) == (True, None)
        assert len(running.loads) == 5  # the second and third found no room at first, and the other was closed
        before = running.app.shelf.models["one"].n_users
        running.app.shelf.models["one"].n_users = before + 1  # somebody is at work with it
        answer = running.chat("two", max_tokens=1)
        running.app.shelf.models["one"].n_users = before
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        assert models["one"].model is not None


def test_a_model_that_cannot_be_loaded_is_a_503_without_its_path(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(TINY.read_bytes()[:1000])
    with Running({"broken": broken}, tmp_path) as running:
        answer = running.chat("broken", max_tokens=1)
        assert answer.status_code == 503
        assert str(tmp_path) not in answer.text


def test_metrics_tell_times_tokens_and_memory(server):
    server.chat(max_tokens=20, ignore_eos=True)
    text = server.get("/metrics").text
    for name in ("tenth_time_to_first_token_seconds_bucket", "tenth_inter_token_seconds_count",
                 'tenth_generated_tokens_total{model="tiny"}', 'tenth_queue_waiting{model="tiny"} 0.0',
                 'tenth_memory_bytes{kind="weights",model="tiny"}', 'route="/v1/chat/completions",status="200"'):
        assert name in text, name


def test_metrics_tell_of_the_cache_and_of_experts_that_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv(ALWAYS_STREAM, "1")
    file = moe.write(tmp_path / "moe.gguf")
    with Running({"experts": file}, tmp_path) as running:
        for _ in range(2):
            assert running.chat("experts", content="a" * 80, max_tokens=8).status_code == 200
        told = {line.split()[0]: float(line.split()[1]) for line in running.get("/metrics").text.splitlines()
                if not line.startswith("#")}
        assert 0 < told['tenth_expert_hit_rate{model="experts"}'] <= 1  # all, where reading ahead was in time
        assert 0.3 < told['tenth_prefix_hit_rate{model="experts"}'] < 0.5  # all but the end of the second prompt
        assert told['tenth_cached_prompt_tokens_total{model="experts"}'] >= 64


def test_the_docs_page_loads_nothing_from_elsewhere(server):
    page = server.get("/docs")
    assert "/v1/chat/completions" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not any(mark in page.text for mark in ("http://", "https://", "<script", "src="))


@pytest.fixture
def log(caplog, monkeypatch):
    """What the server logs, as text."""
    logger = logging.getLogger("tenth.server")
    monkeypatch.setattr(logger, "propagate", True)
    level = logger.level
    with caplog.at_level("DEBUG"):
        logger.setLevel("DEBUG")
        yield lambda: " ".join(str(record.__dict__) for record in caplog.records)
        logger.setLevel(level)


SECRET = "nobody may read this"


def test_logs_have_no_prompt_text(server, log):
    server.chat(content=SECRET, max_tokens=1)
    server.chat(content=SECRET, nonsense=SECRET)
    server.chat(content=SECRET, reasoning_effort=SECRET)
    wait_until(lambda: log().count("/v1/chat/completions") >= 3)
    assert SECRET not in log()


def test_logs_have_the_text_where_that_is_asked_for(tmp_path, log):
    with Running({"tiny": TINY}, tmp_path, log_text=True) as running:
        logging.getLogger("tenth.server").setLevel("INFO")
        said = running.chat(content=SECRET, max_tokens=12).json()
        assert SECRET in log()
        assert repr(said["choices"][0]["message"]["content"]) in log()
        assert log().count(said["id"]) == 2
