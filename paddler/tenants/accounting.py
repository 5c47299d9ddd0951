"""Usage: every end of a request of an API key is written into its pool's stream `used` by the script that ends it, and
counted from there, once.

Any number of processes may do so at once. Each reads a stream from its beginning and counts in its order, and
`account.lua` passes over what is not behind the last entry that was counted; then the entries are deleted.
"""

from __future__ import annotations

from typing import Any

from paddler.clock import Clock
from paddler.errors import QueueUnavailable
from paddler.logs import get_logger
from paddler.settings import DEFAULT_POOL
from paddler.store.client import TROUBLE, Store
from paddler.store.scripts_tenants import End
from paddler.store.tenant_keys import USAGE_KEEP_S, tenants_key, used_key

PAGE = 200
PERIOD_S = 1.0

log = get_logger(__name__)


class Accountant:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def run_once(self) -> int:
        """Count what has ended in all pools. Returns how many ends were new. Raises what Redis raises."""
        num = 0
        for pool in {DEFAULT_POOL, *await self._store.pool_names()}:
            while ends := await self._read(pool):
                num += await self._count(pool, ends)
        return num

    async def loop(self, clock: Clock) -> None:
        """Never returns."""
        while True:
            try:
                await self.run_once()
            except TROUBLE as error:
                log.debug("cannot account, trying again", error=str(error))
            except Exception as error:
                log.error("cannot account", exc_info=error)
            await clock.sleep(PERIOD_S)

    async def _read(self, pool: str) -> list[tuple[str, End]]:
        """The first ends of a pool, each with its tenant."""
        found: list[tuple[bytes, dict[bytes, bytes]]] = await self._store.redis.xrange(self._used(pool), count=PAGE)
        return [(fields[b"tenant"].decode(), _end(entry.decode(), fields)) for entry, fields in found]

    async def _count(self, pool: str, ends: list[tuple[str, End]]) -> int:
        by_tenant: dict[str, list[End]] = {}
        for tenant, end in ends:
            by_tenant.setdefault(tenant, []).append(end)
        redis: Any = self._store.redis
        tenants = tenants_key(self._store.prefix)
        # Before they are counted: a tenant that nobody lists would be asked for by nobody.
        await redis.sadd(tenants, *by_tenant)
        await redis.expire(tenants, USAGE_KEEP_S)
        num = 0
        for tenant, own in by_tenant.items():
            num += await self._store.tenant_scripts.account(tenant, pool, own)
        await redis.xdel(self._used(pool), *(end.entry for _, end in ends))
        return num

    def _used(self, pool: str) -> str:
        return used_key(self._store.pool(pool).keys.base)


async def account_now(store: Store) -> None:
    """Before usage is shown: what has ended by now is in it. Raises `QueueUnavailable`."""
    try:
        await Accountant(store).run_once()
    except TROUBLE as error:
        raise QueueUnavailable("Redis cannot be reached or refuses writes.", retry_after_s=1) from error


def _end(entry: str, fields: dict[bytes, bytes]) -> End:
    return End(
        entry=entry,
        key_id=fields[b"key"].decode(),
        request_id=fields[b"id"].decode(),
        model=fields[b"model"].decode(),
        prompt_tokens=int(fields[b"prompt"]),
        cached_tokens=int(fields[b"cached"]),
        output_tokens=int(fields[b"output"]),
        is_first=fields[b"first"] == b"1",
    )
