"""tokenize: text from standard input, ids on standard output."""

import json
import sys

import pytest


class Letters:
    """A token is a character; 0 begins a text."""

    def encode(self, text, special=True, parse_special=False):
        return [0] * special + [ord(c) for c in text]

    def decode(self, ids, special=False):
        return "".join("<s>" if i == 0 else chr(i) for i in ids)


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    monkeypatch.setattr("tenth.cli.tokenize.open_tokenizer", lambda model: Letters())


def test_json_gives_the_ids_of_exactly_the_text(tenth):
    assert json.loads(tenth("tokenize", "m", "--json", stdin="hi\n").out) == {"ids": [0, 104, 105, 10]}
    assert json.loads(tenth("tokenize", "m", "--json", "--no-special", stdin="hi\n").out) == {"ids": [104, 105, 10]}
    assert json.loads(tenth("tokenize", "m", "--json", "--no-special").out) == {"ids": []}


def test_people_get_ids_and_pieces(tenth):
    assert tenth("tokenize", "m", stdin="h\n").out == "  0  '<s>'\n104  'h'\n 10  '\\n'\n"
    assert tenth("tokenize", "m", "--no-special").out == ""


def test_input_that_is_not_utf8_is_refused(tenth):
    assert tenth("tokenize", "m", stdin=b"\xc3").code == 2


def test_input_without_end_is_refused(tenth, monkeypatch):
    monkeypatch.setattr("tenth.cli.prompt.MOST_INPUT_BYTES", 100)
    result = tenth("tokenize", "m", stdin=b"a" * 101)
    assert result.code == 2
    assert "larger than" in result.err


def test_a_closed_input_is_empty(tenth, monkeypatch, capfd):
    from tenth.cli.prompt import gather

    monkeypatch.setattr(sys, "stdin", None)
    assert gather("x") == "x"
