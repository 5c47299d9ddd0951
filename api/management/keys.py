"""`/api/v1/keys`: API keys, for operators who do not have the command line on a machine of the fleet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec
from litestar import delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from api.body import AnyRequest, read_json_body
from api.management.key_objects import ForgottenKey, KeyList, key_object, new_key_object
from api.management.key_operations import (
    CREATE_DECODER,
    CREATE_KEY,
    FORGET_KEY,
    GET_KEY,
    LIMIT_KEY,
    LIMITS_DECODER,
    LIST_KEYS,
    REVOKE_KEY,
    ROTATE_DECODER,
    ROTATE_KEY,
)
from api.validation import decode_body
from paddler.clock import Clock
from paddler.errors import InvalidField, QueueUnavailable
from paddler.store.client import TROUBLE
from paddler.tenants.keys import ApiKeys

PATH = "/api/v1/keys"
PATIENCE_S = 8.0

_encode = msgspec.json.Encoder().encode


def key_routes(keys: ApiKeys, clock: Clock) -> list[HTTPRouteHandler]:
    def now_ms() -> float:
        return clock.wall() * 1000

    @get(PATH, operation=LIST_KEYS)
    async def list_keys() -> ASGIResponse:
        async with told_as_unavailable():
            found = await keys.list()
        return json_answer(KeyList([key_object(key, now_ms()) for key in found]))

    @post(PATH, status_code=201, operation=CREATE_KEY)
    async def create_key(request: AnyRequest) -> ASGIResponse:
        """The first one closes the fleet to everybody without a key."""
        asked = decode_body(await read_json_body(request), CREATE_DECODER, {})
        expires_ms = None if asked.expires_at is None else int(asked.expires_at.timestamp() * 1000)
        if expires_ms is not None and expires_ms <= now_ms():
            raise InvalidField("`expires_at` is over already.", param="expires_at")
        async with told_as_unavailable():
            new = await keys.create(
                asked.name, tenant=asked.tenant, scopes=asked.scopes, limits=asked.limits, expires_ms=expires_ms
            )
        return json_answer(new_key_object(new, now_ms()), 201)

    @get(f"{PATH}/{{key_id:str}}", operation=GET_KEY)
    async def get_key(key_id: FromPath[str]) -> ASGIResponse:
        async with told_as_unavailable():
            return json_answer(key_object(await keys.get(key_id), now_ms()))

    @put(f"{PATH}/{{key_id:str}}/limits", operation=LIMIT_KEY)
    async def limit_key(request: AnyRequest, key_id: FromPath[str]) -> ASGIResponse:
        limits = decode_body(await read_json_body(request), LIMITS_DECODER, {})
        async with told_as_unavailable():
            return json_answer(key_object(await keys.limit(key_id, lambda _: limits), now_ms()))

    @post(f"{PATH}/{{key_id:str}}/rotate", status_code=200, operation=ROTATE_KEY)
    async def rotate_key(request: AnyRequest, key_id: FromPath[str]) -> ASGIResponse:
        asked = decode_body(await read_json_body(request), ROTATE_DECODER, {})
        async with told_as_unavailable():
            new = await keys.rotate(key_id, overlap_ms=asked.overlap_ms)
        return json_answer(new_key_object(new, now_ms()))

    @post(f"{PATH}/{{key_id:str}}/revoke", status_code=200, operation=REVOKE_KEY)
    async def revoke_key(key_id: FromPath[str]) -> ASGIResponse:
        """Once more changes nothing. It stays in the list, and what it has begun goes on."""
        async with told_as_unavailable():
            return json_answer(key_object(await keys.revoke(key_id), now_ms()))

    @delete(f"{PATH}/{{key_id:str}}", status_code=200, operation=FORGET_KEY)
    async def forget_key(key_id: FromPath[str]) -> ASGIResponse:
        """One that can be used must be revoked first."""
        async with told_as_unavailable():
            await keys.forget(key_id)
        return json_answer(ForgottenKey(key_id))

    return [list_keys, create_key, get_key, limit_key, rotate_key, revoke_key, forget_key]


def json_answer(value: msgspec.Struct, status: int = 200) -> ASGIResponse:
    # Secrets are among them: no cache may keep any.
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return ASGIResponse(body=_encode(value), status_code=status, headers=headers)


@contextlib.asynccontextmanager
async def told_as_unavailable() -> AsyncGenerator[None]:
    """What Redis raises becomes `QueueUnavailable`."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield
    except TROUBLE as error:
        raise QueueUnavailable("Redis cannot be reached or refuses writes.", retry_after_s=1) from error
