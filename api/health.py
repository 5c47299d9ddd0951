"""`GET /health`: this process answers. It says nothing about Redis or agents."""

from __future__ import annotations

from litestar import MediaType, route


@route("/health", http_method=["GET", "HEAD"], media_type=MediaType.TEXT, sync_to_thread=False)
def health() -> str:
    return "OK"
