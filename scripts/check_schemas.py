"""Runs JSON-Schema-Test-Suite through our masks: no valid instance blocked, no invalid one completed.

    pip download --no-binary :all: --no-deps jsonschema==4.26.0 && tar xf jsonschema-4.26.0.tar.gz
    python scripts/check_schemas.py jsonschema-4.26.0/json/tests/draft2020-12 --record tests/data/json_schema_suite.json

The suite (github.com/json-schema-org/JSON-Schema-Test-Suite, MIT licence, Julian Berman) is inside the sdist. A schema
that is refused does not count: that is an error with the keyword's name. Objects are tried in every order of their
keys, since the order is the schema's; a number as 1.0 and as 1. Left out: that a format is only a remark, where ours
is kept to, and metaschemas of one's own. ``--record``, which may be left out, writes the cases that tests run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.text.vocabularies import published

from tenth.errors import RequestError
from tenth.text.grammar import Grammar
from tenth.text.matching import Grammars
from tenth.text.tokenizer import Tokenizer

MAX_ORDERS = 120


def orders(value):
    """A value with the keys of its objects in every order."""
    if isinstance(value, list):
        yield from map(list, itertools.islice(itertools.product(*(list(orders(item)) for item in value)), MAX_ORDERS))
    elif isinstance(value, dict):
        for keys in itertools.islice(itertools.permutations(value), MAX_ORDERS):
            for values in itertools.islice(itertools.product(*(list(orders(value[key])) for key in keys)), MAX_ORDERS):
                yield dict(zip(keys, values, strict=True))
    else:
        yield value
        if isinstance(value, float) and value.is_integer():
            yield int(value)


def is_completed(tokenizer, matcher, text):
    """Whether the masks let a text pass to its end and let it end there."""
    ids = tokenizer.encode(text, special=False, continuing=True)
    return matcher.advance(ids) == len(ids) and matcher.accepts


def completes(tokenizer, grammars, grammar, value):
    """Whether the masks let an instance pass in one of its forms."""
    return any(is_completed(tokenizer, grammars.matcher(grammar), json.dumps(form, ensure_ascii=False))
               for form in itertools.islice(orders(value), MAX_ORDERS))  # fmt: skip


def compiled(grammars, schema):
    """(grammar, None), or (None, why the schema is refused)."""
    try:
        grammar = Grammar.json_schema(schema)
        grammars.matcher(grammar)
        return grammar, None
    except RequestError as error:
        return None, error.message


def check(folder: Path):
    """(cases that were run, refusals by reason, wrong ones)."""
    tokenizer = Tokenizer.from_metadata(published("smollm")[1])
    grammars, cases, refused, wrong = Grammars(tokenizer), [], Counter(), []
    for file in sorted(folder.glob("*.json")):
        for group in json.loads(file.read_text()):
            plain = group["schema"]
            if isinstance(plain, dict):
                plain = {key: value for key, value in plain.items() if key != "$schema"}
            grammar, reason = compiled(grammars, plain)
            if grammar is None:
                refused[reason.removeprefix("the JSON schema cannot be used: ")[:70]] += 1
                continue
            for test in group["tests"]:
                if file.stem == "vocabulary" or "only an annotation" in test["description"]:
                    continue
                case = {"keyword": file.stem, "schema": plain, "data": test["data"], "valid": test["valid"]}
                cases.append(case)
                if completes(tokenizer, grammars, grammar, test["data"]) != test["valid"]:
                    wrong.append(case | {"about": f"{group['description']}: {test['description']}"})
    return cases, refused, wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    cases, refused, wrong = check(arguments.folder)
    by_keyword = Counter(case["keyword"] for case in cases)
    print(f"{len(cases)} cases run: " + ", ".join(f"{keyword} {n}" for keyword, n in sorted(by_keyword.items())))
    print(f"{sum(refused.values())} schemas refused:")
    for reason, n in refused.most_common():
        print(f"  {n:3} {reason}")
    if not cases:
        raise SystemExit(f"no case was run: {arguments.folder} has no suite whose schemas are supported")
    for case in wrong:
        how = "blocked" if case["valid"] else "completed"
        print("WRONG", how, case["keyword"], case["about"], case["schema"], case["data"])
    if arguments.record:
        lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
        arguments.record.write_text(f"[\n{lines}\n]\n")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
