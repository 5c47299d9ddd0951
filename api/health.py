"""`GET /health`: this process answers. It says nothing about Redis or agents."""

from __future__ import annotations

from litestar import MediaType, route

from api.operation import TEXT, Answer, Operation

_HEALTH = Operation(
    summary="This process answers.", tag="service", answers={200: Answer(description="`OK`.", content={TEXT: str})}
)


@route("/health", http_method=["GET", "HEAD"], media_type=MediaType.TEXT, sync_to_thread=False, operation=_HEALTH)
def health() -> str:
    return "OK"
