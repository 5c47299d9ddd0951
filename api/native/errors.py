"""Errors as clients of Paddler 4 read them.

What is wrong with a request's form is an HTTP status with a text, on the socket an `Error`. Whatever happens behind
that is a line of the stream, inside HTTP 200: an `Error` with a code, or one of the results that Paddler 4 has for it.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
from litestar import Response
from litestar.exceptions import HTTPException

from api.app import ErrorHandlers
from api.body import AnyRequest
from api.event_stream import told_error
from api.native.envelope import Envelopes
from paddler.errors import (
    AgentsLost,
    BufferFull,
    ImageDecodingFailed,
    InvalidField,
    ItemTimeout,
    MultimodalNotSupported,
    PaddlerError,
    ShuttingDown,
    StartTimeout,
)

Result = Literal["ChatTemplateError", "GrammarSyntaxError", "ImageDecodingFailed", "MultimodalNotSupported"]

INVALID = "Invalid request parameters"
OVERFLOW = "Buffered requests overflow"

_CODES_AND_WORDS: dict[type[PaddlerError], tuple[int, str]] = {
    BufferFull: (503, OVERFLOW),
    StartTimeout: (504, "Waiting for available slot timed out"),
    AgentsLost: (502, "Agent controller connection closed"),
    ShuttingDown: (503, "balancer is shutting down"),
}
_OURS = re.compile(r"\b(messages|prompt|input)(?=\[|`| must)")
_THEIRS = {"messages": "conversation_history", "prompt": "raw_prompt", "input": "input_batch"}


class ToldInStream(Exception):
    """A request that Paddler 4 would have accepted, and refused in its stream by a result of this kind."""

    def __init__(self, result: Result, message: str) -> None:
        super().__init__(message)
        self.result: Result = result
        self.message = message


class NotEnabled(Exception):
    """No agent of the pool can do this."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def native_words(text: str) -> str:
    """With the fields called as in the native requests."""
    return _OURS.sub(lambda found: _THEIRS[found[0]], text)


def error_line(error: Exception, envelopes: Envelopes, item_timeout_ms: int, *, generated_by: str | None) -> bytes:
    """The last envelope of a request. The details of a bug go to the log alone."""
    if isinstance(error, NotEnabled):
        return envelopes.error(501, error.message)
    if isinstance(error, HTTPException):
        return envelopes.error(400, f"{INVALID}: {error.detail}")
    if not isinstance(error, ToldInStream | PaddlerError):
        told_error(error, "")
        return envelopes.error(500, "Internal server error")
    if (result := _result_of(error)) is not None:
        return envelopes.told(result, msgspec.json.encode(native_words(error.message)), generated_by)
    assert isinstance(error, PaddlerError)
    if isinstance(error, ItemTimeout):
        why = f"Inference timed out after {item_timeout_ms}ms waiting for next token."
        return envelopes.error(
            504, f"{why} Increase --inference-item-timeout if the prompt requires longer processing."
        )
    code, words = _CODES_AND_WORDS.get(type(error), (error.status, native_words(error.message)))
    if isinstance(error, InvalidField):
        words = f"{INVALID}: {words}"
    return envelopes.error(code, words)


def _result_of(error: ToldInStream | PaddlerError) -> Result | None:
    match error:
        case ToldInStream():
            return error.result
        case ImageDecodingFailed():
            return "ImageDecodingFailed"
        case MultimodalNotSupported():
            return "MultimodalNotSupported"
        case InvalidField(param="grammar"):
            return "GrammarSyntaxError"
        case InvalidField(param="messages"):  # an agent's: what the model's template made of them
            return "ChatTemplateError"
        case _:
            return None


def _text(status: int, message: str) -> Response[Any]:
    return Response(message, status_code=status, media_type="text/plain")


def _refused(_: AnyRequest, error: PaddlerError) -> Response[Any]:
    if isinstance(error, InvalidField):
        return _text(error.status, f"{INVALID}: {native_words(error.message)}")
    response = _text(error.status, error.message)
    if error.retry_after_s is not None:
        response.headers["retry-after"] = str(error.retry_after_s)
    return response


def _not_enabled(_: AnyRequest, error: NotEnabled) -> Response[Any]:
    return _text(501, error.message)


def _http_error(_: AnyRequest, error: HTTPException) -> Response[Any]:
    words = f"{INVALID}: {error.detail}" if error.status_code == 400 else error.detail
    return _text(error.status_code, words)


HANDLERS: ErrorHandlers = {PaddlerError: _refused, NotEnabled: _not_enabled, HTTPException: _http_error}
"""Litestar's exception handlers of the native routes: texts, as Paddler 4 answers."""
