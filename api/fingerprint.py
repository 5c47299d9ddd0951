"""Whether two bodies say the same: a digest that is the same whatever the order of fields and the blanks between them.

A large body is taken apart and digested in pieces, because msgspec holds Python's lock for as long as one call takes:
in a thread alone the event loop would wait all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from functools import partial

import msgspec
from litestar.exceptions import ClientException
from msgspec import Raw

AT_ONCE = 64 * 1024
"""Bytes that are read in one call: less than a millisecond."""
MAX_DEPTH = 4
"""So deep it is taken apart: a body, its messages, each of them, its parts. Each level is read once more for it."""

_encode = msgspec.json.Encoder(order="deterministic").encode
_members = msgspec.json.Decoder(dict[str, Raw])
_items = msgspec.json.Decoder(list[Raw])


async def fingerprint(route: str, body: bytes) -> str:
    """A digest of where a body was sent and of what it says: what another route has made of the same words would be
    rendered as that route does. Raises `ClientException` for JSON that is nested too deeply."""
    digest = partial(_fingerprint, route, body)
    return await asyncio.to_thread(digest) if len(body) > AT_ONCE else digest()


def _fingerprint(route: str, body: bytes) -> str:
    digest = hashlib.sha256(route.encode() + b"\n")
    try:
        for piece in canonical(body):
            digest.update(piece)
    except RecursionError:
        # What was decoded in a thread had more of a stack.
        raise ClientException("The body is nested too deeply.") from None
    return digest.hexdigest()[:32]


def canonical(body: bytes, depth: int = 0) -> Iterator[bytes]:
    """JSON with its fields in order and nothing between them, in pieces. Of a field that is there twice the last
    counts. Raises `RecursionError`."""
    if len(body) <= AT_ONCE or depth >= MAX_DEPTH:
        yield _encode(msgspec.json.decode(body))
        return
    match body.lstrip()[:1]:
        case b"{":
            yield b"{"
            for number, (name, value) in enumerate(sorted(_members.decode(body).items())):
                yield b"," if number else b""
                yield _encode(name) + b":"
                yield from canonical(bytes(value), depth + 1)
            yield b"}"
        case b"[":
            yield b"["
            for number, item in enumerate(_items.decode(body)):
                yield b"," if number else b""
                yield from canonical(bytes(item), depth + 1)
            yield b"]"
        case _:
            yield _encode(msgspec.json.decode(body))
