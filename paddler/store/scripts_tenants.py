"""The typed functions over the scripts of API keys, limits and usage, which belong to no pool.

Like those of pools they are idempotent; see the `.lua` files for what each returns. They raise `redis.RedisError` or
`OSError` when the server cannot be reached.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from paddler.store.pipe import Value
from paddler.store.scripts import ScriptCaller
from paddler.store.tenant_keys import TenantKeys


class KeyChanged(StrEnum):
    OK = "ok"
    MOVED = "moved"
    FULL = "full"


class Verdict(StrEnum):
    """`KNOWN`: this request was reserved before. The others but `OK` are the limit that refuses."""

    OK = "ok"
    KNOWN = "known"
    REQUESTS = "requests"
    TOKENS = "tokens"
    IN_FLIGHT = "in_flight"
    BUDGET = "budget"


class Reserved(Struct, frozen=True):
    """What is left of the allowances per minute after it, and in how many ms all of them are there; `wait_ms` is when a
    refused request may be tried again, 0 when nobody knows."""

    verdict: Verdict
    wait_ms: int
    requests_left: int
    requests_reset_ms: int
    tokens_left: int
    tokens_reset_ms: int


class End(Struct, frozen=True):
    """An entry of a pool's `used` stream."""

    entry: str
    key_id: str
    request_id: str
    model: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    is_first: bool


class TenantScripts:
    """`prefix` is that of all keys; a tenant's scripts touch its hash tag alone."""

    def __init__(self, caller: ScriptCaller, prefix: str) -> None:
        self._caller = caller
        self._prefix = prefix

    async def change_key(self, key: str, key_id: str, *, expected: bytes, record: bytes, max_num: int) -> KeyChanged:
        """Replace the record of an API key in the hash `key`, if it is still `expected` (empty: there is none); an
        empty record forgets it. Who has read the hash sees by its empty field that it has changed."""
        arguments = (key_id, expected, record, max_num, secrets.token_hex(8))
        return KeyChanged((await self._caller.call("change_key", key, 0, *arguments)).decode())

    async def reserve(
        self,
        tenant: str,
        key_id: str,
        request_id: str,
        *,
        tokens: int,
        num_parts: int,
        requests_per_minute: int,
        tokens_per_minute: int,
        max_in_flight: int,
        daily_tokens: int,
        hold_ms: int,
        now_ms: float = 0,
    ) -> Reserved:
        """Charge a request to its key's limits, or say which refuses it. `num_parts` is how many requests of `tokens`
        each its call has, 0 for all but the first. A limit of 0 is none."""
        bounds = (requests_per_minute, tokens_per_minute, max_in_flight, daily_tokens, hold_ms)
        found = await self._call("reserve", tenant, now_ms, key_id, request_id, tokens, num_parts, *bounds)
        return Reserved(Verdict(found[0].decode()), *found[1:])

    async def adjust(
        self,
        tenant: str,
        key_id: str,
        request_id: str,
        what: str,
        number: int,
        *,
        requests_per_minute: int = 0,
        now_ms: float = 0,
    ) -> bool:
        """Tell what has become of a reserved request: `submitted`, held for `number` ms; `ended`, with `number` tokens
        (-1: not known); `refused`, with `number` 1 if it is to count as no request. False: nothing was to change."""
        return await self._call("adjust", tenant, now_ms, key_id, request_id, what, number, requests_per_minute) == 1

    async def account(self, tenant: str, pool: str, ends: Sequence[End], *, now_ms: float = 0) -> int:
        """Count ends, in the order of their pool's stream, each once whoever calls. Returns how many were new."""
        flat: list[Value] = []
        for end in ends:
            flat += (end.entry, end.key_id, end.request_id, end.model, end.prompt_tokens, end.cached_tokens)
            flat += (end.output_tokens, int(end.is_first))
        return await self._call("account", tenant, now_ms, pool, *flat)

    async def _call(self, name: str, tenant: str, *args: Value) -> Any:
        return await self._caller.call(name, TenantKeys(self._prefix, tenant).base, *args)
