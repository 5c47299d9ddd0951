"""Whose page in a browser may open a socket: browsers ask nobody before, unlike for a POST of JSON."""

from __future__ import annotations

from urllib.parse import urlsplit

from litestar.datastructures import Headers


def is_own_origin(headers: Headers) -> bool:
    """A page from the very address that it connects to. What is no browser sends no `Origin`."""
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    except ValueError:
        return False
