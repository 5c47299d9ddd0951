"""Which names `model` in a request may have, and the pool each stands for."""

from __future__ import annotations

from msgspec import Struct

from paddler.clock import Clock
from paddler.desired.store import DesiredStates
from paddler.errors import ModelNotFound, QueueUnavailable
from paddler.store.client import TROUBLE, Store

DEFAULT_POOL = "default"
TTL_S = 1.0


class PoolModel(Struct, frozen=True):
    """A name that `model` in a request may have. `created` is seconds since the epoch; `is_alias`: an operator has
    given it to the pool, whatever that serves."""

    id: str
    pool: str
    created: int
    is_alias: bool = False


class Models:
    """Pool names, their aliases, and the models their agents served last; they outlive the agents, so that a fleet
    scaled to zero still accepts their names. Where two pools have a name, it is first a pool's own, then an alias."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._states = DesiredStates(store, clock)
        self._clock = clock
        self._known: list[PoolModel] = []
        self._fresh_until = 0.0

    async def resolve(self, model: str) -> str:
        """The pool that serves `model`. Raises `ModelNotFound` or `QueueUnavailable`."""
        if model == DEFAULT_POOL:
            return DEFAULT_POOL
        known = await self.list()
        for entry in known:
            if entry.id == model:
                return entry.pool
        names = ", ".join(entry.id for entry in known)
        raise ModelNotFound(f"no pool serves the model {model!r}; there is: {names}", param="model")

    async def list(self) -> list[PoolModel]:
        """Raises `QueueUnavailable`."""
        now = self._clock.monotonic()
        if now >= self._fresh_until:
            try:
                self._known = await self._read()
            except TROUBLE as error:
                raise QueueUnavailable("Redis cannot be reached.", retry_after_s=1) from error
            self._fresh_until = now + TTL_S
        return self._known

    async def _read(self) -> list[PoolModel]:
        pools = sorted({DEFAULT_POOL, *await self._store.pool_names()})
        aliases = await self._states.aliases(pools)
        # From the last, so that the first pool keeps a name that two writers have given at once.
        taken = {name: pool for pool in reversed(pools) for name in aliases[pool]}
        taken.update({pool: pool for pool in pools})
        found: list[PoolModel] = []
        for pool in pools:
            key = self._store.pool(pool).keys.models()
            fields: dict[bytes, bytes] = await self._store.redis.hgetall(key)
            created = {name.decode(): int(seen) for name, seen in fields.items()}
            first = min(created.values(), default=0)
            found.append(PoolModel(pool, pool, first))
            found += [
                PoolModel(name, pool, first, is_alias=True)
                for name in aliases[pool]
                if taken[name] == pool and name != pool
            ]
            found += [PoolModel(name, pool, seen) for name, seen in sorted(created.items()) if name not in taken]
        return found
