"""The unfinished requests of a pool, page by page: what agents have been given, then what waits, in order.

One call looks at `MAX_LOOKED` requests at most, however many there are. So a page of a filter that few pass may be
short, or empty; the list is at its end when there is no cursor. Between two pages the queue moves on: what is handed
back, or given away meanwhile, may be on two pages or on none.
"""

from __future__ import annotations

import base64
import math
import re
from bisect import bisect_left
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from paddler.store.client import Store
from paddler.store.keys import CLASSES, PoolKeys

MAX_LOOKED = 1000
CHUNK = 200
LANES_AT_ONCE = 32

_FIELDS = (
    *("state", "class", "tenant", "agent", "attempt", "deaths", "accepted", "delivered", "started", "tokens"),
    *("background", "cancel", "label", "opens"),
)

_ENTRY = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")

State = Literal["waiting", "assigned", "running"]
STATES: tuple[State, ...] = ("waiting", "assigned", "running")


class Listed(Struct, frozen=True, kw_only=True):
    """A request that has not ended. `served_as` is the class in whose order it stands, None once it has been given
    away; `position` is how many are served before it if no KV cache matters. `prompt_tokens` are an estimate,
    `num_tokens` what its agent told last, up to a quarter of its lease ago. `waited_ms` ends with its first opening."""

    id: str
    state: State
    request_class: str
    served_as: str | None
    tenant: str
    position: int | None
    attempt: int
    opens: int
    deaths: int
    agent: str | None
    agent_name: str | None
    model: str | None
    accepted_ms: float
    waited_ms: int
    running_ms: int | None
    prompt_tokens: int
    num_tokens: int | None
    is_background: bool
    is_cancelling: bool
    label: bytes


class Filter(Struct, frozen=True, kw_only=True):
    """What is None lets all pass."""

    state: str | None = None
    request_class: str | None = None
    tenant: str | None = None
    agent: str | None = None


class Page(Struct, frozen=True):
    """`cursor` None: there is no more."""

    requests: list[Listed]
    cursor: str | None


class _Place(Struct, frozen=True, array_like=True):
    """Behind which entry the list goes on: in the lane of `whose` behind `entry`; or in the order of the class `whose`,
    behind the request `entry` with that score. `whose` empty: from the beginning."""

    is_waiting: bool = False
    whose: str = ""
    entry: str = ""
    score: float = 0.0


class _Entry(Struct, frozen=True):
    id: str
    place: _Place
    served_as: str | None = None
    position: int | None = None


