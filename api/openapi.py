"""`/openapi.json`, made of the operations that are declared beside the handlers of a service.

Schemas are msgspec's own of the types that decode and render, in the dialect of OpenAPI 3.2:
3.1 has no words for what a stream consists of.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

import paddler
from api.access.operation import SCHEMES, SECURITY
from api.operation import EVENTS, JSON, NOTHING, REF, TEXT, Answer, Around, Operation, Parameter, Stream, operation_of

PATHS = ["/openapi.json", "/schema/openapi.json"]
"""Ours, and where Litestar has it."""

_PLACE = re.compile(r"\{(?P<name>\w+):\w+\}")

_SELF = Operation(
    summary="This document.",
    tag="service",
    answers={200: Answer(description="OpenAPI 3.2 in JSON.", content={JSON: dict[str, Any]})},
)


def openapi_route(title: str, routes: Sequence[HTTPRouteHandler], around: Around = NOTHING) -> HTTPRouteHandler:
    """The route that serves the document of `routes` and of itself, with what is `around` them all. It is made when
    somebody asks for it first."""
    made: list[bytes] = []

    def make() -> bytes:
        return msgspec.json.encode(openapi_document(title, [*routes, get_openapi], around))

    @get(PATHS, operation=_SELF)
    async def get_openapi() -> Response[bytes]:
        if not made:
            # In a thread: it takes longer than a stream should wait.
            made.append(await asyncio.to_thread(make))
        return Response(made[0], media_type=JSON)

    return get_openapi


def openapi_document(title: str, routes: Iterable[HTTPRouteHandler], around: Around = NOTHING) -> dict[str, Any]:
    """Raises `LookupError` for a route without an operation."""
    declared = [(route, around.of(operation_of(route))) for route in routes]
    types = [type_ for _, operation in declared for type_ in _types(operation)]
    found, components = msgspec.json.schema_components(types, ref_template=REF, schema_hook=_any)
    schemas = _Schemas(types, found)
    paths: dict[str, dict[str, Any]] = {}
    for route, operation in declared:
        for path in sorted(route.paths):
            entry = paths.setdefault(_PLACE.sub(r"{\g<name>}", path), {})
            for method in sorted(route.http_methods):
                entry[method.lower()] = _operation(route, operation, path, method, schemas)
    return {
        "openapi": "3.2.0",
        "info": {"title": title, "version": paddler.__version__},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted(components.items())), "securitySchemes": SCHEMES},
        "security": SECURITY,
    }


def _any(type_: type) -> dict[str, Any]:
    """A field of type `object` takes anything. Raises `NotImplementedError` for what msgspec does not know either."""
    if type_ is object:
        return {"description": "Any JSON."}
    raise NotImplementedError


class _Schemas:
    """By the identity of their types: an annotation with a dict in it has no hash."""

    def __init__(self, types: Sequence[Any], schemas: Iterable[dict[str, Any]]) -> None:
        self._found = {id(type_): schema for type_, schema in zip(types, schemas, strict=True)}

    def __getitem__(self, type_: Any) -> dict[str, Any]:
        return self._found[id(type_)]


def _types(operation: Operation) -> Iterator[Any]:
    yield str
    yield from operation.parts
    if operation.request is not None:
        yield operation.request.type
    if operation.errors:
        yield operation.error_body
    headers = [header for answer in operation.answers.values() for header in answer.headers]
    for parameter in (*operation.parameters, *operation.error_headers, *headers):
        yield parameter.type
    for answer in operation.answers.values():
        yield from (one.item if isinstance(one, Stream) else one for one in answer.content.values())


def _operation(
    route: HTTPRouteHandler, operation: Operation, path: str, method: str, schemas: _Schemas
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _operation_id(route, path, method),
        "summary": operation.summary,
        "tags": [operation.tag],
    }
    if about := inspect.getdoc(route.fn):
        described["description"] = about
    if parameters := [*_path_parameters(operation, path, schemas), *_other_parameters(operation, schemas)]:
        described["parameters"] = parameters
    if operation.request is not None:
        content = {operation.request_media: {"schema": schemas[operation.request.type]}}
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = {
        str(status): answer for status, answer in sorted(_answers(operation, method, schemas).items())
    }
    return described


def _operation_id(route: HTTPRouteHandler, path: str, method: str) -> str:
    """The name of the handler's function, and what tells its paths and methods apart if it has several."""
    name = route.handler_name
    if len(route.http_methods) > 1:
        name = f"{method.lower()}_{name}"
    if len(route.paths) > 1:
        name += re.sub(r"\W+", "_", path.rstrip("}/"))
    return name


def _path_parameters(operation: Operation, path: str, schemas: _Schemas) -> list[dict[str, Any]]:
    declared = {one.name: one for one in operation.parameters if one.where == "path"}
    found: list[dict[str, Any]] = []
    for name in _PLACE.findall(path):
        one = declared.get(name)
        entry: dict[str, Any] = {"name": name, "in": "path", "required": True}
        entry["schema"] = {"type": "string"} if one is None else schemas[one.type]
        found.append(entry if one is None else entry | {"description": one.description})
    return found


def _other_parameters(operation: Operation, schemas: _Schemas) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "in": one.where,
            "required": one.is_required,
            "description": one.description,
            "schema": schemas[one.type],
        }
        for one in operation.parameters
        if one.where != "path"
    ]


def _answers(operation: Operation, method: str, schemas: _Schemas) -> dict[int, Any]:
    answers = {status: _answer(answer, method, schemas) for status, answer in operation.answers.items()}
    failures: dict[int, list[str]] = {}
    for error in operation.errors:
        status: int = getattr(error, "status", 0) or getattr(error, "status_code", 500)
        code: str = getattr(error, "code", "")
        about = (inspect.getdoc(error) or "").partition("\n")[0]
        failures.setdefault(status, []).append(f"`{code}`: {about}" if code else about)
    for status, words in failures.items():
        told = Answer(
            description="\n".join(dict.fromkeys(words)),
            content={operation.error_media: operation.error_body},
            headers=operation.error_headers,
        )
        answers[status] = _answer(told, method, schemas)
    if operation.request is not None:
        late = Answer(description="The body did not come in time.", content={TEXT: str})
        answers[408] = _answer(late, method, schemas)
    return answers


def _answer(answer: Answer, method: str, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        described["headers"] = {one.name: _header(one, schemas) for one in answer.headers}
    if method != "HEAD":
        described["content"] = {media: _content(media, one, schemas) for media, one in answer.content.items()}
    return described


def _content(media: str, content: Any, schemas: _Schemas) -> dict[str, Any]:
    if not isinstance(content, Stream):
        return {"schema": schemas[content]}
    item = schemas[content.item]
    if media != EVENTS:
        return {"itemSchema": item}
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": item}
    if content.last:
        data = {"anyOf": [data, {"const": content.last}]}
    fields = {"data": data, "event": {"type": "string"}, "id": {"type": "string"}}
    return {"itemSchema": {"type": "object", "required": ["data"], "properties": fields}}


def _header(one: Parameter, schemas: _Schemas) -> dict[str, Any]:
    return {"required": one.is_required, "description": one.description, "schema": schemas[one.type]}
