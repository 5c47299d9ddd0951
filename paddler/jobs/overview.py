"""The queue as a whole: what waits, who works, what died. Read from Redis, changed by nobody here.

A pool is read in some transactions, its lists and then its agents, a hundred in each; between them the world may move
on.
"""

from __future__ import annotations

from msgspec import Struct

from paddler.ids import pool_of
from paddler.jobs.lanes import Lane, read_lanes
from paddler.jobs.models import DEFAULT_POOL
from paddler.store.client import Store
from paddler.store.keys import CLASSES, SIDES, PoolKeys, worker_key


class PoolQueue(Struct, frozen=True, kw_only=True):
    """`waiting` is by the class as which requests are served, which is above their own after promotion.
    `demand` counts unfinished requests, waiting or running, but for `demand_batch`."""

    pool: str
    waiting: dict[str, int]
    oldest_wait_ms: int | None
    demand: int
    demand_batch: int
    backlog_tokens: int
    lanes: list[Lane]
    dead_letters: int
    counters: dict[str, int]


class Waiting(Struct, frozen=True, kw_only=True):
    """`position` is how many are served before it if no KV cache matters."""

    position: int
    id: str
    request_class: str
    served_as: str
    tenant: str
    waited_ms: int
    prompt_tokens: int
    deaths: int


class DeadLetter(Struct, frozen=True, kw_only=True):
    """`can_requeue` is over a day after it died."""

    id: str
    died_ms: int
    deaths: int
    tenant: str
    can_requeue: bool


class Overview:
    """Every call raises what Redis raises."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def is_worker_running(self) -> bool:
        return bool(await self._store.redis.exists(worker_key(self._store.prefix)))

    async def pools(self) -> list[PoolQueue]:
        return [await self.pool(name) for name in await self.pool_names()]

    async def pool_names(self) -> list[str]:
        """The default pool takes requests before its first agent."""
        return sorted({DEFAULT_POOL, *await self._store.pool_names()})

    async def pool(self, name: str) -> PoolQueue:
        keys = self._store.pool(name).keys
        pipe = self._store.redis.pipeline(transaction=True)
        for request_class in CLASSES:
            pipe.zcard(keys.order(request_class))
        pipe.zrange(keys.age(), 0, 0, withscores=True)
        pipe.xlen(keys.demand())
        pipe.xlen(keys.demand_batch())
        pipe.mget(*map(keys.backlog, SIDES))
        pipe.xlen(keys.dead())
        pipe.hgetall(keys.counters())
        pipe.zrange(keys.agents(), 0, -1, withscores=True)
        *lengths, oldest, demand, demand_batch, backlog, dead, counters, agents = await pipe.execute()
        now = await self._now()
        return PoolQueue(
            pool=name,
            waiting=dict(zip(CLASSES, lengths, strict=True)),
            oldest_wait_ms=max(0, round(now - oldest[0][1])) if oldest else None,
            demand=demand,
            demand_batch=demand_batch,
            backlog_tokens=sum(int(tokens or 0) for tokens in backlog),
            lanes=await read_lanes(self._store, keys, [(agent.decode(), expiry) for agent, expiry in agents], now),
            dead_letters=dead,
            counters={field.decode(): int(number) for field, number in sorted(counters.items())},
        )

    async def waiting(self, name: str, limit: int) -> list[Waiting]:
        """The first `limit`, in order."""
        keys = self._store.pool(name).keys
        pipe = self._store.redis.pipeline(transaction=True)
        for request_class in CLASSES:
            pipe.zrange(keys.order(request_class), 0, limit - 1)
        found = [
            (member.decode(), where) for where, ids in zip(CLASSES, await pipe.execute(), strict=True) for member in ids
        ]
        rows = await self._requests(
            keys, [one for one, _ in found[:limit]], "class", "tenant", "accepted", "tokens", "deaths"
        )
        now = await self._now()
        return [
            Waiting(
                position=position,
                id=request_id,
                request_class=row[0].decode(),
                served_as=where,
                tenant=(row[1] or b"").decode(),
                waited_ms=max(0, round(now - float(row[2] or now))),
                prompt_tokens=int(row[3] or 0),
                deaths=int(row[4] or 0),
            )
            for position, ((request_id, where), row) in enumerate(zip(found, rows, strict=False))
            if row[0]  # it has gone meanwhile
        ]

    async def dead_letters(self, name: str) -> list[DeadLetter]:
        """The newest first."""
        keys = self._store.pool(name).keys
        entries: list[tuple[bytes, dict[bytes, bytes]]] = await self._store.redis.xrevrange(keys.dead())
        ids = [fields[b"id"].decode() for _, fields in entries]
        rows = await self._requests(keys, ids, "tenant")
        return [
            DeadLetter(
                id=request_id,
                died_ms=int(entry.split(b"-")[0]),
                deaths=int(fields[b"deaths"]),
                tenant=(row[0] or b"").decode(),
                can_requeue=row[0] is not None,
            )
            for request_id, (entry, fields), row in zip(ids, entries, rows, strict=True)
        ]

    async def _requests(self, keys: PoolKeys, ids: list[str], *fields: str) -> list[list[bytes | None]]:
        pipe = self._store.redis.pipeline(transaction=False)
        for request_id in ids:
            pipe.hmget(keys.request(request_id), *fields)
        return await pipe.execute() if ids else []

    async def _now(self) -> float:
        seconds, micros = await self._store.redis.time()
        return seconds * 1000 + micros / 1000


def pools_of(ids: list[str]) -> dict[str, str]:
    """Request ids with their pools. Raises `ValueError` for what is no request id."""
    return {request_id: pool_of(request_id) for request_id in ids}
