"""Ids of tool calls: functions of what they name, so that whoever renders a request gives the same."""

from __future__ import annotations

import hashlib

_SHORT = 9


def call_id(request_id: str, index: int) -> str:
    """Of call number `index` of a request."""
    return "call_" + _digest(f"{request_id}/{index}")[:24]


def short_id(long: str) -> str:
    """As Mistral's templates want it, which refuse any other: nine letters and digits."""
    return long if len(long) == _SHORT and long.isascii() and long.isalnum() else _digest(long)[:_SHORT]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
