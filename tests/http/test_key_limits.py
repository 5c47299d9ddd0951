"""Each limit of a key by real HTTP, two tenants at once: what one uses up, the other still has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from http_harness import HandAgent, HandRequest, HttpBalancer, NewAgent, chat
from native_harness import params

from paddler.errors import EngineFailed
from paddler.store.client import Store
from paddler.store.tenant_keys import TenantKeys
from paddler.tenants.keys import NewKey
from paddler.testing.waiting import wait_until
from paddler.wire.balancer import Usage

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


class Side:
    """One tenant, and what has become of its requests."""

    def __init__(self, balancer: HttpBalancer, new: NewKey) -> None:
        self.new = new
        self.http = balancer.http(key=new.secret)
        self.asking: list[asyncio.Task[httpx.Response]] = []

    def ask(self, num: int = 1, **fields: Any) -> None:
        for _ in range(num):
            self.asking.append(asyncio.create_task(self.http.post(CHAT, json=chat(**fields))))

    async def refusals(self, num: int) -> list[httpx.Response]:
        """Wait for so many."""
        await wait_until(lambda: sum(one.done() for one in self.asking) >= num, what=f"{num} are refused")
        return [one.result() for one in self.asking if one.done()]

    async def answers(self) -> list[httpx.Response]:
        answers = await asyncio.gather(*self.asking)
        self.asking = []
        return list(answers)


@pytest.fixture
async def agent(new_agent: NewAgent) -> HandAgent:
    return await new_agent(slots=32)


async def sides(balancer: HttpBalancer, alice: dict[str, Any], bob: dict[str, Any]) -> tuple[Side, Side]:
    found = [
        Side(balancer, await balancer.new_key(name, **limits)) for name, limits in (("alice", alice), ("bob", bob))
    ]
    return found[0], found[1]


async def take(agent: HandAgent, num: int) -> list[HandRequest]:
    return [await agent.take() for _ in range(num)]


async def finish(requests: Sequence[HandRequest]) -> None:
    for request in requests:
        await request.finish()


def codes(answers: Sequence[httpx.Response]) -> list[str]:
    return sorted({one.json()["error"]["code"] for one in answers})


async def test_requests_of_a_minute(balancer: HttpBalancer, agent: HandAgent) -> None:
    alice, bob = await sides(balancer, {"requests_per_minute": 2}, {"requests_per_minute": 5})
    alice.ask(6)
    bob.ask(6)
    refused = await alice.refusals(4), await bob.refusals(1)
    assert [len(one) for one in refused] == [4, 1]
    assert codes([*refused[0], *refused[1]]) == ["rate_limit_exceeded"]
    for answer in refused[0]:
        assert answer.status_code == 429
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert 0 < int(answer.headers["retry-after"]) <= 30
        assert answer.headers["x-ratelimit-limit-requests"] == "2"
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert answer.headers["x-ratelimit-reset-requests"][-1] == "s"
    await finish(await take(agent, 7))
    told = [
        sorted(int(one.headers["x-ratelimit-remaining-requests"]) for one in await side.answers())
        for side in (alice, bob)
    ]
    assert told == [[0, 0, 0, 0, 0, 1], [0, 0, 1, 2, 3, 4]]


async def test_tokens_of_a_minute_are_corrected_by_what_was_used(balancer: HttpBalancer, agent: HandAgent) -> None:
    """Estimates are 512 tokens and a few for the prompt; each really uses seven."""
    alice, bob = await sides(balancer, {"tokens_per_minute": 1100}, {"tokens_per_minute": 4000})
    alice.ask(4, max_tokens=512)
    bob.ask(4, max_tokens=512)
    refused = await alice.refusals(2)
    assert len(refused) == 2
    assert codes(refused) == ["rate_limit_exceeded"]
    assert "tokens a minute" in refused[0].text
    assert 0 <= int(refused[0].headers["x-ratelimit-remaining-tokens"]) < 512
    assert int(refused[0].headers["x-ratelimit-limit-tokens"]) == 1100
    await finish(await take(agent, 6))
    assert [one.status_code for one in await bob.answers()] == [200] * 4
    await alice.answers()
    alice.ask(1, max_tokens=512)
    await finish(await take(agent, 1))
    (again,) = await alice.answers()
    assert again.status_code == 200
    assert 1100 - 14 - 560 < int(again.headers["x-ratelimit-remaining-tokens"]) <= 1100 - 512


async def test_requests_in_flight(balancer: HttpBalancer, agent: HandAgent) -> None:
    alice, bob = await sides(balancer, {"max_in_flight": 1}, {"max_in_flight": 3})
    alice.ask(3)
    bob.ask(5)
    refused = await alice.refusals(2), await bob.refusals(2)
    assert [len(one) for one in refused] == [2, 2]
    assert codes([*refused[0], *refused[1]]) == ["too_many_in_flight"]
    assert all(one.status_code == 429 and one.headers["retry-after"] == "1" for one in refused[0])
    await finish(await take(agent, 4))
    await alice.answers()
    for _ in range(5):
        alice.ask()
        await finish(await take(agent, 1))
        (answer,) = await alice.answers()
        assert answer.status_code == 200, "whoever has its answer may ask again at once"


async def test_the_tokens_of_a_day(balancer: HttpBalancer, agent: HandAgent) -> None:
    alice, bob = await sides(balancer, {"daily_tokens": 1000}, {"daily_tokens": 2000})
    alice.ask(4, max_tokens=400)
    bob.ask(4, max_tokens=400)
    refused = await alice.refusals(2)
    assert len(refused) == 2
    assert codes(refused) == ["daily_budget_exhausted"]
    assert refused[0].headers["x-should-retry"] == "false", "the day is longer than any client waits"
    assert 0 < int(refused[0].headers["retry-after"]) <= 86_400
    await finish(await take(agent, 6))
    assert [one.status_code for one in await bob.answers()] == [200] * 4
    await alice.answers()
    alice.ask(2, max_tokens=400)
    await finish(await take(agent, 2))
    assert [one.status_code for one in await alice.answers()] == [200] * 2


async def test_choices_are_one_request_and_each_has_a_place_in_flight(balancer: HttpBalancer, agent: HandAgent) -> None:
    alice, bob = await sides(
        balancer, {"requests_per_minute": 1, "max_in_flight": 2}, {"requests_per_minute": 2, "tokens_per_minute": 1000}
    )
    bob.ask()
    await finish(await take(agent, 1))
    await bob.answers()
    bob.ask(1, n=3, max_tokens=400)
    (refused,) = await bob.answers()
    assert (refused.status_code, codes([refused])) == (429, ["rate_limit_exceeded"]), "all three are looked at first"
    alice.ask(1, n=3)
    first = await take(agent, 2)
    await finish(first[:1])
    third = await take(agent, 1)
    await finish([*first[1:], *third])
    (answer,) = await alice.answers()
    assert len(answer.json()["choices"]) == 3, "the third waited for a place"
    alice.ask()
    assert (await alice.answers())[0].status_code == 429


async def test_a_request_that_failed_or_was_left_gives_its_place_back(balancer: HttpBalancer, agent: HandAgent) -> None:
    alice, bob = await sides(balancer, {"max_in_flight": 1}, {"max_in_flight": 1})
    for side in (alice, bob):
        side.ask()
        (request,) = await take(agent, 1)
        await request.fail(EngineFailed("broken"))
        assert (await side.answers())[0].status_code == 500
        side.ask()
        (request,) = await take(agent, 1)
        side.asking[0].cancel()
        await asyncio.gather(*side.asking, return_exceptions=True)
        side.asking = []
        await request.cancelled()

        async def is_let_in(side: Side = side) -> bool:
            side.ask()
            await wait_until(lambda: side.asking[0].done() or agent_has_one(agent), what="it is decided")
            if side.asking[0].done():
                await side.answers()
                return False
            return True

        await wait_until(is_let_in, what="the place is free")
        await finish(await take(agent, 1))
        assert (await side.answers())[0].status_code == 200


async def agent_has_one(agent: HandAgent) -> bool:
    return bool(await agent.pool.redis.xlen(agent.pool.keys.lane(agent.agent_id)))


async def test_what_the_buffer_refuses_costs_nothing(new_balancer: Any, store: Store) -> None:
    balancer: HttpBalancer = await new_balancer(max_buffered_requests=0)
    alice, _ = await sides(balancer, {"requests_per_minute": 2, "max_in_flight": 1, "daily_tokens": 1000}, {})
    keys = TenantKeys(store.prefix, "alice")
    for _ in range(5):
        alice.ask()
        assert (await alice.answers())[0].status_code == 503

        async def is_free() -> bool:
            return not await store.redis.scard(keys.flight(alice.new.key.id))

        await wait_until(is_free, what="the place is given back")
    assert int(await store.redis.hget(keys.limits(alice.new.key.id), "held")) == 0


async def test_anthropics_clients_read_their_own_headers(balancer: HttpBalancer, agent: HandAgent) -> None:
    new = await balancer.new_key("alice", requests_per_minute=1, tokens_per_minute=100_000)
    message = {"model": "default", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    async with httpx.AsyncClient(base_url=balancer.url(), headers={"x-api-key": new.secret}, trust_env=False) as http:
        asking = asyncio.create_task(http.post("/v1/messages", json=message))
        await finish(await take(agent, 1))
        answer = await asking
        refused = await http.post("/v1/messages", json=message)
    assert answer.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert answer.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    assert int(answer.headers["anthropic-ratelimit-tokens-limit"]) == 100_000
    assert 99_000 < int(answer.headers["anthropic-ratelimit-tokens-remaining"]) < 100_000
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert int(refused.headers["retry-after"]) > 0


async def test_clients_of_paddler_4_are_told_in_the_stream(balancer: HttpBalancer, agent: HandAgent) -> None:
    new = await balancer.new_key("alice", requests_per_minute=1)
    async with balancer.http(key=new.secret) as http:
        path = "/api/v1/continue_from_conversation_history"
        asking = asyncio.create_task(http.post(path, json=params("hello")))
        await finish(await take(agent, 1))
        assert (await asking).status_code == 200
        refused = await http.post(path, json=params("hello"))
    assert refused.status_code == 200
    assert json.loads(refused.text)["Error"]["error"]["code"] == 429


async def test_a_key_without_limits_tells_of_the_queue_as_before(balancer: HttpBalancer, agent: HandAgent) -> None:
    alice, _ = await sides(balancer, {}, {})
    alice.ask()
    await finish(await take(agent, 1))
    (answer,) = await alice.answers()
    assert answer.headers["x-ratelimit-limit-requests"] == "30"
    assert "x-ratelimit-limit-tokens" not in answer.headers


async def test_weight_two_is_twice_the_share_under_load(new_balancer: Any, new_agent: NewAgent, store: Store) -> None:
    """Thirty of each wait; an agent with one slot comes."""
    balancer: HttpBalancer = await new_balancer(max_buffered_requests=100, buffered_request_timeout_ms=60_000)
    alice, bob = await sides(balancer, {"weight": 2.0}, {"weight": 1.0})
    for side in (alice, bob):
        side.ask(30, max_tokens=50)

    async def all_wait() -> bool:
        return await balancer.num_waiting() == 60

    await wait_until(all_wait, what="all wait")
    agent = await new_agent(slots=1)
    order: list[str] = []
    for _ in range(60):
        request = await agent.take()
        order.append((await store.redis.hget(agent.pool.keys.request(request.request_id), "tenant")).decode())
        await request.finish(usage=Usage(prompt_tokens=5, completion_tokens=50, cached_tokens=0))
    assert 18 <= order[:30].count("alice") <= 22, order
    assert {one.status_code for side in (alice, bob) for one in await side.answers()} == {200}
