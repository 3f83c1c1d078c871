"""What an answer must look like: a JSON schema, any JSON object, a regular expression or a Lark grammar.

Grammars come from requests, so they are bounded in size and nesting before anything is done with them. Not here: which
tokens may come next (matching.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tenth.errors import RequestError

MAX_BYTES = 256 << 10
MAX_DEPTH = 64  # of a schema's own nesting
# Between the parts of JSON: a space, or a line break and some indentation. In free white space small models get lost.
_JSON_OPTIONS = {"whitespace_pattern": r"[ ]|\r?\n[ \t]{0,32}"}

Kind = Literal["json_object", "json_schema", "regex", "lark"]


@dataclass(frozen=True)
class Grammar:
    """What an answer has to match, from its first character to its last. Raises RequestError for one that is too large.

    ``text``: the schema as JSON, the expression, or the Lark grammar, whose first rule is ``start``.
    """

    kind: Kind
    text: str

    def __post_init__(self) -> None:
        n_bytes = len(self.text.encode(errors="surrogatepass"))
        if n_bytes > MAX_BYTES:
            raise RequestError(f"the {self.kind} has {n_bytes} bytes, expected at most {MAX_BYTES}")

    @classmethod
    def json(cls) -> Grammar:
        """Any JSON object."""
        return cls("json_object", json.dumps({"type": "object", "x-guidance": _JSON_OPTIONS}))

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool | str, *, strict: bool = True) -> Grammar:
        """JSON that a schema accepts (draft 2020-12), its properties in the schema's order. A str is a schema as JSON.

        ``strict`` False: keywords that are not supported are passed over; else they are an error when it is compiled.
        """
        if isinstance(schema, str):
            schema = _read_json(schema)
        if not isinstance(schema, (Mapping, bool)):
            raise RequestError(f"the JSON schema is {schema!r}, expected an object")
        if _depth(schema) > MAX_DEPTH:
            raise RequestError(f"the JSON schema nests deeper than {MAX_DEPTH} levels")
        if isinstance(schema, Mapping):
            if "x-guidance" in schema:
                raise RequestError("the JSON schema has the keyword 'x-guidance', which is not of JSON Schema")
            schema = {**schema, "x-guidance": _JSON_OPTIONS if strict else {**_JSON_OPTIONS, "lenient": True}}
        return cls("json_schema", json.dumps(schema, ensure_ascii=False))

    @classmethod
    def regex(cls, expression: str) -> Grammar:
        """What a regular expression matches as a whole, in the syntax of Rust's regex crate, without look-around."""
        return cls("regex", _checked_text("the regular expression", expression))

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """What a Lark grammar accepts, with the extensions of llguidance (docs/syntax.md there)."""
        return cls("lark", _checked_text("the grammar", text))

    @property
    def is_json(self) -> bool:
        """Whether the answer is JSON."""
        return self.kind in ("json_object", "json_schema")


def response_grammar(response_format: Any) -> Grammar | None:
    """The grammar that OpenAI's response_format asks for, None for plain text; a Grammar stands for itself.

    Beside text, json_object and json_schema there are {"type": "regex", "regex": ...} and
    {"type": "lark", "lark": ...}. Raises RequestError naming the field.
    """
    if response_format is None or isinstance(response_format, Grammar):
        return response_format
    if not isinstance(response_format, Mapping):
        raise RequestError(f"response_format is {response_format!r}, expected an object with a type")
    kind = response_format.get("type")
    known = {"text": set(), "json_object": set(), "json_schema": {"json_schema"}, "regex": {"regex"}, "lark": {"lark"}}
    if not isinstance(kind, str) or kind not in known:
        raise RequestError(f"response_format.type is {kind!r}, expected one of {', '.join(known)}")
    if extra := set(response_format) - known[kind] - {"type"}:
        raise RequestError(f"response_format has the field {min(extra)!r}, which {kind} does not take")
    if kind == "json_schema":
        return _named_schema(response_format.get("json_schema"))
    if kind in ("regex", "lark"):
        text = _checked_text(f"response_format.{kind}", response_format.get(kind))
        return Grammar.regex(text) if kind == "regex" else Grammar.lark(text)
    return Grammar.json() if kind == "json_object" else None


def _named_schema(named: Any) -> Grammar:
    """The grammar of {"name", "schema", "strict", "description"}: a schema is always kept to, strict or not."""
    if not isinstance(named, Mapping) or not isinstance(named.get("schema"), (Mapping, bool)):
        raise RequestError("response_format.json_schema.schema is missing, expected a JSON schema")
    if extra := set(named) - {"name", "schema", "strict", "description"}:
        raise RequestError(f"response_format.json_schema has the field {min(extra)!r}, which is not known")
    return Grammar.json_schema(named["schema"])


def _checked_text(what: str, text: Any) -> str:
    if not isinstance(text, str) or not text:
        raise RequestError(f"{what} is {text!r}, expected a text that is not empty")
    if "\0" in text:
        raise RequestError(f"{what} has a character 0")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{what} holds a lone surrogate, which no UTF-8 can carry") from None
    return text


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the JSON schema cannot be read: {error}") from None


def _depth(value: Any) -> int:
    """How deep objects and arrays nest; stops counting just above MAX_DEPTH."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        level = [child for node in level if isinstance(node, (Mapping, list, tuple))
                 for child in (node.values() if isinstance(node, Mapping) else node)]
        depth += 1
    return depth
