"""What an answer was made of: the tokens spell it, their probabilities are those that the API tells."""

import math

import pytest

from tenth.server.chats import looking

from .. import moe
from ..running import Running
from .conftest import ask, ended, messages, new_chat


def tokens(running, message):
    return running.get(f"/api/chats/{message['chat_id']}/messages/{message['id']}/tokens").json()


def test_the_tokens_spell_the_answer_and_have_the_api_s_probabilities(real):
    chat = new_chat(real)
    _, answer = ask(real, chat, "Say hello in French, with an emoji.", settings={"max_tokens": 30, "temperature": 0})
    done = ended(real, answer)
    found = tokens(real, done)
    assert "".join(token["text"] for token in found["tokens"]).strip() == done["content"].strip() != ""
    assert found["experts"] is None
    same = real.post("/v1/chat/completions", {
        "model": "small", "temperature": 0, "max_tokens": 30, "logprobs": True, "top_logprobs": 5,
        "messages": [{"role": "user", "content": "Say hello in French, with an emoji."}]}).json()
    for token, other in zip(found["tokens"], same["choices"][0]["logprobs"]["content"], strict=True):
        assert token["logprob"] == pytest.approx(other["logprob"], abs=2e-4)
        assert [one["text"] for one in token["top"]] == [one["token"] for one in other["top_logprobs"]]
        assert sum(math.exp(one["logprob"]) for one in token["top"]) <= 1.001
        assert {"id", "kind"} < set(token)


def test_what_was_gone_on_with_has_the_tokens_of_both_parts(desk):
    chat = new_chat(desk)
    _, answer = ask(desk, chat, settings={"max_tokens": 10, "temperature": 0})
    ended(desk, answer)
    assert len(tokens(desk, answer)["tokens"]) == 10
    desk.post(f"/api/chats/{chat['id']}/messages/{answer['id']}/continue", {})
    done = ended(desk, answer)
    n_told = done["usage"]["completion_tokens"] - (done["finish_reason"] == "stop")  # the token that stops has no text
    assert len(tokens(desk, answer)["tokens"]) == n_told > 10
    question = next(one for one in messages(desk, chat).values() if one["role"] == "user")
    assert tokens(desk, question) == {"tokens": [], "experts": None}
    assert desk.get(f"/api/chats/{chat['id']}/messages/msg_no/tokens").status_code == 404


def test_what_was_said_before_and_is_not_known_any_more_counts_as_one_token(desk):
    chat = new_chat(desk)
    _, answer = ask(desk, chat, settings={"max_tokens": 10, "temperature": 0})
    ended(desk, answer)
    path = f"/api/chats/{chat['id']}/messages/{answer['id']}"
    before = desk.http.patch(path, json={"content": "My own words"}).json()
    assert tokens(desk, answer)["tokens"] == []  # they were another text's
    desk.post(f"{path}/continue", {})
    done = ended(desk, answer)
    first, *rest = tokens(desk, answer)["tokens"]
    assert first == {"id": -1, "text": before["content"], "logprob": None, "kind": "content", "top": []}
    text = "".join(token["text"] for token in [first, *rest])
    assert text.replace("\0", "\ufffd") == done["content"].replace("\0", "\ufffd")  # PostgreSQL's texts hold no NUL
    other = desk.post(f"{path}/regenerate", {"settings": {"max_tokens": 4}})
    assert ended(desk, other.json()["answer"])["status"] == "done"
    assert 0 < len(tokens(desk, other.json()["answer"])["tokens"]) <= 4  # each branch has its own
    assert len(tokens(desk, answer)["tokens"]) == 1 + len(rest)


def test_only_the_last_answers_are_kept(desk, monkeypatch):
    monkeypatch.setattr(looking, "MOST_KEPT", 2)
    chat = new_chat(desk)
    answers = [ask(desk, chat, f"n {n}")[1] for n in range(4)]
    for answer in answers:
        ended(desk, answer)
    kept = [bool(tokens(desk, answer)["tokens"]) for answer in answers]
    assert kept.count(True) == 2


def test_experts_of_a_model_that_has_some(tmp_path):
    with Running({"moe": moe.write(tmp_path / "moe.gguf")}, tmp_path) as running:
        chat = new_chat(running)
        _, answer = ask(running, chat, settings={"max_tokens": 7})
        done = ended(running, answer)
        assert done["status"] == "done", done
        found = tokens(running, done)
        experts, n = found["experts"], done["usage"]["completion_tokens"]
        assert (experts["n_layers"], len(experts["counts"])) == (2, 2)
        assert all(sum(layer) == 3 * n for layer in experts["counts"])
