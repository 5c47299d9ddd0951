"""What the operators' routes share: asking Redis within a time, which pool, and answers in JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec
from litestar.response.base import ASGIResponse

from api.body import AnyRequest
from api.management.view import PATIENCE_S
from paddler.errors import InvalidField, PoolNotFound, QueueUnavailable
from paddler.ids import pool_of
from paddler.jobs.models import DEFAULT_POOL
from paddler.jobs.overview import Overview
from paddler.store.client import TROUBLE, Store

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


async def ask(call: Awaitable[T]) -> T:
    """Raises `QueueUnavailable` where Redis does not answer in time, or refuses."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await call
    except TROUBLE as error:
        raise QueueUnavailable("Redis cannot be reached.", retry_after_s=1) from error


async def pool_in(request: AnyRequest, store: Store) -> str:
    """The pool that the path names, `default` where it names none. Raises `PoolNotFound`."""
    name: str = request.path_params.get("name", DEFAULT_POOL)
    if name != DEFAULT_POOL:
        names = await ask(Overview(store).pool_names())
        if name not in names:
            raise PoolNotFound(f"There is no pool {name[:63]!r}; there is: {', '.join(names[:20])}.", param="name")
    return name


def checked_id(request_id: str) -> str:
    """Raises `InvalidField` for what is no id of a request."""
    try:
        pool_of(request_id)
    except ValueError:
        raise InvalidField("This is no request id; it looks like <pool>.<22 characters>.", param="id") from None
    return request_id


def paths(end: str) -> list[str]:
    """Of the pool `default`, and of any pool."""
    return [f"/api/v1/{end}", f"/api/v1/pools/{{name:str}}/{end}"]


def json_answer(value: Any, status: int = 200) -> ASGIResponse:
    return ASGIResponse(body=_encode(value), status_code=status, headers={"content-type": "application/json"})
