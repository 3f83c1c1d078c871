"""JSON-Schema-Test-Suite through the masks, as far as its schemas are supported: recorded by scripts/check_schemas.py.

The cases in data/json_schema_suite.json are those of github.com/json-schema-org/JSON-Schema-Test-Suite (draft 2020-12),
which is under the MIT licence, copyright 2012 Julian Berman.
"""

import json
from itertools import groupby
from pathlib import Path

import pytest
from scripts.check_schemas import completes

from tenth.text.grammar import Grammar
from tenth.text.matching import Grammars
from tenth.text.tokenizer import Tokenizer

from .vocabularies import published

CASES = json.loads((Path(__file__).parents[1] / "data" / "json_schema_suite.json").read_text())
BY_KEYWORD = {keyword: list(cases) for keyword, cases in groupby(CASES, lambda case: case["keyword"])}


@pytest.fixture(scope="module")
def vocabulary():
    tokenizer = Tokenizer.from_metadata(published("smollm")[1])
    return tokenizer, Grammars(tokenizer)


def test_the_suite_is_there():
    assert len(CASES) > 500
    assert {case["valid"] for case in CASES} == {True, False}


@pytest.mark.parametrize("keyword", BY_KEYWORD)
def test_no_valid_instance_is_blocked_and_no_invalid_one_completed(vocabulary, keyword):
    tokenizer, grammars = vocabulary
    wrong = []
    for case in BY_KEYWORD[keyword]:
        grammar = Grammar.json_schema(case["schema"])
        if completes(tokenizer, grammars, grammar, case["data"]) != case["valid"]:
            wrong.append(case)
    assert not wrong
