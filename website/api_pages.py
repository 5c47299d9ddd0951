"""The reference of the HTTP services, rendered from their OpenAPI documents.

Not by a package: what there is for MkDocs knows no 3.2 (`itemSchema`), repeats each schema for each status, 740 KB for
the management service alone, or loads a viewer with a style of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

from website.markdown import code, page, plain, table

Json = dict[str, Any]

ABOUT = {
    "inference": "`--inference-addr`, 127.0.0.1:8061 by default.",
    "openai": "`--compat-openai-addr`, 127.0.0.1:8070 under `paddler up`: routes of the inference service, alone.",
    "management": "`--management-addr`, 127.0.0.1:8060 by default.",
    "panel": "`--web-admin-panel-addr`. Beside its own routes it has those of management and inference, for who is "
    "logged in.",
}
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "pattern": "as `{}`",
}
METHODS = ("get", "put", "post", "patch", "delete", "head", "options")


def api_pages(documents: dict[str, Json]) -> dict[str, str]:
    """By their path below `docs/`: a page of each service, and its document."""
    pages: dict[str, str] = {}
    for name, document in documents.items():
        told = openai_page(document) if name == "openai" else api_page(name, document)
        pages[f"reference/http/{name}.md"] = told
        pages[f"reference/http/{name}.json"] = json.dumps(document, separators=(",", ":"))
    return pages


def api_page(name: str, document: Json) -> str:
    by_tag: dict[str, list[str]] = {}
    for path, method, operation in operations(document):
        by_tag.setdefault(operation["tags"][0], []).append(_operation(path, method, operation))
    routes = [f"## {tag}\n\n" + "\n\n".join(told) for tag, told in sorted(by_tag.items())]
    schemas = [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    return page(_head(name, document), *routes, "## Schemas", *schemas)


def openai_page(document: Json) -> str:
    """Its routes alone: the inference service has them all, with the same schemas."""
    rows = [
        (f"[{method.upper()} {code(path)}](inference.md#{place(method, path)})", plain(operation["summary"]))
        for path, method, operation in operations(document)
    ]
    return page(_head("openai", document), table(("route", "what"), rows))


def _head(name: str, document: Json) -> str:
    title: str = document["info"]["title"].removeprefix("Paddler: ")
    link = f"The document itself, OpenAPI {document['openapi']}: [{name}.json]({name}.json)."
    return f"# {title[0].upper()}{title[1:]} service\n\n{ABOUT[name]} {link}"


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield path, method, methods[method]


def type_of(schema: Json) -> str:
    """In words; a schema of a name is a link to it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name.rpartition('.')[2]}](#{anchor(name)})"
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "enum" in schema:
        return ", ".join(code(json.dumps(one)) for one in schema["enum"])
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(type_of(one) for one in schema[word]))
    if "contentSchema" in schema:
        return f"JSON: {type_of(schema['contentSchema'])}"
    bounds = [words.format(schema[name]) for name, words in BOUNDS.items() if name in schema]
    return ", ".join([_plain_type(schema), *bounds])


def _plain_type(schema: Json) -> str:
    kind = schema.get("type", "any JSON")
    if isinstance(kind, list):
        return " or ".join(map(str, cast("list[object]", kind)))
    if kind == "array":
        if items := schema.get("items"):
            return f"list of {type_of(items)}"
        return f"list of {', '.join(map(type_of, schema['prefixItems']))}" if "prefixItems" in schema else "list"
    if kind == "object" and "properties" in schema:
        return "object: " + ", ".join(f"{code(name)} {type_of(one)}" for name, one in schema["properties"].items())
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {type_of(schema['additionalProperties'])}"
    return f"{kind} ({schema['format']})" if "format" in schema else kind


def place(method: str, path: str) -> str:
    """The anchor of an operation."""
    return f"{method}{re.sub(r'[^a-z0-9]+', '-', path.lower())}".rstrip("-")


def anchor(name: str) -> str:
    return f"schema-{name.lower().replace('.', '-')}"


def _operation(path: str, method: str, operation: Json) -> str:
    parameters = [
        (
            code(one["name"]),
            one["in"],
            plain(one.get("description", "")),
            type_of(one["schema"]) + ("; required" if one.get("required") else ""),
        )
        for one in operation.get("parameters", [])
    ]
    body = operation.get("requestBody", {}).get("content", {})
    taken = [f"Body, {code(media)}: {_content(one)}." for media, one in body.items()]
    answers = [
        (status, plain(answer["description"]), _answer_types(answer), _headers(answer))
        for status, answer in operation["responses"].items()
        if status < "400"
    ]
    return page(
        f"### {method.upper()} {code(path)} {{ #{place(method, path)} }}",
        plain(operation["summary"]),
        plain(operation.get("description", "")),
        table(("parameter", "in", "what", "takes"), parameters),
        *taken,
        table(("status", "what", "body", "headers"), answers),
        _errors(operation["responses"]),
    )


def _errors(responses: Json) -> str:
    """Statuses with their codes, by the form of their body."""
    told: dict[str, list[str]] = {}
    for status, answer in responses.items():
        if status >= "400":
            lines: list[str] = answer["description"].split("\n")
            words = [re.sub(r"^(`\w+`): .*", r"\1", line).rstrip(".") for line in lines]
            told.setdefault(_answer_types(answer), []).append(f"**{status}** {plain(', '.join(words))}")
    return "\n\n".join(f"Errors, {types}: {'; '.join(words)}." for types, words in told.items())


def _content(content: Json) -> str:
    if "itemSchema" not in content:
        return type_of(content["schema"])
    item: Json = content["itemSchema"]
    data = item.get("properties", {}).get("data", item)
    return f"a stream of {type_of(data)}"


def _answer_types(answer: Json) -> str:
    return "; ".join(f"{code(media)}: {_content(one)}" for media, one in answer.get("content", {}).items())


def _headers(answer: Json) -> str:
    return ", ".join(code(name) for name in answer.get("headers", {}))


def _schema(name: str, schema: Json) -> str:
    required = set(schema.get("required", []))
    fields = [
        (
            code(field) + ("" if field in required else " (optional)"),
            type_of(one),
            plain(one.get("description", "")),
            code(json.dumps(one["default"])) if "default" in one and len(json.dumps(one["default"])) < 60 else "",
        )
        for field, one in schema.get("properties", {}).items()
    ]
    return page(
        f"### {schema.get('title', name)} {{ #{anchor(name)} }}",
        plain(schema.get("description", "")),
        table(("field", "type", "what", "default"), fields) if fields else f"{type_of(schema)}.",
    )
