"""All that Redis knows of a pool, read in one step, and the invariants that hold between its keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from paddler.store.keys import CLASSES, SIDES
from paddler.store.scripts import PoolScripts

# Reads only. ARGV: number of request ids, the ids, number of agents, the agents, then tenants.
READ = """
local P = KEYS[1]
local function ids(stream)
  local found = {}
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+')) do found[#found + 1] = entry[2][2] end
  return found
end
local at = 2
local function take(read)
  local found = {}
  for _ = 1, tonumber(ARGV[at - 1]) do
    found[#found + 1] = read(ARGV[at])
    at = at + 1
  end
  at = at + 1
  return found
end
local requests = take(function(id)
  local key = P .. ':request:' .. id
  local ttls = {}
  for _, kind in ipairs({'request', 'payload', 'journal', 'watchers'}) do
    ttls[#ttls + 1] = redis.call('TTL', P .. ':' .. kind .. ':' .. id)
  end
  return {redis.call('HMGET', key, 'state', 'agent', 'attempt', 'deaths', 'suitor', 'avoid', 'queue', 'cost', 'cancel',
    'score', 'accepted', 'fruitless', 'class', 'background'), redis.call('GET', P .. ':journal:' .. id) or '',
    redis.call('SMEMBERS', P .. ':watchers:' .. id), ttls}
end)
local agents = take(function(agent)
  return {ids(P .. ':lane:' .. agent), redis.call('ZSCORE', P .. ':free', agent) or '0',
    redis.call('HMGET', P .. ':agent:' .. agent, 'reserved', 'solo', 'drain'),
    redis.call('TTL', P .. ':held:' .. agent)}
end)
local queued = {{}, {}}
for i = at - 1, #ARGV do
  for n, side in ipairs({'foreground', 'background'}) do
    local key = P .. ':queued:' .. side .. ':' .. ARGV[i]
    for _, id in ipairs(redis.call('SMEMBERS', key)) do table.insert(queued[n], id) end
  end
end
local orders, clocks = {}, {}
for _, class in ipairs({'interactive', 'normal', 'batch'}) do
  orders[#orders + 1] = redis.call('ZRANGE', P .. ':order:' .. class, 0, -1, 'WITHSCORES')
  clocks[#clocks + 1] = redis.call('GET', P .. ':vtime:' .. class) or '0'
end
return {requests, agents, queued, orders, clocks, redis.call('ZRANGE', P .. ':age', 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', P .. ':deadlines', 0, -1, 'WITHSCORES'), ids(P .. ':buffer'), ids(P .. ':demand'),
  ids(P .. ':demand:batch'), ids(P .. ':dead'),
  redis.call('MGET', P .. ':backlog:foreground', P .. ':backlog:background'),
  redis.call('HMGET', P .. ':counters', 'done', 'failed', 'cancelled'), redis.call('SMEMBERS', P .. ':aside')}
"""


@dataclass(frozen=True)
class SeenRequest:
    state: str
    agent: str
    attempt: int
    deaths: int
    fruitless: int
    side: str
    suitor: str
    avoid: str
    queue: str
    cost: int
    is_stopping: bool
    score: float
    accepted: float
    journal: bytes
    watchers: set[str]
    ttls: tuple[int, ...]
    """Of request, payload, journal, watchers: -2 no key, -1 no TTL, 0 some."""


@dataclass(frozen=True)
class SeenAgent:
    lane: list[str]
    free: int
    reserved: str
    solo: str
    wish: str


@dataclass(frozen=True)
class Seen:
    """Lists of ids are sorted: a doubled one shows."""

    requests: dict[str, SeenRequest]
    agents: dict[str, SeenAgent]
    queued: dict[str, list[str]]
    aside: list[str]
    orders: dict[str, dict[str, float]]
    clocks: tuple[float, ...]
    age: dict[str, float]
    deadlines: dict[str, float]
    buffer: list[str]
    demand: list[str]
    demand_batch: list[str]
    dead: list[str]
    backlog: dict[str, int]
    ends: dict[str, int]


def _text(value: bytes | None) -> str:
    return (value or b"").decode()


def _texts(values: Collection[bytes]) -> list[str]:
    return sorted(value.decode() for value in values)


def _scores(flat: list[bytes]) -> dict[str, float]:
    return {key.decode(): float(score) for key, score in zip(flat[::2], flat[1::2], strict=True)}


def _request(fields: list[bytes | None], journal: bytes, watchers: list[bytes], ttls: list[int]) -> SeenRequest:
    state, agent, attempt, deaths, suitor, avoid, queue, cost, cancel, score, accepted, fruitless, name, background = (
        map(_text, fields)
    )
    return SeenRequest(
        state,
        agent,
        int(attempt),
        int(deaths or 0),
        int(fruitless or 0),
        "background" if name == "batch" or background else "foreground",
        suitor,
        avoid,
        queue,
        int(cost),
        cancel != "",
        float(score),
        float(accepted),
        journal,
        {watcher.decode() for watcher in watchers},
        tuple(min(ttl, 0) for ttl in ttls),
    )


async def look(pool: PoolScripts, ids: Collection[str], agents: Collection[str], tenants: Collection[str]) -> Seen:
    """Read these requests and agents, and all that lists them."""
    arguments = [len(ids), *ids, len(agents), *agents, *tenants]
    found: list[Any] = await pool.redis.eval(READ, 1, pool.keys.base, *arguments)
    requests, lanes, queued, orders, clocks, age, deadlines, buffer, demand, batch, dead, backlog, ends, aside = found
    return Seen(
        requests={key: _request(*row) for key, row in zip(ids, requests, strict=True)},
        agents={
            key: SeenAgent(_texts(lane), int(free), _text(reserved), _text(solo), _text(wish))
            for key, (lane, free, (reserved, solo, wish), _) in zip(agents, lanes, strict=True)
        },
        queued={side: _texts(ids) for side, ids in zip(SIDES, queued, strict=True)},
        aside=_texts(aside),
        orders={name: _scores(flat) for name, flat in zip(CLASSES, orders, strict=True)},
        clocks=tuple(float(clock) for clock in clocks),
        age=_scores(age),
        deadlines=_scores(deadlines),
        buffer=_texts(buffer),
        demand=_texts(demand),
        demand_batch=_texts(batch),
        dead=_texts(dead),
        backlog={side: int(tokens or 0) for side, tokens in zip(SIDES, backlog, strict=True)},
        ends={name: int(num or 0) for name, num in zip(("done", "failed", "cancelled"), ends, strict=True)},
    )


def check_integrity(seen: Seen) -> None:
    """The invariants that need no model: between the keys themselves."""
    waiting = sorted(key for key, one in seen.requests.items() if one.state == "waiting")
    given = sorted(key for key, one in seen.requests.items() if one.state in ("assigned", "running"))
    lanes = {agent_id: agent.lane for agent_id, agent in seen.agents.items()}
    assert len(seen.buffer) + sum(map(len, lanes.values())) == len(seen.demand) + len(seen.demand_batch)
    assert sorted([*seen.demand, *seen.demand_batch]) == sorted(waiting + given), "the ledger"
    assert seen.buffer == waiting, "the buffer"
    assert sorted(key for order in seen.orders.values() for key in order) == waiting, "the orders"
    assert sorted(seen.age) == waiting, "the ages"
    assert sorted(key for lane in lanes.values() for key in lane) == given, "the lanes"
    for side in SIDES:
        mine = [key for key in waiting if seen.requests[key].side == side]
        assert seen.queued[side] == mine, "the tenants' sets"
        assert seen.backlog[side] == sum(seen.requests[key].cost for key in mine), "the backlog"
        assert side == "foreground" or seen.aside == mine, "what waits aside"
    assert Counter(seen.deadlines.keys()) <= Counter(waiting), "the deadlines"
    for key, one in seen.requests.items():
        if one.state == "waiting":
            assert (seen.orders[one.queue][key], seen.age[key]) == (one.score, one.accepted)
        elif one.state in ("assigned", "running"):
            assert key in lanes[one.agent]
            assert not one.suitor
        # -2: no journal, no watchers: there was nothing to say, or nobody to say it to.
        is_kept = one.state in ("waiting", "assigned", "running")
        assert all((ttl == -1) == is_kept for ttl in one.ttls if ttl != -2), (one, "a TTL exactly from the end on")
    for agent_id, agent in seen.agents.items():
        if agent.reserved:
            assert seen.requests[agent.reserved].suitor == agent_id
            assert agent.reserved in waiting
        if agent.solo:
            assert agent.lane == [agent.solo], "a suspect has the lane alone"
