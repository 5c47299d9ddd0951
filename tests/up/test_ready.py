"""What `paddler up` says while it waits for its first agent."""

from __future__ import annotations

import asyncio

import pytest

from paddler.clock import SystemClock
from paddler.store.client import Store
from paddler.testing.waiting import wait_until
from paddler.up import ready
from paddler.up.ready import NO_MODEL, SLOW, wait_for_agent

pytestmark = pytest.mark.anyio


async def test_why_it_takes_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is being loaded; or no state wants one, and then nothing is to be waited for."""
    monkeypatch.setattr(ready, "REMIND_S", 0.05)
    keys, reminders = store.pool("default").keys, list[str]()
    agent, pid = keys.agent("agent-a"), 4242
    waiting = asyncio.create_task(wait_for_agent(store, lambda found: found == pid, SystemClock(), reminders.append))
    await wait_until(lambda: SLOW in reminders, what="it takes long")
    await store.redis.zadd(keys.agents(), {"agent-a": 1e15})
    await store.redis.hset(agent, mapping={"pid": pid, "state": "waiting", "state_application_status": "Applied"})
    await wait_until(lambda: NO_MODEL in reminders, what="no model is wanted")
    reminders.clear()
    await store.redis.hset(agent, mapping={"state": "waiting", "state_application_status": "Fresh"})
    await wait_until(lambda: SLOW in reminders, what="one is wanted now")
    await store.redis.hset(agent, mapping={"state": "ready", "abilities": "generate embed"})
    assert await waiting == ["generate", "embed"]
    await store.redis.delete(agent, keys.agents())
