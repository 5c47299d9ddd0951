"""Answers to who is not let in, each in the words of the protocol that it asked in."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from litestar.types import Send

from api.anthropic.errors import error_body, is_for_anthropic
from api.connection import Headers
from api.openai.errors import error_object
from paddler.errors import Forbidden, PaddlerError, Unauthorized

_encode = msgspec.json.Encoder().encode


async def refuse(scope: Any, send: Send, error: PaddlerError, *, is_native: bool) -> None:
    """Over HTTP: a text for clients of Paddler 4, else the error object of Anthropic's or OpenAI's API."""
    headers = challenge(error)
    if is_native:
        body, media = error.message.encode(), b"text/plain; charset=utf-8"
    elif is_for_anthropic(scope):
        request_id = f"req_{secrets.token_hex(12)}"
        body, media = _encode(error_body(error, request_id)), b"application/json"
        headers.append((b"request-id", request_id.encode()))
    else:
        body, media = _encode(error_object(error)), b"application/json"
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if error.status >= 500:
        headers.append((b"x-should-retry", b"true"))
    await _send(send, "http.response", error.status, [*headers, (b"content-type", media)], body)


async def refuse_socket(send: Send, error: PaddlerError) -> None:
    """In place of a WebSocket."""
    headers = [*challenge(error), (b"content-type", b"text/plain; charset=utf-8")]
    await _send(send, "websocket.http.response", error.status, headers, error.message.encode())


def challenge(error: PaddlerError) -> Headers:
    """How to be let in (RFC 6750, section 3)."""
    match error:
        case Unauthorized():
            return [(b"www-authenticate", b'Bearer realm="paddler"')]
        case Forbidden():
            scope = (error.param or "").encode()
            return [(b"www-authenticate", b'Bearer realm="paddler", error="insufficient_scope", scope="%b"' % scope)]
        case _:
            return []


async def _send(send: Any, kind: str, status: int, headers: Headers, body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})
