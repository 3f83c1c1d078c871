"""Grammars and their masks, on vocabularies of every kind: what they let pass, what they refuse, what they cost."""

import json

import numpy as np
import pytest

from tenth.errors import RequestError
from tenth.text import matching
from tenth.text.grammar import Grammar, response_grammar
from tenth.text.matching import BYTES_EACH, Grammars
from tenth.text.tokenizer import Tokenizer

from .vocabularies import published, scored

PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
          "required": ["name", "age"], "additionalProperties": False}  # fmt: skip


def tokenizer_of(name):
    return Tokenizer.from_metadata(scored() if name == "scored" else published(name)[1])


VOCABULARIES = ["qwen2", "smollm", "llama-bpe", "deepseek-v3", "scored"]


@pytest.fixture(scope="module", params=VOCABULARIES)
def tokenizer(request):
    return tokenizer_of(request.param)


@pytest.fixture(scope="module")
def grammars():
    return Grammars(tokenizer_of("qwen2"))


def allowed(matcher):
    return np.flatnonzero(np.unpackbits(matcher.mask().view(np.uint8), bitorder="little"))


def takes(grammars, tokenizer, grammar, text):
    """Whether a text can be written token by token through the masks and be ended there."""
    matcher = grammars.matcher(grammar)
    for token in tokenizer.encode(text, special=False, continuing=True):
        if token not in allowed(matcher):
            return False
        assert matcher.advance([token]) == 1
    return bool(set(tokenizer.stop_ids) & set(allowed(matcher).tolist()))


def test_text_of_every_kind_passes_as_the_tokenizer_writes_it(tokenizer):
    grammars = Grammars(tokenizer)
    for text in ('{"name": "Zoë 🙂 你好", "age": 12}', '{"name":"","age":0}', '{\n  "name": "a b",\n  "age": 7\n}'):
        assert takes(grammars, tokenizer, Grammar.json_schema(PERSON), text), text
        assert takes(grammars, tokenizer, Grammar.json(), text), text
    for text in ('{"name": "a"}', '{"age": 1, "name": "a"}', '{"name": "a", "age": -1}', '["a"]', '{"name": "a", "a'):
        assert not takes(grammars, tokenizer, Grammar.json_schema(PERSON), text), text
    assert takes(grammars, tokenizer, Grammar.regex("[ab ]+é?"), "ab aé")
    assert not takes(grammars, tokenizer, Grammar.regex("[ab ]+é?"), "abc")
    assert takes(grammars, tokenizer, Grammar.lark('start: "a" (b | "c")+\nb: "b" /[0-9]/'), "ab1cb2")


def test_any_walk_through_the_masks_is_what_was_asked_for(tokenizer):
    schema = {"type": "object", "properties": {"k": {"enum": ["a", "bc"]}, "v": {"type": "array", "maxItems": 3,
              "items": {"type": "boolean"}}}, "required": ["k", "v"], "additionalProperties": False}  # fmt: skip
    grammars, random = Grammars(tokenizer), np.random.default_rng(5)
    for _ in range(10):
        matcher, ids = grammars.matcher(Grammar.json_schema(schema)), []
        while not matcher.has_ended and len(ids) < 500:
            ids.append(int(random.choice(allowed(matcher))))
            assert matcher.advance(ids[-1:]) == 1
        assert matcher.has_ended
        value = json.loads(tokenizer.decode(ids, continuing=True))
        assert value["k"] in ("a", "bc")
        assert all(type(item) is bool for item in value["v"])


def test_control_tokens_are_never_text_and_the_end_comes_only_where_it_may(tokenizer):
    matcher = Grammars(tokenizer).matcher(Grammar.regex("(.|\n){2,5}"))
    control = {*np.flatnonzero(tokenizer.vocabulary.types == 3).tolist()} - tokenizer.stop_ids
    may_end = []
    for character in "abca":
        now = set(allowed(matcher).tolist())
        assert len(now) > 100
        assert not now & control
        may_end.append(bool(now & tokenizer.stop_ids))
        (token,) = tokenizer.encode(character, special=False, continuing=True)
        assert matcher.advance([token]) == 1
    assert may_end == [False, False, True, True]
    assert not matcher.has_ended
    matcher.advance(tokenizer.encode("b", special=False, continuing=True))
    assert matcher.has_ended  # nothing else may follow


def test_rows_for_guesses_are_the_masks_one_would_find_there(grammars):
    tokenizer = tokenizer_of("qwen2")
    draft = tokenizer.encode('{"name":"ab"', special=False)
    matcher, walked = grammars.matcher(Grammar.json_schema(PERSON)), grammars.matcher(Grammar.json_schema(PERSON))
    rows = np.zeros((len(draft) + 1, len(matcher.mask())), np.uint32)
    matcher.fill_all(rows, draft)
    for row, token in zip(rows, [*draft, None], strict=True):
        np.testing.assert_array_equal(row, walked.mask())
        if token is not None:
            walked.advance([token])
    np.testing.assert_array_equal(matcher.mask(), rows[0])  # it has not moved


def test_guesses_are_cut_where_they_are_not_allowed(grammars):
    tokenizer = tokenizer_of("qwen2")
    matcher = grammars.matcher(Grammar.json_schema(PERSON))
    good, bad = tokenizer.encode('{"', special=False), tokenizer.encode("}", special=False)
    assert matcher.n_allowed([*good, *bad, *good]) == len(good)
    rows = np.zeros((len(good) + 3, len(matcher.mask())), np.uint32)
    matcher.fill_all(rows, [*good, *bad, *good][: len(good) + 2])
    assert rows[: len(good) + 1].any(axis=1).all()
    np.testing.assert_array_equal(matcher.mask(), rows[0])


