"""Stored responses: what a client sent, kept beside the request, whose journal is the output.

Nothing has to be written when a response ends, so nobody has to be there: the request's own keys live as long as the
record (`keep.lua`), and whoever is asked renders the output from the journal.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from paddler.errors import QueueUnavailable, RequestLost, RequestNotFound
from paddler.ids import pool_of
from paddler.jobs.reply import Route
from paddler.store.client import TROUBLE, Store
from paddler.wire.balancer import TextFormat, Tokens, decode_frames
from paddler.wire.stored import StoredResponse, decode_stored, encode_stored

PATIENCE_S = 8.0


class StorageSettings(Struct, frozen=True, kw_only=True):
    """For how long after its end a response is stored, and how many, with how many bytes of input, a pool stores."""

    ttl_s: int = 86_400
    max_num: int = 10_000
    max_bytes: int = 256 * 1024 * 1024


class Turn(Struct, frozen=True, kw_only=True):
    """A stored response as a part of a conversation: `tokens` is all it has said, `state` that of its request."""

    request_id: str
    record: StoredResponse
    state: str
    tokens: tuple[Tokens, ...]
    format: TextFormat | None


class Responses:
    """Every method raises `QueueUnavailable`, and `ValueError` for what is no request id."""

    def __init__(self, store: Store, settings: StorageSettings) -> None:
        self._store = store
        self._settings = settings

    async def keep(self, request_id: str, record: StoredResponse) -> None:
        """Store a response whose request has been submitted, and the turns before it for as long again. Raises
        `RequestLost` when Redis has forgotten the request already."""
        settings = self._settings
        by_pool: defaultdict[str, list[str]] = defaultdict(list)
        for ancestor in record.ancestors:
            by_pool[pool_of(ancestor)].append(ancestor)
        async with _in_time():
            is_kept = await self._store.pool(pool_of(request_id)).keep(
                request_id,
                encode_stored(record),
                ttl_s=settings.ttl_s,
                max_num=settings.max_num,
                max_bytes=settings.max_bytes,
            )
            for pool, ids in by_pool.items():
                await self._store.pool(pool).touch(ids, ttl_s=settings.ttl_s)
        if not is_kept:
            raise RequestLost("Redis has forgotten this request; send it again.")

    async def read(self, request_id: str, tenant: str) -> StoredResponse:
        """Raises `RequestNotFound`, also for a response of another tenant."""
        keys = self._store.pool(pool_of(request_id)).keys
        async with _in_time():
            pipe = self._store.redis.pipeline(transaction=False)
            pipe.get(keys.response(request_id))
            pipe.hget(keys.request(request_id), "tenant")
            data, owner = await pipe.execute()
        if data is None or owner is None or owner.decode() != tenant:
            raise not_stored(request_id)
        return decode_stored(data)

    async def turns(self, request_ids: Sequence[str], tenant: str) -> list[Turn | None]:
        """The responses of a conversation; None for one that is not stored (any more), or is another tenant's."""
        return [await self._turn(request_id, tenant) for request_id in request_ids]

    async def forget(self, request_id: str) -> None:
        """Delete a response, which has ended or whose request has been cancelled."""
        async with _in_time():
            await self._store.pool(pool_of(request_id)).forget(request_id)

    async def _turn(self, request_id: str, tenant: str) -> Turn | None:
        keys = self._store.pool(pool_of(request_id)).keys
        async with _in_time():
            pipe = self._store.redis.pipeline(transaction=True)
            pipe.get(keys.response(request_id))
            pipe.hmget(keys.request(request_id), "tenant", "state")
            pipe.get(keys.journal(request_id))
            answers: list[Any] = await pipe.execute()
        data, (owner, state), journal = answers
        if data is None or state is None or owner is None or owner.decode() != tenant:
            return None
        route, tokens = Route(), list[Tokens]()
        for frame in decode_frames(journal or b""):
            route.note(frame)
            if isinstance(frame, Tokens):
                tokens.append(frame)
        return Turn(
            request_id=request_id,
            record=decode_stored(data),
            state=state.decode(),
            tokens=tuple(tokens),
            format=route.format,
        )


def not_stored(request_id: str) -> RequestNotFound:
    return RequestNotFound(
        f"no response of the request {request_id!r} is stored: it was sent with `store` false, has been deleted, or "
        "has ended too long ago.",
        param="response_id",
    )


@asynccontextmanager
async def _in_time() -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield
    except TROUBLE as error:
        raise QueueUnavailable("Redis cannot be reached or refuses writes.", retry_after_s=1) from error
