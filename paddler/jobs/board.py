"""The requests of a pool, kept up to date for who looks on: thousands of them, for the price of what moves.

A look reads the orders and the lanes, which are ids; of requests only those that are new, that agents have, that were
given back, or that are gone. What waits in its place since the last look is not read again, and stays the same object.
So a look costs Redis one `ZRANGE` a class, an `XRANGE` an agent, and an `HMGET` a request that moves or runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paddler.jobs.board_rows import FIELDS, UNFINISHED, BoardRow, Row, ended, waiting_or_given
from paddler.jobs.journal_tokens import JournalTokens
from paddler.store.client import Store
from paddler.store.keys import CLASSES

MAX_WAITING = 10_000
"""Rows of waiting requests: batches may have ten times as many, and nobody reads those."""

MAX_COUNTED = 500
"""Running requests whose tokens are counted at each look."""

MAX_ENDED = 200
ENDED_MS = 600_000
"""As long as Redis keeps what has happened to a request."""

HEAD = 100
"""At the front of the line a request may have been given and given back between two looks: it is read each time."""

NAMES_EVERY = 10
"""Looks: an agent gets its model some time after it came, and may get another."""

Place = tuple[str, float]
"""Where a request waits: the class in whose order, and its score."""


class RequestBoard:
    """`rows` are what has not ended, `ended` what ended between two looks, the latest last, and `tokens` what each that
    runs has said so far. `model_of` says what a request's label calls its model, empty if nothing."""

    def __init__(self, store: Store, pool: str, model_of: Callable[[bytes], str]) -> None:
        self._redis: Any = store.redis
        self._pool = pool
        self._keys = store.pool(pool).keys
        self._model_of = model_of
        self._counting = JournalTokens(store, self._keys)
        self._agents: dict[str, tuple[str, str]] = {}
        self._num_looks = 0
        self.rows: dict[str, BoardRow] = {}
        self.ended: dict[str, BoardRow] = {}
        self.tokens: dict[str, int] = {}
        self.now_ms = 0

    async def look(self) -> None:
        """Raises what Redis raises, and is as it was then."""
        order, agents = await self._order()
        given = await self._given(agents)
        found = await self._read(self._fresh(order, given))
        rows = {one: self.rows[one] for one in order if one not in found}
        rows |= self._unfinished(found, order)
        running = [one for one, row in rows.items() if row.state == "running"]
        tokens = await self._counting.count(running[:MAX_COUNTED])
        seconds, micros = await self._redis.time()
        self.now_ms = seconds * 1000 + micros // 1000
        self._note_ended(found, rows)
        self.rows, self.tokens = rows, tokens

    async def _order(self) -> tuple[dict[str, Place], list[str]]:
        """The first that wait, in order; and the agents."""
        pipe = self._redis.pipeline(transaction=True)
        for name in CLASSES:
            pipe.zrange(self._keys.order(name), 0, MAX_WAITING - 1, withscores=True)
        pipe.zrange(self._keys.agents(), 0, -1)
        *orders, agents = await pipe.execute()
        order: dict[str, Place] = {}
        for name, members in zip(CLASSES, orders, strict=True):
            room = MAX_WAITING - len(order)
            order |= {member.decode(): (name, score) for member, score in members[:room]}
        return order, [agent.decode() for agent in agents]

    async def _given(self, agents: list[str]) -> list[str]:
        """What agents have been given. Names and models of new agents, and of all now and then, are read on the way."""
        is_time = self._num_looks % NAMES_EVERY == 0
        self._num_looks += 1
        new = [agent for agent in agents if is_time or agent not in self._agents]
        pipe = self._redis.pipeline(transaction=False)
        for agent in agents:
            pipe.xrange(self._keys.lane(agent))
        for agent in new:
            pipe.hmget(self._keys.agent(agent), "name", "model")
        answers: list[Any] = await pipe.execute() if agents else []
        lanes, told = answers[: len(agents)], answers[len(agents) :]
        self._agents = {agent: self._agents[agent] for agent in agents if agent in self._agents}
        for agent, (name, model) in zip(new, told, strict=True):
            self._agents[agent] = ((name or b"").decode(), (model or b"").decode())
        return [fields[b"id"].decode() for lane in lanes for _, fields in lane]

    def _fresh(self, order: dict[str, Place], given: list[str]) -> list[str]:
        """Which requests to read."""
        fresh = dict.fromkeys(given)
        for number, (request_id, place) in enumerate(order.items()):
            row = self.rows.get(request_id)
            if number < HEAD or row is None or (row.served_as, row.score) != place:
                fresh[request_id] = None
        fresh |= dict.fromkeys(one for one in self.rows if one not in order)
        return list(fresh)

    async def _read(self, request_ids: list[str]) -> dict[str, Row]:
        pipe = self._redis.pipeline(transaction=False)
        for request_id in request_ids:
            pipe.hmget(self._keys.request(request_id), *FIELDS)
        found: list[list[bytes | None]] = await pipe.execute() if request_ids else []
        return {one: Row(values) for one, values in zip(request_ids, found, strict=True)}

    def _unfinished(self, found: dict[str, Row], order: dict[str, Place]) -> dict[str, BoardRow]:
        """One that was given back since the orders were read is a row, too; one that has come to stand behind the last
        that they tell of is none."""
        rows: dict[str, BoardRow] = {}
        for request_id, row in found.items():
            place, old = order.get(request_id), self.rows.get(request_id)
            is_behind = row.state == b"waiting" and place is None and old is not None and old.state == "waiting"
            if row.state in UNFINISHED and not is_behind:
                model = self._model_of(row.label)
                new = waiting_or_given(request_id, self._pool, row, place, self._agents, model)
                rows[request_id] = old if old is not None and old == new else new
        return rows

    def _note_ended(self, found: dict[str, Row], rows: dict[str, BoardRow]) -> None:
        for request_id, before in self.rows.items():
            row = found.get(request_id)
            if request_id not in rows and row is not None and row.state not in (None, b"waiting"):
                self.ended[request_id] = ended(before, row)
        oldest = self.now_ms - ENDED_MS
        latest = [one for one in self.ended.values() if (one.ended_at_ms or 0) > oldest and one.id not in rows]
        self.ended = {one.id: one for one in latest[-MAX_ENDED:]}