def test_text_that_has_to_follow_is_known(grammars):
    tokenizer = tokenizer_of("qwen2")
    matcher = grammars.matcher(Grammar.lark('start: "hello world" /[0-9]/'))
    forced = matcher.forced()
    assert tokenizer.decode(forced) == "hello world"[: len(tokenizer.decode(forced))] != ""


# ---- what is refused


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "array", "contains": {"type": "string"}}, "contains"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"if": {"type": "string"}, "then": {"minLength": 3}}, "if"),
        ({"type": "objekt"}, "objekt"),
        ({"type": "string", "format": "banana"}, "banana"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"$ref": "http://127.0.0.1:9/x"}, "127.0.0.1"),
        ({"$ref": "#/$defs/none"}, "none"),
        ({"properties": 3}, "properties"),
        ({"x-guidance": {"lenient": True}}, "x-guidance"),
    ],
)
def test_what_a_schema_cannot_have_is_named(grammars, schema, named):
    with pytest.raises(RequestError, match=named):
        grammars.matcher(Grammar.json_schema(schema))


def test_a_lenient_schema_passes_over_what_is_not_supported(grammars):
    grammars.matcher(Grammar.json_schema({"type": "array", "contains": {"type": "string"}}, strict=False))


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


HOSTILE = {
    "deep schema": lambda: Grammar.json_schema(nested(5000)),
    "deep text": lambda: Grammar.json_schema("[" * 100_000),
    "large": lambda: Grammar.json_schema({"enum": ["x" * 300_000]}),
    "parentheses": lambda: Grammar.regex("(" * 60_000 + "a" + ")" * 60_000),
    "parentheses in Lark": lambda: Grammar.lark("start: " + "(" * 60_000 + '"a"' + ")" * 60_000),
    "many ways": lambda: Grammar.lark("start: " + " | ".join(f'"w{i}x"' for i in range(15_000))),
    "doubling": lambda: Grammar.lark(
        "start: a0\n" + "".join(f"a{i}: a{i + 1} a{i + 1}\n" for i in range(99)) + 'a99: "x"'),
    "anyOf in allOf": lambda: Grammar.json_schema(
        {"allOf": [{"anyOf": [{"properties": {f"p{i}": {"const": k}}} for k in range(4)]} for i in range(12)]}),
    "nothing": lambda: Grammar.lark('start: "a" x'),
    "zero": lambda: Grammar.regex("a\0"),
    "surrogate": lambda: Grammar.regex("\ud800"),
    "false": lambda: Grammar.json_schema(False),
}  # fmt: skip


def use(matcher):
    """Some grammars show what they are only when they are used."""
    rows = np.ones((1, len(matcher.mask())), np.uint32)
    for _ in range(50):
        matcher.fill_all(rows, [])
        if matcher.error is not None:
            assert not rows.any()  # so that nothing is chosen
            raise matcher.error
        matcher.advance([int(allowed(matcher)[-1])])


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_grammar_is_an_error_soon(grammars, case):
    with pytest.raises(RequestError):
        use(grammars.matcher(HOSTILE[case]()))


def test_a_grammar_that_takes_too_long_is_given_up(grammars, monkeypatch):
    monkeypatch.setattr(matching, "TRY_S", 1.0)
    meeting = {"allOf": [{"type": "string", "pattern": f"^(.*a.{{{i}}}b.*)$"} for i in range(40)]}
    with pytest.raises(RequestError, match="to compile"):
        grammars.matcher(Grammar.json_schema(meeting))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("json", "expected an object"),
        ({"type": "xml"}, "'xml'"),
        ({}, "None"),
        ({"type": "json_schema"}, "json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": [], "name": "x"}}, "json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": {}, "nmae": "x"}}, "nmae"),
        ({"type": "json_object", "schema": {}}, "'schema'"),
        ({"type": "regex"}, "response_format.regex"),
        ({"type": "lark", "lark": ""}, "response_format.lark"),
    ],
)
def test_a_response_format_that_is_none_says_why(given, message):
    with pytest.raises(RequestError, match=message):
        response_grammar(given)


def test_response_formats_are_grammars():
    assert response_grammar(None) is None
    assert response_grammar({"type": "text"}) is None
    assert response_grammar({"type": "json_object"}) == Grammar.json()
    named = {"name": "p", "strict": False, "schema": PERSON}
    assert response_grammar({"type": "json_schema", "json_schema": named}) == Grammar.json_schema(PERSON)
    assert response_grammar({"type": "regex", "regex": "a+"}) == Grammar.regex("a+")


# ---- the cache


def test_compiled_grammars_are_kept_by_bytes_and_the_oldest_goes_first():
    grammars = Grammars(tokenizer_of("smollm"), cache_bytes=3 * BYTES_EACH + 60_000)
    kinds = [Grammar.json_schema({"const": i}) for i in range(5)]
    for kind in (*kinds[:3], kinds[0], kinds[3]):
        grammars.matcher(kind)
    assert len(grammars) == 3
    assert kinds[1] not in grammars._cache
    assert kinds[0] in grammars._cache


def test_two_answers_of_one_grammar_do_not_meet(grammars):
    tokenizer, grammar = tokenizer_of("qwen2"), Grammar.regex("ab|cd")
    one, other = grammars.matcher(grammar), grammars.matcher(grammar)
    one.advance(tokenizer.encode("ab", special=False))
    assert one.has_ended
    assert not other.has_ended
    assert other.advance(tokenizer.encode("c", special=False)) == 1
