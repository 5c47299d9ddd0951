"""Requests in the panel's live feed: of all pools, with what they have said so far, and for a while after their end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from queue_calls import begin, leave, settle, submit, take

from api.openai.label import ChatLabel, encode_label
from api.panel.request_topics import TIME_EVERY_MS, RequestsTopic, RequestTokensTopic
from paddler.clock import SystemClock
from paddler.ids import new_request_id
from paddler.jobs.board import RequestBoard
from paddler.jobs.endings import CANCELLED_FRAME
from paddler.store.client import Store
from paddler.store.results import Emission
from paddler.wire.balancer import Tokens, encode_frame

pytestmark = pytest.mark.anyio


class Clock(SystemClock):
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


def decoded(told: Mapping[str, bytes] | None) -> dict[str, Any]:
    assert told is not None
    return {key: json.loads(value) for key, value in told.items()}


async def register(store: Store, agent: str) -> None:
    snapshot: dict[str, Any] = {"slots": 1, "state": "ready", "name": f"name of {agent}", "model": "m"}
    await store.pool("default").register(agent, lease_ms=3_600_000, model="m", seen_s=1, snapshot=snapshot)


async def test_rows_of_all_pools_and_tokens_by_themselves(store: Store) -> None:
    pool, other = store.pool("default"), store.pool("chat")
    await store.add_pool("chat")
    topic = RequestsTopic(store, Clock())
    tokens = RequestTokensTopic(topic)
    assert await tokens.read() is None
    label = encode_label(ChatLabel("called", 1))
    elsewhere, _ = await submit(other, now=0, request_id=new_request_id("chat"), tenant="t")
    request_id, _ = await submit(pool, now=0, tenant="t", label=label)
    rows = decoded(await topic.read())
    assert {(row["id"], row["pool"]) for row in rows.values()} == {(elsewhere, "chat"), (request_id, "default")}
    assert rows[request_id]["model"] == "called"
    assert "state" not in rows[request_id]

    await register(store, "a")
    await take(pool, "a")
    offset = await begin(pool, "a", request_id, 1, now=0)
    running = await topic.read()
    assert decoded(running)[request_id]["state"] == "running"
    said = encode_frame(Tokens((1, 2, 3), "abc"))
    await pool.emit("a", [Emission(request_id, 1, offset, said)])
    again = await topic.read()
    assert running is not None
    assert again is not None
    assert again[request_id] is running[request_id]
    told = decoded(await tokens.read())
    assert told.pop("now") > 0
    assert told == {request_id: 3}

    await settle(pool, "a", request_id, 1, offset + len(said), now=0)
    end = decoded(await topic.read())[request_id]
    assert (end["state"], end["prompt_tokens"], end["tokens"], end["agent_name"]) == ("done", 7, 2, "name of a")
    assert request_id not in decoded(await tokens.read())
    await leave(pool, "a")
    await other.cancel(elsewhere, CANCELLED_FRAME)


async def test_the_time_is_told_now_and_then(store: Store) -> None:
    """Not at every tick: a page would be sent something twice a second though nothing has changed."""
    topic = RequestsTopic(store, Clock())
    tokens = RequestTokensTopic(topic)
    await topic.read()
    first = decoded(await tokens.read())["now"]
    await topic.read()
    assert decoded(await tokens.read())["now"] == first
    topic.boards["default"].now_ms = first + TIME_EVERY_MS
    assert decoded(await tokens.read())["now"] == first + TIME_EVERY_MS


async def test_a_look_that_takes_long_is_taken_more_seldom(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    topic = RequestsTopic(store, clock)
    look = RequestBoard.look

    async def slow(board: RequestBoard) -> None:
        await look(board)
        clock.now_s += 1

    monkeypatch.setattr(RequestBoard, "look", slow)
    assert await topic.read() == {}
    clock.now_s += 8
    assert await topic.read() is None
    clock.now_s += 1
    assert await topic.read() == {}
