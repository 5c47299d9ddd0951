"""What a route takes and answers: declared beside its handler, and all that `/openapi.json` is made of.

    @post("/v1/embeddings", status_code=200, operation=EMBED)

The document cannot promise another body than is read: `request` is the decoder that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct
from msgspec.structs import replace

from paddler.errors import PaddlerError

JSON = "application/json"
EVENTS = "text/event-stream"
TEXT = "text/plain"

REF = "#/components/schemas/{name}"

KEY = "operation"
"""Where Litestar keeps the declaration: among the options of the handler."""


class Parameter(Struct, frozen=True, kw_only=True):
    """A header, a part of the path or of the query. `type` is one that msgspec knows; `is_required` of a header of an
    answer: it is always there."""

    name: str
    type: Any = str
    description: str
    where: Literal["header", "path", "query"] = "header"
    is_required: bool = False


class Stream(Struct, frozen=True):
    """The content of an answer that goes on: `item` is the type of each line, or of the data of each event in `EVENTS`.
    `last` is the data of the last event where that is no JSON."""

    item: Any
    last: str = ""


class Answer(Struct, frozen=True, kw_only=True):
    """What comes with a status: for each media type a type, or a `Stream`."""

    description: str
    content: Mapping[str, Any]
    headers: tuple[Parameter, ...] = ()


class Operation(Struct, frozen=True, kw_only=True):
    """`request` is the decoder of the body, `request_media` how it is sent. `errors` are what the route may raise;
    their body is `error_body`, a type, sent as `error_media`.
    `parts` are types that others name by `any_of`."""

    summary: str
    tag: str
    request: msgspec.json.Decoder[Any] | None = None
    request_media: str = JSON
    parameters: tuple[Parameter, ...] = ()
    answers: Mapping[int, Answer]
    errors: tuple[type[PaddlerError | HTTPException], ...] = ()
    error_body: Any = None
    error_media: str = JSON
    parts: tuple[type, ...] = ()
    error_headers: tuple[Parameter, ...] = ()


class Around(Struct, frozen=True, kw_only=True):
    """What a middleware of a service adds to every operation: what it reads, what it tells in every answer, and what it
    refuses. `error_body` is of operations that have none of their own. What one says itself of a status holds."""

    parameters: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    errors: tuple[type[PaddlerError | HTTPException], ...] = ()
    error_body: Any = None

    def of(self, operation: Operation) -> Operation:
        answers = {
            status: replace(answer, headers=self._told(answer.headers)) for status, answer in operation.answers.items()
        }
        return replace(
            operation,
            parameters=(*operation.parameters, *self.parameters),
            answers=answers,
            errors=(*operation.errors, *(one for one in self.errors if _status_of(one) not in operation.answers)),
            error_body=operation.error_body or self.error_body,
            error_headers=self._told(operation.error_headers),
        )

    def _told(self, headers: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
        own = {header.name for header in self.headers}
        return (*(header for header in headers if header.name not in own), *self.headers)


NOTHING = Around()


def _status_of(error: type[PaddlerError | HTTPException]) -> int:
    return getattr(error, "status", 0) or getattr(error, "status_code", 500)


def any_of(*types: type | None) -> Meta:
    """For `Annotated[object, ...]`: one of several TypedDicts, or null, which msgspec has no union for. An operation
    that uses it names them in `parts`."""
    refs = [{"type": "null"} if one is None else {"$ref": REF.format(name=one.__name__)} for one in types]
    return Meta(extra_json_schema={"description": "One of these.", "anyOf": refs})


def operation_of(handler: HTTPRouteHandler) -> Operation:
    """Raises `LookupError` for a route that has none."""
    operation = handler.opt.get(KEY)
    if not isinstance(operation, Operation):
        paths = ", ".join(sorted(handler.paths))
        raise LookupError(f"{paths} has no operation=Operation(...); api/DESIGN.md says how to write it.")
    return operation
