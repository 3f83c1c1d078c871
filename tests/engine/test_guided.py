"""Answers that have to match a grammar, from end to end on the tiny chat model, whose own words mean nothing."""

import json
import re

import pytest

import tenth
from tenth.engine.engine import Engine

from .test_thinking import ABLE, FILE, GREEDY, OPENING, QUESTION, TURN, ids_of, scripted  # noqa: F401

PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 6}, "on": {"type": "boolean"},
          "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 2}},
          "required": ["name", "on", "tags"], "additionalProperties": False}  # fmt: skip
SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
CODE = {"type": "regex", "regex": "[a-z]{3}-[0-9]{4}"}


@pytest.fixture(scope="module")
def model():
    with tenth.load(FILE, template=TURN, threads=2) as opened:
        yield opened


def is_person(text):
    value = json.loads(text)
    return (list(value) == ["name", "on", "tags"] and len(value["name"]) <= 6 and type(value["on"]) is bool
            and set(value["tags"]) <= {"red", "green"})  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_matches_and_ends_where_nothing_can_follow(model, seed):
    stream = model.chat(QUESTION, response_format=SCHEMA, seed=seed, temperature=2.0, max_tokens=300)
    assert is_person(stream.text)
    assert stream.finish_reason == "stop"
    assert stream.usage.completion_tokens == len(stream.logprobs)  # no end token was needed
    stream = model.generate("x", grammar=tenth.Grammar.regex(CODE["regex"]), seed=seed)
    assert re.fullmatch(CODE["regex"], stream.text)


def test_an_end_token_is_chosen_only_where_the_grammar_accepts(model):
    texts = {model.generate("x", grammar=tenth.Grammar.regex("(ab)+"), seed=seed, temperature=9.0, max_tokens=40)
             for seed in range(20)}  # fmt: skip
    ends = [stream for stream in texts if stream.finish_reason == "stop"]
    assert ends
    for stream in texts:
        assert re.fullmatch("(ab)+", stream.text) or (stream.finish_reason == "length" and stream not in ends)


def test_the_same_seed_gives_the_same_answer_alone_in_company_drafted_or_not(model):
    def ask(seed, response_format):
        return model.chat(QUESTION, response_format=response_format, seed=seed, temperature=1.5, max_tokens=60)

    formats = [SCHEMA, CODE, None, {"type": "json_object"}]
    alone = [ask(seed, formats[seed % 4]).text for seed in range(8)]
    company = [ask(seed, formats[seed % 4]) for seed in range(8)]
    assert [stream.text for stream in company] == alone
    model.speculate = False
    try:
        assert [ask(seed, formats[seed % 4]).text for seed in range(8)] == alone
    finally:
        model.speculate = True
    with tenth.load(FILE, template=TURN, threads=1, chunk_tokens=16) as other:
        assert [other.chat(QUESTION, response_format=formats[seed % 4], seed=seed, temperature=1.5, max_tokens=60).text
                for seed in range(8)] == alone  # fmt: skip


class Eager:
    """Speculation that takes every text that has to follow, and guesses that are wrong."""

    def propose(self, chunks, room):
        drafts = {}
        for chunk in chunks:
            guide, left = chunk.sequence.request.guide, chunk.sequence.max_tokens - chunk.sequence.n_generated - 1
            if chunk.n_rows == 1 and chunk.reaches_end and guide is not None and guide.is_on:
                ids = [*guide.forced(), 65, 66][: max(0, min(room, left))]
                drafts[chunk.sequence] = tuple(ids)
                room -= len(ids)
        return drafts

    def most_ahead(self, sequences, n_steps):
        return 1

    def measured(self, chunks, seconds):
        pass

    def learn(self, chunk, n_accepted, n_sequences):
        pass


def test_guesses_right_and_wrong_change_no_answer(model):
    def ask(seed):
        return model.chat(QUESTION, response_format=SCHEMA, seed=seed, temperature=1.5, max_tokens=100)

    plain = [ask(seed).text for seed in range(6)]
    before, model._engine._loop.speculation = model._engine._loop.speculation, Eager()
    try:
        streams = [ask(seed) for seed in range(6)]
        assert [stream.text for stream in streams] == plain
        assert sum(stream.speculation.accepted for stream in streams) > 20
    finally:
        model._engine._loop.speculation = before