class RequestList:
    """Every call raises what Redis raises."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(self, pool: str, where: Filter, *, limit: int, cursor: str | None = None) -> Page:
        """Raises `ValueError` for what is no cursor."""
        keys = self._store.pool(pool).keys
        place = _read_cursor(cursor) if cursor else _Place(is_waiting=where.state == "waiting" and not where.agent)
        passed: list[tuple[_Entry, list[Any]]] = []
        num_left = MAX_LOOKED
        while True:
            num = min(num_left, CHUNK)
            entries = await self._entries(keys, where, place, num)
            num_left -= num
            is_end = len(entries) < num
            for entry, row in zip(entries, await self._rows(keys, entries), strict=True):
                place = entry.place
                if _passes(row, where):
                    passed.append((entry, row))
                    if len(passed) == limit:
                        is_end = is_end and entry is entries[-1]
                        break
            if is_end or len(passed) == limit or num_left <= 0:
                cursor = None if is_end else _cursor(place)
                return Page(await self._listed(keys, passed), cursor)

    async def _entries(self, keys: PoolKeys, where: Filter, place: _Place, num: int) -> list[_Entry]:
        """The next so many; fewer are the last ones."""
        entries: list[_Entry] = []
        if not place.is_waiting:
            entries = await self._given(keys, where, place, num)
            place = _Place(is_waiting=True)
        if len(entries) < num and not where.agent and where.state in (None, "waiting"):
            entries += await self._waiting(keys, where, place, num - len(entries))
        return entries

    async def _given(self, keys: PoolKeys, where: Filter, place: _Place, num: int) -> list[_Entry]:
        redis: Any = self._store.redis
        found: list[bytes] = [] if where.agent else await redis.zrange(keys.agents(), 0, -1)
        agents = [where.agent] if where.agent else sorted(one.decode() for one in found)
        agents = agents[bisect_left(agents, place.whose) :]
        entries: list[_Entry] = []
        for first in range(0, len(agents), LANES_AT_ONCE):
            some = agents[first : first + LANES_AT_ONCE]
            pipe = redis.pipeline(transaction=False)
            for agent in some:
                behind = f"({place.entry}" if agent == place.whose and place.entry else "-"
                pipe.xrange(keys.lane(agent), behind, "+", count=num - len(entries))
            for agent, lane in zip(some, await pipe.execute(), strict=True):
                entries += [_Entry(f[b"id"].decode(), _Place(False, agent, entry.decode())) for entry, f in lane]
            if len(entries) >= num:
                break
        return entries[:num]

    async def _waiting(self, keys: PoolKeys, where: Filter, place: _Place, num: int) -> list[_Entry]:
        redis: Any = self._store.redis
        # A promoted request stands in a higher order than its own.
        classes = CLASSES[: CLASSES.index(where.request_class) + 1] if where.request_class else CLASSES
        pipe = redis.pipeline(transaction=True)
        for name in CLASSES:
            pipe.zcard(keys.order(name))
        lengths = dict(zip(CLASSES, await pipe.execute(), strict=True))
        entries: list[_Entry] = []
        for name in classes[classes.index(place.whose) if place.whose in classes else 0 :]:
            if len(entries) == num:
                break
            key, start = keys.order(name), 0
            if name == place.whose:
                start = await self._rank_behind(key, place)
            rows = await redis.zrange(key, start, start + num - len(entries) - 1, withscores=True)
            before = sum(lengths[one] for one in CLASSES[: CLASSES.index(name)])
            for rank, (member, score) in enumerate(rows, start):
                entry = member.decode()
                entries.append(_Entry(entry, _Place(True, name, entry, score), name, before + rank))
        return entries

    async def _rank_behind(self, key: str, place: _Place) -> int:
        """Where the order goes on behind a request, which may be gone by now."""
        redis: Any = self._store.redis
        rank: int | None = await redis.zrank(key, place.entry)
        if rank is not None:
            return rank + 1
        # Those with its very score are in the order of their ids; there may be thousands of them.
        low, high = await redis.zcount(key, "-inf", f"({place.score!r}"), await redis.zcount(key, "-inf", place.score)
        while low < high:
            middle = (low + high) // 2
            found = await redis.zrange(key, middle, middle)
            if found and found[0].decode() <= place.entry:
                low = middle + 1
            else:
                high = middle
        return low

    async def _rows(self, keys: PoolKeys, entries: list[_Entry]) -> list[list[Any]]:
        pipe = self._store.redis.pipeline(transaction=False)
        for entry in entries:
            pipe.hmget(keys.request(entry.id), *_FIELDS)
        return await pipe.execute() if entries else []

    async def _listed(self, keys: PoolKeys, passed: list[tuple[_Entry, list[Any]]]) -> list[Listed]:
        agents = sorted({row[3].decode() for _, row in passed if row[3]})
        pipe = self._store.redis.pipeline(transaction=False)
        for agent in agents:
            pipe.hmget(keys.agent(agent), "name", "model", "running_tokens")
        pipe.time()
        *told, (seconds, micros) = await pipe.execute()
        now = seconds * 1000 + micros / 1000
        known = {agent: _Told(row) for agent, row in zip(agents, told, strict=True)}
        return [_row(entry, row, known, now) for entry, row in passed]


class _Told:
    """What an agent has said of itself."""

    def __init__(self, row: list[bytes | None]) -> None:
        name, model, tokens = row
        self.name = name.decode() if name else None
        self.model = model.decode() if model else None
        self.tokens: dict[str, int] = msgspec.json.decode(tokens, type=dict[str, int]) if tokens else {}


def _passes(row: list[Any], where: Filter) -> bool:
    """A request that has ended meanwhile does not."""
    state = row[0]
    wanted = ((where.state, state), (where.request_class, row[1]), (where.tenant, row[2]), (where.agent, row[3]))
    is_unfinished = bool(state) and state.decode() in STATES
    return is_unfinished and all(wish is None or (has or b"").decode() == wish for wish, has in wanted)


def _row(entry: _Entry, row: list[Any], known: dict[str, _Told], now: float) -> Listed:
    state, request_class, tenant, agent, attempt, deaths, accepted, delivered, started, tokens = row[:10]
    background, cancel, label, opens = row[10:]
    told = known.get(agent.decode()) if agent else None
    is_waiting = state == b"waiting"
    begun = float(started or delivered or now)
    accepted_ms = float(accepted or now)
    return Listed(
        id=entry.id,
        state=cast("State", state.decode()),
        request_class=request_class.decode(),
        served_as=entry.served_as if is_waiting else None,
        tenant=tenant.decode(),
        position=entry.position if is_waiting else None,
        attempt=int(attempt or 0),
        opens=int(opens or bool(started)),
        deaths=int(deaths or 0),
        agent=agent.decode() if agent else None,
        agent_name=told.name if told else None,
        model=told.model if told else None,
        accepted_ms=round(accepted_ms),
        waited_ms=max(0, round((now if is_waiting and not started else begun) - accepted_ms)),
        running_ms=max(0, round(now - float(started))) if started else None,
        prompt_tokens=int(tokens or 0),
        num_tokens=told.tokens.get(entry.id) if told else None,
        is_background=background is not None,
        is_cancelling=cancel is not None,
        label=label or b"",
    )


def _cursor(place: _Place) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(place)).decode().rstrip("=")


def _read_cursor(text: str) -> _Place:
    try:
        place = msgspec.msgpack.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_Place)
    except (ValueError, msgspec.MsgspecError):
        place = None
    # It has been with a client: what is made up must not reach Redis.
    is_sound = place is not None and math.isfinite(place.score)
    if place is None or not is_sound or not (place.is_waiting or not place.entry or _ENTRY.fullmatch(place.entry)):
        raise ValueError("not a cursor of this list")
    return place
