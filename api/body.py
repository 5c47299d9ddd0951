"""Reading the body of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import ClientException

from api.remote_images import RemoteImages

AnyRequest = Request[Any, Any, State]
T = TypeVar("T")

IMAGES = "remote_images"
"""Of a service's state: its `RemoteImages`, if it fetches any."""
MAX_AT_ONCE = 8192
"""Bytes of a body that is read while others wait: schemas of so many take up to 50 ms."""


class UnsupportedMediaType(ClientException):
    """The body is not sent as JSON."""

    status_code = 415


async def read_json_body(request: AnyRequest) -> bytes:
    """The bytes of a body that claims to be JSON; a client that claims nothing is believed.

    The size limit is Litestar's `request_max_body_size`, checked on the bytes as they arrive. Images that it names by
    address are in it where the service fetches some; `request.body()` is what was sent.
    """
    for name, value in request.scope["headers"]:
        # A page in a browser may send the types of HTML forms to any address, loopback included, unasked.
        if name == b"content-type" and not _is_json(value):
            raise UnsupportedMediaType("Send the body as Content-Type: application/json.")
        if name == b"content-encoding" and value.lower() != b"identity":
            raise UnsupportedMediaType("Send the body without Content-Encoding.")
    body = await request.body()
    images: RemoteImages | None = request.app.state.get(IMAGES)
    return body if images is None else await images.put_into(body)


async def read_aside(body: bytes, read: Callable[[bytes], T]) -> T:
    """What `read` makes of a body, in a thread if it may take long."""
    if len(body) <= MAX_AT_ONCE:
        return read(body)
    return await asyncio.to_thread(read, body)


def _is_json(value: bytes) -> bool:
    kind = value.partition(b";")[0].strip().lower()
    return not kind or kind == b"application/json" or kind.endswith(b"+json")
