"""What the pure policy (`paddler/routing`) decides about the state that Redis has: the other side of the scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paddler.routing.fairness import advance, charge
from paddler.routing.policy import (
    AgentView,
    Give,
    Nothing,
    RequestClass,
    Reserve,
    Waiting,
    Why,
    choose,
    promotions,
    window,
)
from paddler.store.scripts import PoolScripts

CLASSES: tuple[RequestClass, ...] = ("interactive", "normal", "batch")
COUNTERS = {
    Why.RESERVED: "claimed_reserved",
    Why.OLDEST: "claimed_oldest",
    Why.MATCH: "claimed_own",
    Why.COLD: "claimed_cold",
    Why.STOLEN: "claimed_stolen",
}


@dataclass(frozen=True)
class Turn:
    """What one claim gives: tickets in order with the rule, and the hint (0: none)."""

    tickets: list[tuple[str, Why]]
    hint_ms: int


@dataclass
class PolicyState:
    """A pool as the policy sees it. `starts`, `costs` and `weights` are of what waits, `tags` by class and tenant;
    `promoted` are those that wait where they were promoted to; `holders` counts live agents only."""

    waiting: dict[str, Waiting]
    starts: dict[str, float]
    costs: dict[str, tuple[int, float]]
    tags: dict[tuple[RequestClass, str], float]
    promoted: dict[tuple[RequestClass, str], str]
    clocks: dict[RequestClass, float]
    holders: dict[bytes, list[str]]
    agents: dict[str, AgentView]

    def oldest(self) -> list[Waiting]:
        return sorted(self.waiting.values(), key=lambda one: (one.accepted_ms, one.id))

    def orders(self) -> dict[RequestClass, list[Waiting]]:
        by_score = sorted(self.waiting.values(), key=lambda one: (one.score, one.id))
        return {name: [one for one in by_score if one.request_class == name] for name in CLASSES}

    def claim(self, agent_id: str, now_ms: int, *, limit: int = 1_000_000) -> Turn:
        """Steps 4 as `claim_for`, one slot after another. Changes the state."""
        agent = self.agents[agent_id]
        tickets: list[tuple[str, Why]] = []
        if agent.num_free > 0 and agent.reserved is None:
            for moved in promotions(self.orders(), self.promoted, now_ms):
                self._promote(self.waiting[moved.request_id], moved.request_class, now_ms)
        for _ in range(min(agent.num_free, limit)):
            choice = choose(agent, window(self.orders()), self.oldest(), self.holders, now_ms)
            if isinstance(choice, Nothing):
                return Turn(tickets, choice.hint_ms or 0)
            if isinstance(choice, Reserve):
                return Turn(tickets, 0)
            request = self._give(choice)
            tickets.append((request.id, choice.why))
            agent = _replaced(
                agent, num_free=agent.num_free - 1, num_claims=agent.num_claims + 1, lane_is_empty=False, reserved=None
            )
            if request.is_suspect:
                return Turn(tickets, 0)
        return Turn(tickets, 0)

    def _promote(self, before: Waiting, name: RequestClass, now_ms: int) -> None:
        self.clocks[before.request_class] = advance(self.clocks[before.request_class], self.starts[before.id])
        place = (name, before.tenant)
        tags = charge(self.clocks[name], self.tags.get(place, 0.0), *self.costs[before.id])
        self.tags[place], self.starts[before.id], self.promoted[place] = tags.finish, tags.start, before.id
        self.waiting[before.id] = _replaced(before, request_class=name, score=tags.finish, since_ms=now_ms)

    def _give(self, choice: Give) -> Waiting:
        request = self.waiting.pop(choice.request_id)
        name = request.request_class
        self.clocks[name] = advance(self.clocks[name], self.starts.pop(request.id))
        return request


def _replaced(struct: Any, **changes: Any) -> Any:
    return type(struct)(**{name: getattr(struct, name) for name in struct.__struct_fields__} | changes)


def chain_of_packed(packed: bytes) -> tuple[tuple[bytes, int], ...]:
    entries = [packed[at : at + 15] for at in range(0, len(packed), 15)]
    return tuple((entry[:11], int.from_bytes(entry[11:], "big")) for entry in entries)


async def read_policy_state(pool: PoolScripts, now_ms: int) -> PolicyState:
    """Read the pool, in several steps: nothing else may move."""
    redis, keys = pool.redis, pool.keys
    leases = await redis.zrange(keys.agents(), 0, -1, withscores=True)
    live = [name.decode() for name, expiry in leases if expiry > now_ms]
    waiting: dict[str, Waiting] = {}
    starts: dict[str, float] = {}
    costs: dict[str, tuple[int, float]] = {}
    for name in CLASSES:
        for raw, score in await redis.zrange(keys.order(name), 0, -1, withscores=True):
            request_id = raw.decode()
            fields = ("accepted", "chain", "tokens", "fruitless", "suitor", "avoid", "start", "tenant", "since", "cost")
            accepted, chain, tokens, fruitless, suitor, avoid, start, tenant, since, cost, weight = await redis.hmget(
                keys.request(request_id), *fields, "weight"
            )
            waiting[request_id] = Waiting(
                id=request_id,
                request_class=name,
                score=score,
                accepted_ms=int(accepted),
                chain=chain_of_packed(chain or b""),
                num_tokens=int(tokens),
                is_suspect=int(fruitless or 0) > 0,
                suitor=suitor.decode() if suitor and suitor.decode() in live else None,
                avoid=avoid.decode() if avoid else None,
                tenant=tenant.decode(),
                since_ms=int(since) if since else None,
            )
            starts[request_id] = float(start)
            costs[request_id] = int(cost), float(weight)
    holders: dict[bytes, list[str]] = {}
    for digest in {digest for one in waiting.values() for digest, _ in one.chain}:
        found = await redis.zrangebyscore(keys.holders(digest.decode()), f"({now_ms}", "+inf")
        if holding := [name.decode() for name in found if name.decode() in live]:
            holders[digest] = holding
    places: list[tuple[RequestClass, str]] = [
        (name, tenant) for name in CLASSES for tenant in {one.tenant for one in waiting.values()}
    ]
    latest = {place: (await redis.get(keys.promoted(*place)) or b"").decode() for place in places}
    return PolicyState(
        waiting=waiting,
        starts=starts,
        costs=costs,
        tags={place: float(await redis.get(keys.tag(*place)) or 0) for place in places},
        promoted={
            place: request_id
            for place, request_id in latest.items()
            if request_id in waiting and waiting[request_id].request_class == place[0]
        },
        clocks={name: float(await redis.get(keys.vtime(name)) or 0) for name in CLASSES},
        holders=holders,
        agents={agent_id: await _agent(pool, agent_id, waiting, now_ms) for agent_id in live},
    )


async def _agent(pool: PoolScripts, agent_id: str, waiting: dict[str, Waiting], now_ms: int) -> AgentView:
    redis, keys = pool.redis, pool.keys
    slots, state, solo, prefill, claims, wish, restore = await redis.hmget(
        keys.agent(agent_id), "slots", "state", "solo", "prefill", "claims", "drain", "restore"
    )
    num_busy = await redis.xlen(keys.lane(agent_id))
    return AgentView(
        id=agent_id,
        num_free=int(slots) - num_busy if state == b"ready" and not solo and not wish else 0,
        held=await redis.smembers(keys.held(agent_id)),
        prefill_tokens_per_s=float(prefill or 0),
        num_claims=int(claims or 0),
        lane_is_empty=num_busy == 0,
        reserved=next((one.id for one in waiting.values() if one.suitor == agent_id), None),
        num_slots=int(slots),
        near=await _near(pool, agent_id, waiting, now_ms),
        restore_tokens_per_s=float(restore or 0),
    )


async def _near(pool: PoolScripts, agent_id: str, waiting: dict[str, Waiting], now_ms: int) -> set[bytes]:
    """What an agent could restore: of others that have an address if it has one, of the shared store if it uses it."""
    url, uses_store = await pool.redis.hmget(pool.keys.agent(agent_id), "kv_url", "kv_shared")
    found: set[bytes] = set()
    for digest in {digest for one in waiting.values() for digest, _ in one.chain}:
        holders = await pool.redis.zrangebyscore(pool.keys.holders(digest.decode()), f"({now_ms}", "+inf")
        for name in (one.decode() for one in holders):
            lease = await pool.redis.zscore(pool.keys.agents(), name)
            is_other = name != agent_id and lease is not None and lease > now_ms
            gives = is_other and url and await pool.redis.hget(pool.keys.agent(name), "kv_url")
            if gives or (name == "*shared" and uses_store == b"1"):
                found.add(digest)
    return found