def test_a_grammar_that_cannot_go_on_fails_its_own_request_only(model):
    ways = tenth.Grammar.lark("start: /[a-z]/ w\nw: " + " | ".join(f'"w{i}x"' for i in range(8000)))
    good = model.chat(QUESTION, response_format=SCHEMA, seed=1)
    bad = model.generate("x", grammar=ways)
    with pytest.raises(tenth.RequestError, match="grammar failed in the middle"):
        bad.wait()
    assert is_person(good.text)
    assert is_person(model.chat(QUESTION, response_format=SCHEMA, seed=2).text)


def test_a_wrong_grammar_is_refused_before_anything_is_computed(model):
    before = model.stats.n_requests
    for wrong in ({"type": "array", "contains": {}}, {"if": True}):
        with pytest.raises(tenth.RequestError, match="Unimplemented"):
            model.chat(QUESTION, response_format={"type": "json_schema", "json_schema": {"schema": wrong}})
    with pytest.raises(tenth.RequestError, match=r"expected a tenth\.Grammar"):
        model.generate("x", grammar="[a-z]")
    assert model.stats.n_requests == before


# ---- with thinking


@pytest.fixture(scope="module")
def opened():
    with tenth.load(FILE, template=OPENING, threads=1) as model:
        yield model


@pytest.mark.parametrize("budget", [0, 1, 9])
def test_a_budget_closes_the_thought_before_the_grammar_begins(opened, budget):
    stream = opened.chat(QUESTION, thinking_budget=budget, response_format=SCHEMA, max_tokens=200, temperature=1.0,
                         seed=3)  # fmt: skip
    assert is_person(stream.text)
    assert bool(stream.thinking) == (budget > 0)
    assert stream.usage.thinking_tokens <= budget
    assert stream.finish_reason == "stop"


def test_effort_is_a_word_for_a_budget(opened):
    answers = [opened.chat(QUESTION, max_tokens=30, **settings, **GREEDY).text
               for settings in ({"reasoning_effort": "none"}, {"thinking_budget": 0, "think": False})]  # fmt: skip
    assert answers[0] == answers[1] != ""
    with pytest.raises(tenth.RequestError, match="none, minimal, low, medium, high, xhigh, max"):
        opened.chat(QUESTION, reasoning_effort="much")


def test_thinking_can_be_ended_from_outside(opened):
    stream = opened.chat(QUESTION, response_format=CODE, max_tokens=2000, **GREEDY)
    next(stream)
    assert stream.end_thinking()
    assert re.fullmatch(CODE["regex"], stream.text)
    assert stream.thinking
    assert stream.usage.completion_tokens < 2000
    assert not stream.end_thinking()  # it is over


def test_a_model_that_does_not_think_has_none_to_end(model):
    stream = model.chat(QUESTION, max_tokens=3)
    assert not stream.end_thinking()
    stream.wait()


def test_a_thought_that_ends_by_itself_is_followed_by_the_grammar(scripted):  # noqa: F811
    model = scripted("<", "\nwhy not", "\n</think>", 'ab"-')
    stream = model.chat(QUESTION, response_format={"type": "regex", "regex": "[ab\"-]{4}"}, ignore_eos=True)
    assert (stream.thinking, stream.text, stream.finish_reason) == ("why not", 'ab"-', "stop")
    prompt = stream.usage.prompt_tokens
    fed = [ids_of(model, text) for text in ("<think>", "\nwhy not", "\n</think>", "\n\n", 'ab"')]
    assert model.loaded.runtime.fed[prompt:] == [i for part in fed for i in part]


def test_what_looks_like_a_mark_inside_a_grammar_is_content(scripted):  # noqa: F811
    model = scripted("a<think>b")
    stream = model.chat(QUESTION, response_format={"type": "regex", "regex": "a<think>b"})
    assert (stream.thinking, stream.text) == ("", "a<think>b")


def test_a_model_may_begin_to_think_although_its_grammar_has_no_such_text(scripted):  # noqa: F811
    model = scripted("<", "yes", "\n</think>", "123")  # the rest of the mark is put there
    stream = model.chat(QUESTION, response_format={"type": "regex", "regex": "[0-9]{3}"})
    assert (stream.thinking, stream.text) == ("yes", "123")
    model = scripted("123")
    stream = model.chat(QUESTION, response_format={"type": "regex", "regex": "[0-9]{3}"})
    assert (stream.thinking, stream.text) == ("", "123")


def test_a_closed_engine_leaves_no_thread(model):
    assert isinstance(model._engine, Engine)
    with tenth.load(FILE, template=TURN, threads=1) as other:
        assert other.chat(QUESTION, response_format=CODE).text
        thread = other._engine._loop.masks._thread
    assert thread._shutdown
