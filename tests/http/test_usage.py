"""Usage: what every request of a key has used, once, whatever dies."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from balancer_process import StartBalancer
from http_harness import HandAgent, HttpBalancer, NewAgent, NewBalancer, chat

from paddler.clock import SystemClock
from paddler.errors import EngineFailed
from paddler.store.client import Store
from paddler.store.tenant_keys import TenantKeys, used_key
from paddler.tenants.accounting import Accountant
from paddler.tenants.keys import ApiKeys, NewKey
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


async def rows(balancer: HttpBalancer, operator: NewKey, **query: str) -> list[dict[str, Any]]:
    async with balancer.http("management", operator.secret) as http:
        answer = await http.get("/api/v1/usage", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["usage"]


async def ask(balancer: HttpBalancer, agent: HandAgent, new: NewKey, num: int = 1, **fields: Any) -> None:
    async with balancer.http(key=new.secret) as http:
        for _ in range(num):
            asking = asyncio.create_task(http.post(CHAT, json=chat(**fields)))
            await (await agent.take()).finish()
            assert (await asking).status_code == 200


async def test_usage_by_tenant_key_model_and_day(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    operator = await balancer.new_key("operator", "management")
    alice, bob = await balancer.new_key("alice"), await balancer.new_key("bob")
    agent = await new_agent(slots=4)
    await agent.pool.redis.hset(agent.pool.keys.agent(agent.agent_id), "model", "tiny")
    await ask(balancer, agent, alice, 3)
    await ask(balancer, agent, bob, 1)
    assert await rows(balancer, operator) == [
        {
            "tenant": new.key.tenant,
            "key": new.key.id,
            "key_name": new.key.name,
            "model": "tiny",
            "requests": num,
            "prompt_tokens": 5 * num,
            "cached_tokens": num,
            "output_tokens": 2 * num,
        }
        for new, num in ((alice, 3), (bob, 1))
    ]
    (total,) = await rows(balancer, operator, group_by="model")
    assert (total["model"], total["requests"], total["prompt_tokens"]) == ("tiny", 4, 20)
    (own,) = await rows(balancer, operator, group_by="tenant", tenant="bob")
    assert (own["tenant"], own["requests"]) == ("bob", 1)
    by_day = await rows(balancer, operator, group_by="day")
    assert sum(row["requests"] for row in by_day) == 4
    assert await rows(balancer, operator, **{"from": "2020-01-01", "to": "2020-02-01"}) == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-13-01"}, "to"),
        ({"from": "2026-02-01", "to": "2026-01-01"}, "from"),
        ({"from": "2020-01-01", "to": "2026-01-01"}, "from"),
        ({"group_by": "colour"}, "group_by"),
        ({"tenant": "a:b"}, "tenant"),
        ({"since": "2026-01-01"}, "since"),
    ],
)
async def test_what_is_wrong_is_named(balancer: HttpBalancer, query: dict[str, str], param: str) -> None:
    async with balancer.http("management") as http:
        answer = await http.get("/api/v1/usage", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_every_end_is_accounted_once_by_however_many_balancers(
    new_balancer: NewBalancer, new_agent: NewAgent, store: Store
) -> None:
    first, second = await new_balancer(), await new_balancer()
    operator, alice = await first.new_key("operator", "management"), await first.new_key("alice")
    await second.tenants.ring.refresh_once()
    agent = await new_agent(slots=4)
    for balancer in (first, second, first):
        await ask(balancer, agent, alice, 4)
    async with first.http(key=alice.secret) as http:
        failing = asyncio.create_task(http.post(CHAT, json=chat()))
        await (await agent.take()).fail(EngineFailed("broken"))
        assert (await failing).status_code == 500
    for _ in range(3):
        await asyncio.gather(*(Accountant(store).run_once() for _ in range(4)))
    for balancer in (first, second):
        (row,) = await rows(balancer, operator)
        assert (row["requests"], row["output_tokens"]) == (13, 26), "a failed one, too, with what was computed"
    assert await store.redis.xlen(used_key(agent.pool.keys.base)) == 0


async def test_a_balancer_that_is_killed_costs_no_usage_and_no_place(
    start: StartBalancer, balancer: HttpBalancer, new_agent: NewAgent, store: Store
) -> None:
    """Its request runs on and ends; who lives accounts it."""
    alice = await balancer.new_key("alice", max_in_flight=1)
    operator = await balancer.new_key("operator", "management")
    doomed = await start(store)
    agent = await new_agent(slots=2)
    async with doomed.http() as http:
        headers = {"authorization": f"Bearer {alice.secret}"}
        asking = asyncio.create_task(http.post(CHAT, json=chat(stream=True), headers=headers))
        request = await agent.take()
        await request.say("hello")
        doomed.process.send_signal(signal.SIGKILL)
        await asyncio.gather(asking, return_exceptions=True)
    async with balancer.http(key=alice.secret) as http:
        assert (await http.post(CHAT, json=chat())).status_code == 429, "it has its place as long as it runs"
        await request.finish()
        keys = TenantKeys(store.prefix, "alice")

        async def is_free() -> bool:
            return not await store.redis.scard(keys.flight(alice.key.id))

        await wait_until(is_free, what="the place is free")
        await ask(balancer, agent, alice)
    (row,) = await rows(balancer, operator)
    assert (row["requests"], row["prompt_tokens"], row["output_tokens"]) == (2, 10, 4)


async def test_without_keys_nothing_is_written(balancer: HttpBalancer, agent: HandAgent, store: Store) -> None:
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(CHAT, json=chat()))
        await (await agent.take()).finish()
        assert (await asking).status_code == 200
    assert await store.redis.exists(used_key(agent.pool.keys.base)) == 0
    assert await store.redis.keys(f"{store.prefix}:tenant*") == []


async def test_a_key_that_is_forgotten_has_its_usage_still(
    balancer: HttpBalancer, agent: HandAgent, store: Store
) -> None:
    operator, alice = await balancer.new_key("operator", "management"), await balancer.new_key("alice")
    await ask(balancer, agent, alice)
    keys = ApiKeys(store, SystemClock())
    await keys.revoke(alice.key.id)
    await keys.forget(alice.key.id)
    (row,) = await rows(balancer, operator)
    assert (row["key"], row["key_name"], row["requests"]) == (alice.key.id, "", 1)


async def test_the_first_day_there_is(balancer: HttpBalancer) -> None:
    operator = await balancer.new_key("operator", "management")
    assert await rows(balancer, operator, to="0001-01-01") == []
