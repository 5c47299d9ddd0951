"""Requests in the live feed: `requests`, one thing each, and `request_tokens`, what those that run have said so far."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from api.management.labels import model_called
from paddler.clock import Clock
from paddler.jobs.board import RequestBoard
from paddler.jobs.board_rows import BoardRow
from paddler.jobs.overview import Overview
from paddler.store.client import Store

IDLE_SHARE = 10
"""A look that takes long (ten thousand requests, a Redis far away) is taken more seldom: it has a tenth of the time."""

TIME_EVERY_MS = 2_000
"""So often a page is told the time, by which it counts how long a request has waited."""

_encode = msgspec.json.Encoder().encode


class RequestsTopic:
    """A request's id -> a `BoardRow`, until ten minutes after its end: of all pools, the first ten thousand of each
    that wait, and the last two hundred of each that have ended."""

    name = "requests"

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._overview = Overview(store)
        self._next_look_at = 0.0
        self._made: dict[str, tuple[BoardRow, bytes]] = {}
        self.boards: dict[str, RequestBoard] = {}

    async def read(self) -> Mapping[str, bytes] | None:
        began_at = self._clock.monotonic()
        if began_at < self._next_look_at:
            return None
        for pool in await self._overview.pool_names():
            if pool not in self.boards:
                self.boards[pool] = RequestBoard(self._store, pool, model_called)
            await self.boards[pool].look()
        self._encode_rows()
        now = self._clock.monotonic()
        self._next_look_at = now + IDLE_SHARE * (now - began_at) - (now - began_at)
        return {request_id: body for request_id, (_, body) in self._made.items()}

    def _encode_rows(self) -> None:
        """What has not changed is the same object, and its bytes are there."""
        made: dict[str, tuple[BoardRow, bytes]] = {}
        for board in self.boards.values():
            for rows in (board.rows, board.ended):
                for request_id, row in rows.items():
                    before = self._made.get(request_id)
                    made[request_id] = before if before and before[0] is row else (row, _encode(row))
        self._made = made


class RequestTokensTopic:
    """A request's id -> how many tokens it has said, as the look before of `requests` has counted them; and under `now`
    the time (ms) by Redis's clock."""

    name = "request_tokens"

    def __init__(self, requests: RequestsTopic) -> None:
        self._requests = requests
        self._told_ms = 0

    async def read(self) -> Mapping[str, bytes] | None:
        boards = self._requests.boards.values()
        if not boards:
            return None
        now_ms = max(board.now_ms for board in boards)
        if now_ms >= self._told_ms + TIME_EVERY_MS:
            self._told_ms = now_ms
        told = {one: b"%d" % number for board in boards for one, number in board.tokens.items()}
        return told | {"now": b"%d" % self._told_ms}
