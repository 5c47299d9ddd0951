"""What a balancer knows of a pool's agents, at most a second or two old: rates for estimates, names for `model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from paddler.clock import Clock
from paddler.errors import InvalidField
from paddler.model_facts import ModelFacts, decode_facts
from paddler.store.client import Store
from paddler.store.keys import CLASSES, SIDES
from paddler.store.paging import in_pages
from paddler.wire.agent import Embed, Generate, Payload, Rerank, ability_for

REFRESH_S = 1.0
DEFAULT_BYTES_PER_TOKEN = 4.0
_FIELDS = ("slots", "rate", "bytes_per_token", "abilities", "state", "model", "facts", "drain")


class PoolView(Struct, frozen=True):
    """`rate` is what the pool computes, tokens/s, 0 when no agent has measured it. `abilities` are those of all its
    agents together, None when there is no agent, or one that publishes none: then nothing is known. `common` are those
    that each of them has, none if there is one that publishes none. `waiting` is how many requests wait on each side,
    `backlog` about how many tokens those cost. `facts` are those of the models that its agents serve, by name."""

    num_agents: int = 0
    slots_total: int = 0
    rate: float = 0.0
    bytes_per_token: float = DEFAULT_BYTES_PER_TOKEN
    abilities: frozenset[str] | None = None
    common: frozenset[str] = frozenset()
    waiting: Mapping[str, int] = {}
    backlog: Mapping[str, int] = {}
    facts: Mapping[str, ModelFacts] = {}

    def check_able(self, payload: Payload) -> None:
        """Raises `InvalidField` for what no agent here can do: it would only wait to be refused by one. A question
        is for all of them to be able to: an older agent could not even read it, and no claim looks at abilities."""
        if not isinstance(payload, Generate | Embed | Rerank):
            if self.num_agents and ability_for(payload) not in self.common:
                raise InvalidField(
                    f"not all agents of this model can {ability_for(payload)}: bring them to one version of Paddler",
                    param="model",
                )
            return
        if self.abilities is not None and ability_for(payload) not in self.abilities:
            can = " and ".join(sorted(self.abilities))
            raise InvalidField(
                f"the agents of this model cannot {ability_for(payload)}, only {can}: choose another model for this",
                param="model",
            )


class FleetView:
    """Reads a pool's snapshots when somebody asks and the last reading is old."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._views: dict[str, tuple[float, PoolView]] = {}

    async def pool(self, name: str) -> PoolView:
        """Raises what Redis raises."""
        now = self._clock.monotonic()
        read_at, view = self._views.get(name, (0.0, PoolView()))
        if name in self._views and now - read_at < REFRESH_S:
            return view
        # Before the first await: others go on with the old view while this one reads.
        self._views[name] = (now, view)
        view = await self._read(name, view)
        self._views[name] = (now, view)
        return view

    async def _read(self, name: str, last: PoolView) -> PoolView:
        keys = self._store.pool(name).keys
        agent_ids = [one.decode() for one in await self._store.redis.zrange(keys.agents(), 0, -1)]
        found: list[list[Any]] = await in_pages(
            self._store.redis, agent_ids, lambda pipe, agent: pipe.hmget(keys.agent(agent), *_FIELDS)
        )
        pipe = self._store.redis.pipeline(transaction=False)
        pipe.scard(keys.aside())
        pipe.mget(*map(keys.backlog, SIDES))
        for request_class in CLASSES:
            pipe.zcard(keys.order(request_class))
        num_background, backlogs, *lengths = await pipe.execute()
        # One that loads, waits for a model or has one that cannot be served says nothing of the pool.
        rows = [row for row in found if row[4] not in (b"loading", b"waiting", b"failed")]
        told = [row[3].decode() for row in rows if row[3]]
        each = [frozenset((row[3] or b"").decode().split()) for row in rows]
        ratios = [float(row[2]) for row in rows if row[2]]
        # One that an operator drains could serve again, but nothing is to be expected of it.
        active = [row for row in rows if not row[7]]
        # A thousand agents serve a few models: each is decoded once.
        served: dict[bytes, bytes] = {row[5]: row[6] for row in rows if row[5] and row[6]}
        return PoolView(
            num_agents=len(rows),
            slots_total=sum(int(row[0] or 0) for row in active),
            rate=sum(float(row[1] or 0) for row in active),
            # Without agents the last known ratio is still the best guess.
            bytes_per_token=sum(ratios) / len(ratios) if ratios else last.bytes_per_token,
            abilities=frozenset(" ".join(told).split()) if told and len(told) == len(rows) else None,
            waiting={"foreground": sum(lengths) - num_background, "background": num_background},
            backlog={side: max(0, int(tokens or 0)) for side, tokens in zip(SIDES, backlogs, strict=True)},
            facts={name.decode(): facts for name, told in served.items() if (facts := decode_facts(told))},
            common=each[0].intersection(*each[1:]) if each else frozenset(),
        )
