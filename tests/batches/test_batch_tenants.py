"""Lines of a batch are run for the tenant whose it is, and are its key's usage."""

from __future__ import annotations

import pytest
from batch_harness import batch_worker, chat_line, counts, read_file, submit, until_ended
from fleet_harness import Fleet
from http_harness import HttpBalancer
from openai import AsyncOpenAI

from paddler.store.client import Store
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio


async def test_a_batch_is_its_tenants(balancer: HttpBalancer, fleet: Fleet, store: Store) -> None:
    operator = await balancer.new_key("operator", "management")
    alice = await balancer.new_key("alice", requests_per_minute=1, max_in_flight=1)
    poor = await balancer.new_key("poor", daily_tokens=1)
    await fleet.agent(slots=4)
    lines = [chat_line(str(number), "hello", max_tokens=4) for number in range(6)]
    async with batch_worker(store.url, store.prefix):
        async with AsyncOpenAI(base_url=f"{balancer.url()}/v1", api_key=alice.secret, max_retries=0) as client:
            batch = await until_ended(client, await submit(client, lines))
            assert counts(batch) == (6, 6, 0), "limits of a minute are for who waits"
            answers = await read_file(client, batch.output_file_id)
        request_id = answers[0]["response"]["request_id"]
        async with AsyncOpenAI(base_url=f"{balancer.url()}/v1", api_key=poor.secret, max_retries=0) as client:
            batch = await until_ended(client, await submit(client, lines[:2]))
            assert counts(batch) == (2, 0, 2)
            errors = await read_file(client, batch.error_file_id)
            assert {one["response"]["body"]["error"]["code"] for one in errors} == {"daily_budget_exhausted"}
    pool = store.pool("default")
    assert await store.redis.hget(pool.keys.request(request_id), "tenant") == b"alice"

    async def used() -> list[tuple[str, int]]:
        async with balancer.http("management", operator.secret) as http:
            rows = (await http.get("/api/v1/usage")).json()["usage"]
        return [(row["tenant"], row["requests"]) for row in rows]

    async def is_accounted() -> bool:
        return await used() == [("alice", 6)]

    await wait_until(is_accounted, what="six requests are accounted")
