"""A batch of embeddings beside others: when its parts are submitted, and what becomes of them when one cannot run."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from embedding_calls import BATCH, EMBEDDINGS, answer, embed, payload_of, refused
from http_harness import HandAgent, HandRequest, HttpBalancer, NewAgent, NewBalancer, chat

from paddler.errors import BufferFull
from paddler.jobs import fleet_view
from paddler.jobs.gateway import Reply, Submit
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Embed, Payload

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def fresh_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Balancers see a new agent's slots at once."""
    monkeypatch.setattr(fleet_view, "REFRESH_S", 0)


def post(http: httpx.AsyncClient, **headers: str) -> asyncio.Task[httpx.Response]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.create_task(http.post(EMBEDDINGS, json=embed([*BATCH, *BATCH]), headers=named))


async def busy(http: httpx.AsyncClient, agent: HandAgent) -> tuple[asyncio.Task[httpx.Response], HandRequest]:
    """A slot that is taken for long."""
    asking = asyncio.create_task(http.post(CHAT, json=chat()))
    return asking, await agent.take()


async def test_what_has_begun_is_not_ended_by_a_start_deadline(new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    """Four slots, one busy for long: the fourth part waits for one of the others, longer than a request may."""
    balancer = await new_balancer(buffered_request_timeout_ms=200)
    agent = await new_agent(slots=4)
    async with balancer.http() as http:
        chatting, other = await busy(http, agent)
        asking = post(http)
        parts = [await agent.take() for _ in range(3)]
        await wait_until(balancer.num_waiting)
        done, _ = await asyncio.wait([asking], timeout=0.6)
        assert not done
        for part in parts:
            await answer(part)
        await answer(await agent.take())
        told = await asking
        assert (told.status_code, len(told.json()["data"])) == (200, 96)
        await other.finish()
        assert (await chatting).status_code == 200


async def test_the_start_deadline_of_a_batch_is_that_of_its_first_part(
    balancer: HttpBalancer, new_agent: NewAgent
) -> None:
    agent = await new_agent(slots=4)
    async with balancer.http() as http:
        others = [await busy(http, agent) for _ in range(4)]
        error = await refused(post(http, X_Request_Timeout="150"), 504)
        assert error["code"] == "start_timeout"
        asking = post(http, X_Request_Timeout="300")
        await wait_until(balancer.num_waiting)
        for chatting, other in others[:1]:
            await other.finish()
            await chatting
        first = await agent.take()
        await wait_until(balancer.num_waiting)
        done, _ = await asyncio.wait([asking], timeout=0.7)
        assert not done
        await answer(first)
        for _ in range(3):
            await answer(await agent.take())
        assert (await asking).status_code == 200
        for chatting, other in others[1:]:
            await other.finish()
            await chatting


async def test_one_part_at_most_waits(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    """One call to a busy pool leaves the buffer to others."""
    agent = await new_agent(slots=4)
    async with balancer.http() as http:
        others = [await busy(http, agent) for _ in range(4)]
        asking = post(http)
        waiting: list[int] = []
        parts: list[HandRequest] = []
        for chatting, other in others:
            await wait_until(balancer.num_waiting)
            waiting.append(await balancer.num_waiting())
            await other.finish()
            await chatting
            parts.append(await agent.take())
        for part in parts:
            await answer(part)
        assert (await asking).status_code == 200
    assert waiting == [1, 1, 1, 1]


async def test_free_slots_are_all_taken_at_once(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    """Also before any of the parts has been opened."""
    agent = await new_agent(slots=4)
    async with balancer.http() as http:
        asking = post(http)
        lane = agent.pool.keys.lane(agent.agent_id)

        async def are_given() -> bool:
            return await agent.pool.redis.xlen(lane) == 4

        await wait_until(are_given)
        for _ in range(4):
            await answer(await agent.take())
        assert (await asking).status_code == 200


async def test_a_buffer_that_others_fill_is_tried_again(
    balancer: HttpBalancer, new_agent: NewAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nothing of the batch runs any more: what is computed is kept."""
    agent = await new_agent(slots=3)
    submit, refusals, is_full = balancer.gateway.submit, 0, True

    async def refusing(pool: str, payload: Payload, how: Submit | None = None) -> Reply:
        nonlocal refusals
        assert isinstance(payload, Embed)
        if payload.first and is_full:
            refusals += 1
            raise BufferFull("others wait")
        return await submit(pool, payload, how)

    monkeypatch.setattr(balancer.gateway, "submit", refusing)
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed(BATCH)))
        await answer(await agent.take())
        await wait_until(balancer.is_idle)
        seen = refusals
        await wait_until(lambda: refusals >= seen + 2)
        is_full = False
        for _ in range(2):
            await answer(await agent.take())
        told = await asking
    assert (told.status_code, len(told.json()["data"])) == (200, 48)


@pytest.mark.parametrize("key", ["", "k"])
async def test_a_balancer_that_stops(new_balancer: NewBalancer, new_agent: NewAgent, key: str) -> None:
    """It leaves to be resumed what its client can come back to: by a key, as the parts' ids are not known to it."""
    balancer = await new_balancer(cancel_on_stop=False)
    agent = await new_agent(slots=3)
    async with balancer.http() as http:
        headers = {"Idempotency-Key": key} if key else {}
        asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed(BATCH), headers=headers))
        parts = [await agent.take() for _ in range(1 if key else 3)]
        balancer.gateway.stop_accepting()
        assert (await refused(asking, 503))["code"] == "shutting_down"
        if not key:
            for part in parts:
                await part.cancelled()
            assert await balancer.is_idle()
    if key:
        other = await new_balancer()
        async with other.http() as http:
            again = asyncio.create_task(http.post(EMBEDDINGS, json=embed(BATCH), headers=headers))
            await answer(parts[0])
            told = await again
            assert (told.status_code, told.headers["x-request-id"]) == (200, parts[0].request_id)


async def test_a_part_that_is_cancelled_ends_the_batch(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    agent = await new_agent(slots=3)
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed(BATCH)))
        parts = [await agent.take() for _ in range(3)]
        [middle] = [part for part in parts if payload_of(part).first == 16]
        assert (await http.post(f"/v1/requests/{middle.request_id}/cancel")).status_code == 200
        await middle.cancelled()
        assert (await refused(asking, 499))["code"] == "cancelled"
        assert (await asking).headers["x-request-id"] == middle.request_id
        for part in parts:
            if part is not middle:
                await part.cancelled()
    assert await balancer.is_idle()
