"""Pinned prefixes in Redis: pinned and unpinned by operators, followed by agents, which count who begins with them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping

from msgspec import Struct

from paddler.clock import Clock, SystemClock
from paddler.errors import Conflict, PrefixNotFound
from paddler.prefixes.records import MAX_PREFIXES, Held, Prefix, Record, decode_held, decode_prefix, encode_record
from paddler.store.client import Store
from paddler.store.keys import PoolKeys
from paddler.store.listening import follow
from paddler.store.prefix_keys import contents_key, hits_key, prefixes_channel, prefixes_key, turn_key
from paddler.store.scripts_prefix import Pinning
from paddler.wire.agent import Generate, decode_payload, encode_payload

MAX_AUTHOR = 200


class Pinned(Struct, frozen=True):
    """`is_new`: there was none of this name."""

    prefix: Prefix
    is_new: bool


class HeldBy(Struct, frozen=True):
    """How an agent stands to a prefix."""

    agent: str
    agent_name: str
    held: Held


class Shown(Struct, frozen=True):
    """A prefix with how often requests began with it, and how the agents of its pool stand to it."""

    prefix: Prefix
    hits: int
    agents: tuple[HeldBy, ...]


class Prefixes:
    """Of every pool. Each call raises what Redis raises."""

    def __init__(self, store: Store, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()

    async def pin(self, pool: str, name: str, content: Generate, *, tenant: str | None, author: str) -> Pinned:
        """Pin what `check_content` has let through, in place of what has this name. The same for the same tenant stays
        the version that it is. Raises `Conflict` when the pool has as many as it may."""
        encoded = encode_payload(content)
        created_ms = int(self._clock.wall() * 1000)
        record = Record(num_bytes=len(encoded), created_ms=created_ms, tenant=tenant, author=author[:MAX_AUTHOR])
        digest = hashlib.sha256(encoded + b"\0" + (tenant or "").encode()).hexdigest()
        # Listed before it has agents: they find it when they start.
        await self._store.add_pool(pool)
        made = await self._store.prefix_scripts.pin_prefix(
            self._base(pool),
            name,
            digest=digest,
            record=encode_record(record),
            content=encoded,
            max_prefixes=MAX_PREFIXES,
        )
        if made.pinning is Pinning.FULL:
            raise Conflict(f"Pool {pool} has {MAX_PREFIXES} pinned prefixes, as many as it may: remove one first.")
        prefix = Prefix(name=name, version=made.version, record=record)
        if made.pinning is Pinning.SAME:
            prefix = await self._find(pool, name) or prefix
        return Pinned(prefix, made.pinning is Pinning.NEW)

    async def unpin(self, pool: str, name: str) -> None:
        """Raises `PrefixNotFound`."""
        await self.get(pool, name)
        await self._store.prefix_scripts.unpin_prefix(self._base(pool), name)

    async def read(self, pool: str) -> tuple[Prefix, ...]:
        """By name. Raises `msgspec.MsgspecError` for what this version cannot read."""
        found: dict[bytes, bytes] = await self._store.redis.hgetall(prefixes_key(self._base(pool)))
        return tuple(decode_prefix(name.decode(), entry) for name, entry in sorted(found.items()) if name)

    async def get(self, pool: str, name: str) -> Prefix:
        """Raises `PrefixNotFound`."""
        if (found := await self._find(pool, name)) is None:
            raise PrefixNotFound(f"Pool {pool} has no pinned prefix {name[:80]!r}.", param="prefix")
        return found

    async def content(self, pool: str, prefix: Prefix) -> Generate | None:
        """What this very version is, None when it is not pinned any more: another may be another tenant's."""
        pipe = self._store.redis.pipeline(transaction=True)
        pipe.hget(prefixes_key(self._base(pool)), prefix.name)
        pipe.hget(contents_key(self._base(pool)), prefix.name)
        entry, data = await pipe.execute()
        if entry is None or data is None or decode_prefix(prefix.name, entry).version != prefix.version:
            return None
        payload = decode_payload(data)
        return payload if isinstance(payload, Generate) else None

    async def shown(self, pool: str, only: str | None = None) -> list[Shown]:
        """All of them, or that of one name. Raises `PrefixNotFound`."""
        prefixes = await self.read(pool) if only is None else (await self.get(pool, only),)
        keys = self._store.pool(pool).keys
        hits: dict[bytes, bytes] = await self._store.redis.hgetall(hits_key(keys.base))
        held = await self._held(keys)
        return [
            Shown(
                one,
                int(hits.get(one.name.encode(), 0)),
                tuple(told for told in held if (told.held.name, told.held.version) == (one.name, one.version)),
            )
            for one in prefixes
        ]

    def changes(self, pool: str) -> AsyncGenerator[tuple[Prefix, ...], None]:
        """Those that there are, then whenever they have changed; see `store.listening.follow`."""
        channel = prefixes_channel(self._base(pool))
        return follow(self._store, channel, lambda: self.read(pool), self._clock, what="the pinned prefixes")

    async def count_hits(self, pool: str, hits: Mapping[str, int]) -> None:
        """Add to how often requests began with prefixes."""
        pipe = self._store.redis.pipeline(transaction=True)
        for name, number in hits.items():
            pipe.hincrby(hits_key(self._base(pool)), name, number)
        await pipe.execute()

    async def take_turn(self, pool: str, name: str, who: str, *, lease_ms: int) -> bool:
        """Be the one that computes a prefix, or go on being it; 0 gives that up. Is it ours now?"""
        return await self._store.leases.lead(turn_key(self._base(pool), name), who, lease_ms=lease_ms)

    async def _find(self, pool: str, name: str) -> Prefix | None:
        entry: bytes | None = await self._store.redis.hget(prefixes_key(self._base(pool)), name) if name else None
        return None if entry is None else decode_prefix(name, entry)

    async def _held(self, keys: PoolKeys) -> list[HeldBy]:
        agents: list[bytes] = await self._store.redis.zrange(keys.agents(), 0, -1)
        pipe = self._store.redis.pipeline(transaction=False)
        for agent in agents:
            pipe.hmget(keys.agent(agent.decode()), "name", "pinned")
        told: list[tuple[bytes | None, bytes | None]] = await pipe.execute() if agents else []
        return [
            HeldBy(agent.decode(), (name or b"").decode(errors="replace"), held)
            for agent, (name, pinned) in zip(agents, told, strict=True)
            for held in decode_held(pinned)
        ]

    def _base(self, pool: str) -> str:
        return self._store.pool(pool).keys.base
