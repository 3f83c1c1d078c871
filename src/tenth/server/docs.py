"""The page /docs: every route with its fields and bounds, made from the OpenAPI document. It loads nothing."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import FastAPI

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code{font-size:.95em}table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}
td,th{border-bottom:1px solid #8884;padding:.3rem .6rem;text-align:left;vertical-align:top}
:root{color-scheme:light dark}"""


def page(app: FastAPI) -> str:
    """The page as HTML."""
    document = app.openapi()
    parts = [_operation(method, path, operation, document) for path, methods in document["paths"].items()
             for method, operation in methods.items()]
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return (f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
            f"<p>{escape(document['info'].get('description', ''))} The document for machines is at "
            f"<a href=/openapi.json>/openapi.json</a>.</p>{''.join(parts)}</html>")


def _operation(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    head = f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
    content = operation.get("requestBody", {}).get("content", {})
    described: list[dict[str, Any]] = [*content.values(), {}]
    schema = _resolved(described[0].get("schema", {}), document)
    required = schema.get("required", [])
    rows = [f"<tr><td><code>{escape(name)}</code>{' *' if name in required else ''}<td>{_kind(field, document)}"
            f"<td>{escape(field.get('description', ''))}" for name, field in schema.get("properties", {}).items()]
    table = f"<table><tr><th>field<th>type<th>{''.join(rows)}</table>" if rows else ""
    return head + table


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def _kind(schema: dict[str, Any], document: dict[str, Any]) -> str:
    if "anyOf" in schema:
        kinds = [_kind(one, document) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(kinds)
    if "$ref" in schema:
        return escape(schema["$ref"].rpartition("/")[2])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}), document)}"
    bounds = [f"{sign} {schema[name]}" for name, sign in (("minimum", "≥"), ("maximum", "≤"),
                                                         ("maxLength", "length ≤")) if name in schema]
    return escape(" ".join([schema.get("type", "any"), *bounds]))
