"""Errors as OpenAI's clients read them: an error object, a true HTTP status, and when to try again."""

from __future__ import annotations

from typing import Any

from litestar import Response
from litestar.exceptions import HTTPException

from api.app import ErrorHandlers
from api.body import AnyRequest
from api.exchange import request_id_of
from api.openai.objects import ErrorAnswer
from api.standing import limit_headers
from paddler.errors import PaddlerError
from paddler.logs import get_logger

_log = get_logger(__name__)

_CODES = {401: "unauthorized", 404: "route_not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}


def error_object(error: PaddlerError) -> ErrorAnswer:
    return _object(error.status, error.message, error.code, error.param)


def error_handlers(max_body: int) -> ErrorHandlers:
    """Litestar's exception handlers of a service that speaks OpenAI's protocol."""

    def http_error(request: AnyRequest, error: HTTPException) -> Response[Any]:
        """Litestar's own errors, and those of reading a body."""
        status, message = error.status_code, error.detail
        code = _CODES.get(status)
        if status == 404:
            path = request.scope["path"]
            message = f"This service has no route {request.method} {path[:100]}."
            if any(route.path == f"/v1{path}" for route in request.app.routes):
                message += " The base URL of OpenAI clients must end in /v1."
        elif status == 405:
            message = f"{request.method} is not allowed here."
        elif status == 413:
            code = "body_too_large"
            message = f"The body is larger than {max_body} bytes; --max-body of the balancer sets this limit."
        return _respond(request, status, _object(status, message, code, None), dict(error.headers or {}))

    return {PaddlerError: paddler_error, HTTPException: http_error, Exception: unexpected_error}


def paddler_error(request: AnyRequest, error: PaddlerError) -> Response[Any]:
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.limit is not None:
        reset_ms = None if error.retry_after_s is None else error.retry_after_s * 1000
        headers |= limit_headers(error.limit, 0, reset_ms)
    if error.status >= 500 or (error.status == 429 and not error.retryable):
        # OpenAI's clients repeat these unless told; a request that kills agents must not come back by itself.
        headers["x-should-retry"] = "true" if error.retryable else "false"
    return _respond(request, error.status, error_object(error), headers)


def unexpected_error(request: AnyRequest, error: Exception) -> Response[Any]:
    """A bug: the log has the details, the client has none."""
    _log.error("request failed", method=request.method, path=request.scope["path"], exc_info=error)
    return _respond(request, 500, _object(500, "Internal error; the balancer's log has the details.", None, None), {})


def _respond(request: AnyRequest, status: int, content: ErrorAnswer, headers: dict[str, str]) -> Response[Any]:
    if request_id := request_id_of(request.scope):
        headers["x-request-id"] = request_id
    return Response(content, status_code=status, headers=headers, media_type="application/json")


def _object(status: int, message: str, code: str | None, param: str | None) -> ErrorAnswer:
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
