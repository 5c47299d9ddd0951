"""Whose a request is. A request of another tenant is, for whoever asks by its id, as one that does not exist."""

from __future__ import annotations

import asyncio

from paddler.errors import QueueUnavailable
from paddler.ids import pool_of
from paddler.jobs.status import not_found
from paddler.store.client import TROUBLE, Store

PATIENCE_S = 8.0


class Ownership:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def check(self, request_id: str, tenant: str | None) -> None:
        """`tenant` None may see all. Raises `RequestNotFound`, `QueueUnavailable`, and `ValueError` for what is no
        request id.

        It must come before anything is done with the request: to follow it and leave again would cancel it."""
        if tenant is None:
            return
        keys = self._store.pool(pool_of(request_id)).keys
        try:
            async with asyncio.timeout(PATIENCE_S):
                owner = await self._store.redis.hget(keys.request(request_id), "tenant")
        except TROUBLE as error:
            raise QueueUnavailable("Redis cannot be reached.", retry_after_s=1) from error
        if owner is None or owner.decode() != tenant:
            raise not_found(request_id)
