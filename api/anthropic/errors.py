"""Errors as Anthropic's clients read them: a type, a stable code, a true HTTP status, and when to try again."""

from __future__ import annotations

import re
import secrets
from typing import Any

from litestar import Response
from litestar.exceptions import HTTPException
from litestar.types import Scope
from msgspec import Struct

from api.app import ErrorHandlers
from api.body import AnyRequest
from api.exchange import request_id_of
from paddler.errors import PaddlerError
from paddler.logs import get_logger

_log = get_logger(__name__)

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_PATHS = re.compile(r"(/v1)?/v1/messages(/.*)?")
_MODELS = re.compile(r"(/v1)?/v1/models(/.*)?")
_OWN_CODES = {"thread": "thread_unsupported_request"}
"""Codes of Anthropic's that its clients act upon, by the field at fault: they send the same again without it."""

INTERNAL = "Internal error; the balancer's log has the details."


class Details(Struct, frozen=True, omit_defaults=True):
    error_code: str
    param: str | None = None


class Error(Struct, frozen=True, omit_defaults=True):
    type: str
    message: str
    details: Details | None = None


class ErrorBody(Struct, frozen=True, tag="error"):
    error: Error
    request_id: str


def is_for_anthropic(scope: Scope) -> bool:
    """Whether it is one of Anthropic's routes, or meant to be one; those of models are OpenAI's, too, and which of them
    is meant a header says."""
    path = scope["path"]
    if _MODELS.fullmatch(path):
        return any(name == b"anthropic-version" for name, _ in scope["headers"])
    return _PATHS.fullmatch(path) is not None


def error_body(error: PaddlerError, request_id: str) -> ErrorBody:
    """The field at fault is in the message: the protocol has no other place for it that people read."""
    param, message = error.param, error.message
    if param and f"`{param}`" not in message:
        message = f"`{param}`: {message}"
    details = Details(_OWN_CODES.get(param or "", error.code), param)
    return ErrorBody(Error(_type(error.status), message, details), request_id)


def with_messages_apart(others: ErrorHandlers, max_body: int) -> ErrorHandlers:
    """The exception handlers of a service that has Anthropic's routes among those that `others` are for."""
    own: ErrorHandlers = {
        PaddlerError: _paddler_error,
        HTTPException: lambda request, error: _http_error(request, error, max_body),
        Exception: _unexpected_error,
    }

    def chosen(kind: int | type[Exception]) -> Any:
        def handle(request: AnyRequest, error: Exception) -> Response[Any]:
            handlers = own if is_for_anthropic(request.scope) else others
            return handlers[kind](request, error)

        return handle

    return {kind: chosen(kind) for kind in own}


def _paddler_error(request: AnyRequest, error: PaddlerError) -> Response[Any]:
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.status >= 500 or (error.status == 429 and not error.retryable):
        # These clients repeat these unless told; a request that kills agents must not come back by itself.
        headers["x-should-retry"] = "true" if error.retryable else "false"
    return _respond(request, error.status, error_body(error, _request_id(request)), headers)


def _http_error(request: AnyRequest, error: HTTPException, max_body: int) -> Response[Any]:
    """Litestar's own errors, and those of reading a body."""
    status, message = error.status_code, error.detail
    path = request.scope["path"]
    if status == 404:
        message = f"This service has no route {request.method} {path[:100]}."
        if path.startswith("/v1/v1/"):
            message += " The base URL of Anthropic's clients must not end in /v1."
    elif status == 405:
        message = f"{request.method} is not allowed here."
    elif status == 413:
        message = f"The body is larger than {max_body} bytes; --max-body of the balancer sets this limit."
    body = ErrorBody(Error(_type(status), message), _request_id(request))
    return _respond(request, status, body, dict(error.headers or {}))


def _unexpected_error(request: AnyRequest, error: Exception) -> Response[Any]:
    """A bug: the log has the details, the client has none."""
    _log.error("request failed", method=request.method, path=request.scope["path"], exc_info=error)
    return _respond(request, 500, ErrorBody(Error(_type(500), INTERNAL), _request_id(request)), {})


def _respond(request: AnyRequest, status: int, body: ErrorBody, headers: dict[str, str]) -> Response[Any]:
    headers["request-id"] = body.request_id
    if request_id := request_id_of(request.scope):
        headers["x-request-id"] = request_id
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def _request_id(request: AnyRequest) -> str:
    """Of the request in the queue; one of its own for what never came so far."""
    return request_id_of(request.scope) or f"req_{secrets.token_hex(12)}"


def _type(status: int) -> str:
    return _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
