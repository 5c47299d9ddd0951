"""What the live feed tells: each topic is things by key, read anew at each tick while somebody follows it.

A new topic is a class with `name` and `read`, given to the `Feed` in `api/panel/app.py`; a page follows it with
`followTopic(name)` and reads `collection(name)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from api.management.pools import pool_object
from api.management.snapshots import agent_object
from paddler.jobs.lanes import Lane
from paddler.metrics.fleet import FleetReading, FleetWatch
from paddler.store.client import Store

_encode = msgspec.json.Encoder().encode


class Topic(Protocol):
    @property
    def name(self) -> str: ...
    async def read(self) -> Mapping[str, bytes] | None:
        """Things by key as JSON; None: nothing is known now, what was told last holds. Raises what Redis raises."""
        ...


async def fleet_of(watch: FleetWatch) -> FleetReading | None:
    """None while Redis cannot be reached."""
    reading = await watch.read()
    return None if reading.redis is None else reading


class AgentsTopic:
    """`<pool>/<id>` -> an `AgentObject` with its `pool`."""

    name = "agents"

    def __init__(self, watch: FleetWatch) -> None:
        self._watch = watch
        self._made: dict[str, tuple[Lane, bytes]] = {}
        """Of 500 agents most say what they said before: a lease that ran on is nothing to be told."""

    async def read(self) -> Mapping[str, bytes] | None:
        reading = await fleet_of(self._watch)
        if reading is None:
            return None
        made: dict[str, tuple[Lane, bytes]] = {}
        for pool in reading.pools:
            for lane in pool.lanes:
                key = f"{pool.pool}/{lane.agent}"
                shown = msgspec.structs.replace(lane, lease_left_ms=-1 if lane.is_lost else 1)
                before = self._made.get(key)
                if before is not None and before[0] == shown:
                    made[key] = before
                else:
                    made[key] = (shown, _encode({"pool": pool.pool, **agent_object(lane)}))
        self._made = made
        return {key: body for key, (_, body) in made.items()}


class PoolsTopic:
    """A pool's name -> a `PoolObject`."""

    name = "pools"

    def __init__(self, watch: FleetWatch, store: Store) -> None:
        self._watch = watch
        self._store = store

    async def read(self) -> Mapping[str, bytes] | None:
        reading = await fleet_of(self._watch)
        if reading is None:
            return None
        redis: Any = self._store.redis
        names = [pool.pool for pool in reading.pools]
        models = await asyncio.gather(*(redis.hkeys(self._store.pool(name).keys.models()) for name in names))
        return {
            pool.pool: _encode(pool_object(pool, sorted(one.decode() for one in told)))
            for pool, told in zip(reading.pools, models, strict=True)
        }


class System(Struct, frozen=True):
    """`worker`: one runs and looks after what dead agents and balancers leave."""

    redis: bool
    worker: bool


class SystemTopic:
    """`system` -> whether Redis answers this balancer, and a worker runs."""

    name = "system"

    def __init__(self, watch: FleetWatch) -> None:
        self._watch = watch
        self._last = System(redis=True, worker=True)

    async def read(self) -> Mapping[str, bytes] | None:
        reading = await fleet_of(self._watch)
        if reading is None:
            self._last = System(redis=False, worker=self._last.worker)
        else:
            self._last = System(redis=True, worker=reading.is_worker_running)
        return {"system": _encode(self._last)}
