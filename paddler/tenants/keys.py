"""API keys in Redis: created, listed, rotated, revoked and forgotten, by the CLI and by the management service."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from paddler.clock import Clock
from paddler.errors import Conflict, InvalidField, KeyNotFound, StorageFull
from paddler.store.client import Store
from paddler.store.scripts_tenants import KeyChanged
from paddler.store.tenant_keys import api_keys_key
from paddler.tenants.credentials import hash_secret, new_key_id, new_secret, whole_key
from paddler.tenants.records import NAME_PATTERN, NAME_RULE, SCOPES, ApiKey, Limits, Scope, decode_key, encode_key

MAX_KEYS = 10_000
MAX_TRIES = 20
LAST_CHANGE = b""
"""The field that has another value after any change. (A count could come to the same again in a Redis that has lost
its last second.)"""

_NAME = re.compile(NAME_PATTERN.strip("^$"))


class NewKey(Struct, frozen=True):
    """`secret` is the whole key, as its holder needs it. Nobody can show it again."""

    key: ApiKey
    secret: str


class ApiKeys:
    """Every method raises what Redis raises."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._redis = store.redis
        self._scripts = store.tenant_scripts
        self._hash = api_keys_key(store.prefix)
        self._clock = clock

    async def create(
        self,
        name: str,
        *,
        tenant: str | None = None,
        scopes: Sequence[Scope] = ("inference",),
        limits: Limits | None = None,
        expires_ms: int | None = None,
    ) -> NewKey:
        """`tenant` None is one of the key's name. Raises `InvalidField`, `StorageFull`."""
        for param, text in (("name", name), ("tenant", tenant or name)):
            if not _NAME.fullmatch(text):
                raise InvalidField(f"`{param}` must have {NAME_RULE}.", param=param)
        if not scopes:
            raise InvalidField(f"`scopes` must have one of {', '.join(SCOPES)} at least.", param="scopes")
        secret = new_secret()
        key = ApiKey(
            id=new_key_id(),
            name=name,
            tenant=tenant or name,
            scopes=tuple(dict.fromkeys(scopes)),
            secret_hash=hash_secret(secret),
            created_ms=self._now_ms(),
            limits=limits or Limits(),
            expires_ms=expires_ms,
        )
        if await self._change(key.id, b"", encode_key(key)) is KeyChanged.FULL:
            raise StorageFull(f"there are {MAX_KEYS} keys already; forget some that are revoked.")
        return NewKey(key, whole_key(key.id, secret))

    async def list(self) -> list[ApiKey]:
        """The oldest first."""
        return sorted((await self.snapshot())[1].values(), key=lambda key: (key.created_ms, key.id))

    async def snapshot(self) -> tuple[bytes, dict[str, ApiKey]]:
        """All keys by id, and their version: another one after any change."""
        found: dict[bytes, bytes] = await self._redis.hgetall(self._hash)
        version = found.pop(LAST_CHANGE, b"")
        return version, {key_id.decode(): decode_key(record) for key_id, record in found.items()}

    async def version(self) -> bytes:
        """As `snapshot`; empty while there was never a key."""
        return await self._redis.hget(self._hash, LAST_CHANGE) or b""

    async def num_keys(self) -> int:
        """Of all there are, revoked and expired ones included."""
        return max(0, await self._redis.hlen(self._hash) - 1)

    async def get(self, key_id: str) -> ApiKey:
        """Raises `KeyNotFound`."""
        return decode_key(await self._record(key_id))

    async def _record(self, key_id: str) -> bytes:
        record = await self._redis.hget(self._hash, key_id) if key_id else None
        if record is None:
            raise _not_found(key_id)
        return record

    async def revoke(self, key_id: str) -> ApiKey:
        """Balancers refuse it within a second. Once more changes nothing. Raises `KeyNotFound`."""
        now = self._now_ms()

        def revoked(key: ApiKey) -> ApiKey:
            return key if key.revoked_ms is not None else replace(key, revoked_ms=now, old_hash=b"", old_until_ms=0)

        return await self._edit(key_id, revoked)

    async def rotate(self, key_id: str, *, overlap_ms: int = 0) -> NewKey:
        """Give it another secret; the present one is good for `overlap_ms` more. Raises `KeyNotFound`, and `Conflict`
        for a revoked one."""
        secret, now = new_secret(), self._now_ms()

        def rotated(key: ApiKey) -> ApiKey:
            if key.revoked_ms is not None:
                raise Conflict("A revoked key cannot be rotated; create a new one.")
            old = {"old_hash": key.secret_hash, "old_until_ms": now + overlap_ms} if overlap_ms else {"old_hash": b""}
            return replace(key, secret_hash=hash_secret(secret), rotated_ms=now, **old)

        return NewKey(await self._edit(key_id, rotated), whole_key(key_id, secret))

    async def limit(self, key_id: str, change: Callable[[Limits], Limits]) -> ApiKey:
        """Give it other limits. Raises `KeyNotFound`."""
        return await self._edit(key_id, lambda key: replace(key, limits=change(key.limits)))

    async def forget(self, key_id: str) -> None:
        """Remove a revoked or expired key from the list. Raises `KeyNotFound`, and `Conflict` for one that is good."""
        for _ in range(MAX_TRIES):
            record = await self._record(key_id)
            if decode_key(record).is_valid(self._now_ms()):
                raise Conflict("This key can be used; revoke it first.")
            if await self._change(key_id, record, b"") is KeyChanged.OK:
                return
        raise _too_many()

    async def _edit(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
        for _ in range(MAX_TRIES):
            record = await self._record(key_id)
            after = change(decode_key(record))
            if await self._change(key_id, record, encode_key(after)) is KeyChanged.OK:
                return after
        raise _too_many()

    async def _change(self, key_id: str, expected: bytes, record: bytes) -> KeyChanged:
        return await self._scripts.change_key(self._hash, key_id, expected=expected, record=record, max_num=MAX_KEYS)

    def _now_ms(self) -> int:
        return int(self._clock.wall() * 1000)


def _not_found(key_id: str) -> KeyNotFound:
    return KeyNotFound(f"There is no key {key_id[:64]!r}; `paddler keys list` has those there are.", param="key_id")


def _too_many() -> Conflict:
    return Conflict("The key is being changed by too many at once; try again.")
