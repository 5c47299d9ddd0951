"""The audit of the invariants: what is in Redis, a bounded part a round, shown to `audit.lua`, which mends it.

This only finds what there is to look at and may be old news by the time the script looks: the script decides, from
the state of that moment. A round reads at most `page` entries of each list of a pool and about as many keys of the
server as `SCAN_CALLS` calls return, and goes on there in the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from paddler.jobs.endings import CANCELLED_FRAME
from paddler.logs import get_logger
from paddler.store.client import Store
from paddler.store.keys import CLASSES, PoolKeys
from paddler.store.results import AuditItem, Mended
from paddler.store.scripts import PoolScripts
from workers.maintenance.isolation import only_this_pool

log = get_logger(__name__)

PAGE = 250
BATCH = 20  # a script call then holds Redis for about half a millisecond
SCAN_CALLS = 4
STREAMS = ("demand", "demand:batch", "buffer")
QUEUED_SAMPLE = 100
LOGGED = 20


class _Place(Struct):
    """How far the audit of one pool has come: the last entry of each stream, the cursor of each zset."""

    streams: dict[str, str] = field(default_factory=dict[str, str])
    zsets: dict[str, int] = field(default_factory=dict[str, int])


class Auditor:
    """`run_once` every few seconds; where it is, it keeps in memory, so another worker begins at the beginning."""

    def __init__(self, store: Store, *, page: int = PAGE) -> None:
        self._store = store
        self._page = page
        self._places: dict[str, _Place] = {}
        self._cursor = 0

    async def run_once(self, names: Sequence[str]) -> list[Mended]:
        """One round over these pools. Raises what Redis raises. Returns what was broken."""
        mended: list[Mended] = []
        keyed = await self._scan()
        for name in names:
            with only_this_pool(name):
                mended += await self._pool_once(name, keyed.get(name, []))
        return mended

    async def _pool_once(self, name: str, keyed: list[tuple[str, str]]) -> list[Mended]:
        items = [*await self._listed(name), *await self._of_keys(name, keyed)]
        found = await self._audit(self._store.pool(name), _once_each(items))
        for one in found[:LOGGED]:
            log.warning("repaired a broken invariant", pool=name, what=one.what, id=one.id)
        if len(found) > LOGGED:
            log.warning("repaired more broken invariants", pool=name, repairs=len(found) - LOGGED)
        return found

    async def _audit(self, pool: PoolScripts, items: Sequence[AuditItem]) -> list[Mended]:
        mended: list[Mended] = []
        for at in range(0, len(items), BATCH):
            mended += await pool.audit(items[at : at + BATCH], cancel_frame=CANCELLED_FRAME)
        # Last and alone: what was mended before counts in the sum.
        return mended + await pool.audit([AuditItem("backlog")], cancel_frame=CANCELLED_FRAME)

    async def _listed(self, name: str) -> list[AuditItem]:
        """The next page of every list of a pool."""
        keys, place = self._store.pool(name).keys, self._places.setdefault(name, _Place())
        items: dict[AuditItem, None] = {}
        for where, stream in zip(STREAMS, (keys.demand(), keys.demand_batch(), keys.buffer()), strict=True):
            after = place.streams.get(where)
            page = await self._store.redis.xrange(stream, f"({after}" if after else "-", "+", count=self._page)
            place.streams[where] = page[-1][0].decode() if len(page) == self._page else ""
            for entry, fields in page:
                items[AuditItem(where, fields.get(b"id", b"").decode(), entry.decode())] = None
        for zset in (*map(keys.order, CLASSES), keys.age(), keys.deadlines()):
            items |= {AuditItem("request", member): None for member in await self._members(place, zset)}
        for zset in (keys.agents(), keys.free()):
            items |= {AuditItem("agent", member): None for member in await self._members(place, zset)}
        return list(items)

    async def _members(self, place: _Place, zset: str) -> list[str]:
        cursor, found = await self._store.redis.zscan(zset, place.zsets.get(zset, 0), count=self._page)
        place.zsets[zset] = cursor
        return [member.decode() for member, _ in found]

    async def _scan(self) -> dict[str, list[tuple[str, str]]]:
        """The next keys of all pools of this fleet, as (kind, rest) by pool."""
        found: dict[str, list[tuple[str, str]]] = {}
        for _ in range(SCAN_CALLS):
            self._cursor, names = await self._store.redis.scan(
                self._cursor, match=f"{self._store.prefix}:{{*", count=self._page
            )
            for name in names:
                pool, _, rest = name.decode()[len(self._store.prefix) + 2 :].partition("}:")
                kind, _, rest = rest.partition(":")
                found.setdefault(pool, []).append((kind, rest))
            if self._cursor == 0:
                break
        return found

    async def _of_keys(self, name: str, found: list[tuple[str, str]]) -> list[AuditItem]:
        keys = self._store.pool(name).keys
        items = dict.fromkeys(_items_of_keys(found))
        for kind, rest in found:
            if kind == "queued":
                # A sample: it changes with every round, so that everything has its turn.
                side, _, tenant = rest.partition(":")
                ids = await self._store.redis.srandmember(keys.queued(side, tenant), QUEUED_SAMPLE)
                items |= {AuditItem("queued", member.decode(), rest): None for member in ids}
            elif kind == "aside":
                ids = await self._store.redis.srandmember(keys.aside(), QUEUED_SAMPLE)
                items |= {AuditItem("request", member.decode()): None for member in ids}
        await self._trim(keys, [rest for kind, rest in found if kind == "holders"])
        return list(items)

    async def _trim(self, keys: PoolKeys, hashes: list[str]) -> None:
        """A prefix that is always held by somebody never loses its key's TTL: its dead holders are removed here."""
        seconds, _ = await self._store.redis.time()
        pipe = self._store.redis.pipeline(transaction=False)
        for prefix_hash in hashes:
            pipe.zremrangebyscore(keys.holders(prefix_hash), "-inf", f"({seconds * 1000}")
        if hashes:
            await pipe.execute()


def _items_of_keys(found: list[tuple[str, str]]) -> Iterator[AuditItem]:
    for kind, rest in found:
        if kind in ("request", "payload", "journal", "watchers"):
            yield AuditItem("request", rest)
        elif kind in ("lane", "agent", "preempted"):
            yield AuditItem("agent", rest)


def _once_each(items: Sequence[AuditItem]) -> list[AuditItem]:
    """A request that is looked at for one of its entries need not be looked at for its own sake."""
    entered = {item.id for item in items if item.where in STREAMS}
    return [item for item in dict.fromkeys(items) if item.where != "request" or item.id not in entered]
