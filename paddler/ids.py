"""Identifiers. A request id is `<pool>.<22 characters>`, so that an id alone leads to its keys."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets

_POOL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_REQUEST = re.compile(r"(?P<pool>[a-z0-9][a-z0-9-]{0,62})\.[A-Za-z0-9_-]{22}")


def is_pool_name(name: str) -> bool:
    """Lower-case letters, digits and dashes, at most 63: a pool name is part of keys and ids."""
    return _POOL.fullmatch(name) is not None


def new_request_id(pool: str) -> str:
    return f"{pool}.{secrets.token_urlsafe(16)}"


def pool_of(request_id: str) -> str:
    """The pool of a request id. Raises `ValueError` for anything that is no request id."""
    match = _REQUEST.fullmatch(request_id)
    if match is None:
        raise ValueError(f"{request_id!r} is no request id; it looks like <pool>.<22 characters>")
    return match["pool"]


def new_process_id(kind: str) -> str:
    """An id that is new for every process start, `<kind>-<16 hex digits>`."""
    return f"{kind}-{secrets.token_hex(8)}"


def derived_id(*parts: object) -> str:
    """22 characters that these parts alone lead to: what stands behind the pool in a request id, say."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:16]
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def new_file_id() -> str:
    return f"file-{secrets.token_urlsafe(16)}"


def new_batch_id() -> str:
    return f"batch_{secrets.token_urlsafe(16)}"
