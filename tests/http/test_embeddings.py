"""`POST /v1/embeddings`: the real queue, agents moved by hand. A batch is several requests, and one answer."""

from __future__ import annotations

import asyncio

import pytest
from embedding_calls import BATCH, EMBEDDINGS, answer, embed, payload_of, refused
from http_harness import HandAgent, HttpBalancer, NewAgent, NewBalancer

from paddler.errors import ContextExceeded
from paddler.jobs import fleet_view
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Embed

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def fresh_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Balancers see a new agent's slots at once."""
    monkeypatch.setattr(fleet_view, "REFRESH_S", 0)


async def test_one_text(balancer: HttpBalancer, agent: HandAgent) -> None:
    for service in ("inference", "openai"):
        async with balancer.http(service) as http:
            asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed()))
            request = await agent.take()
            assert payload_of(request) == Embed(inputs=("hello",), is_single=True)
            await answer(request)
            told = await asking
        assert told.status_code == 200
        assert told.headers["x-request-id"] == request.request_id
        assert (told.headers["x-paddler-agent"], told.headers["x-paddler-attempt"]) == ("hand", "1")
        assert told.json() == {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
            "model": "default",
            "usage": {"prompt_tokens": 2, "total_tokens": 2},
        }


async def test_a_batch_is_a_ticket_for_each_slot_and_one_answer(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    agent = await new_agent(slots=3)
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed(BATCH)))
        requests = [await agent.take() for _ in range(3)]
        assert sorted(payload_of(request).first for request in requests) == [0, 16, 32]
        for request in reversed(requests):
            await answer(request)
        told = await asking
    assert [one["embedding"] for one in told.json()["data"]] == [[float(n)] for n in range(48)]
    assert [one["index"] for one in told.json()["data"]] == list(range(48))
    assert told.json()["usage"] == {"prompt_tokens": 96, "total_tokens": 96}
    assert told.headers["x-request-id"] in {request.request_id for request in requests if not payload_of(request).first}
    assert told.headers["x-paddler-agent"] == "hand"


async def test_one_that_fails_cancels_the_others(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    agent = await new_agent(slots=3)
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed(BATCH)))
        first, bad, third = [await agent.take() for _ in range(3)]
        await bad.fail(ContextExceeded("input[17] is too long", param="input[17]"))
        error = await refused(asking, 400)
        assert (error["code"], error["param"]) == ("context_length_exceeded", "input[17]")
        assert (await asking).headers["x-request-id"] == bad.request_id
        await first.cancelled()
        await third.cancelled()
    assert await balancer.is_idle()


async def test_a_client_that_leaves_cancels_all(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    agent = await new_agent(slots=2)
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed(BATCH)))
        requests = [await agent.take() for _ in range(2)]
        asking.cancel()
        for request in requests:
            await request.cancelled()
    await wait_until(balancer.is_idle)


async def test_a_batch_does_not_overflow_the_buffer_by_itself(new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    """Four slots, three of them taken, room for one in the buffer: what has none waits for those before it."""
    balancer = await new_balancer(max_buffered_requests=1)
    agent = await new_agent(slots=4)
    async with balancer.http() as http, asyncio.TaskGroup() as group:
        others = [group.create_task(http.post(EMBEDDINGS, json=embed())) for _ in range(3)]
        taken = [await agent.take() for _ in range(3)]
        asking = group.create_task(http.post(EMBEDDINGS, json=embed([*BATCH, *BATCH])))
        seen: list[int] = []
        for _ in range(4):
            request = await agent.take()
            seen.append(payload_of(request).first)
            await answer(request)
        told = await asking
        for request in taken:
            await answer(request)
        assert {(await one).status_code for one in others} == {200}
    assert told.status_code == 200, told.text
    assert seen == [0, 24, 48, 72]
    assert len(told.json()["data"]) == 96


async def test_a_full_buffer_and_a_long_wait_are_told_as_for_chat(new_balancer: NewBalancer, agent: HandAgent) -> None:
    balancer = await new_balancer(max_buffered_requests=1)
    async with balancer.http() as http:
        running = asyncio.create_task(http.post(EMBEDDINGS, json=embed()))
        request = await agent.take()
        waiting = asyncio.create_task(
            http.post(EMBEDDINGS, json=embed(), headers={"X-Request-Timeout": "400", "X-Request-Class": "interactive"})
        )

        async def one_waits() -> bool:
            return await balancer.num_waiting() == 1

        await wait_until(one_waits)
        full = await http.post(EMBEDDINGS, json=embed(BATCH))
        assert (full.status_code, full.json()["error"]["code"]) == (503, "buffer_full")
        assert int(full.headers["retry-after"]) >= 1
        assert (await refused(waiting, 504))["code"] == "start_timeout"
        await answer(request)
        assert (await running).status_code == 200
    assert await balancer.is_idle()


async def test_a_repeat_with_its_key_is_the_same_request(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    """In one ticket, as another time there may be another number of slots."""
    agent = await new_agent(slots=3)
    headers = {"Idempotency-Key": "k"}
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed(BATCH), headers=headers))
        request = await agent.take()
        assert len(payload_of(request).inputs) == 48
        await answer(request)
        first, again = await asking, await http.post(EMBEDDINGS, json=embed(BATCH), headers=headers)
        assert first.headers["x-request-id"] == again.headers["x-request-id"]
        assert first.content == again.content
        other = await http.post(EMBEDDINGS, json=embed(BATCH[1:]), headers=headers)
        assert other.status_code == 422


@pytest.mark.parametrize(
    ("name", "value"), [("X-Request-Timeout", "soon"), ("X-Request-Class", "urgent"), ("Idempotency-Key", "")]
)
async def test_a_header_out_of_range_is_named(balancer: HttpBalancer, name: str, value: str) -> None:
    async with balancer.http() as http:
        told = await http.post(EMBEDDINGS, json=embed(), headers={name: value})
    assert (told.status_code, told.json()["error"]["param"]) == (400, name)


async def test_it_is_shown_by_its_id_and_has_no_stream(balancer: HttpBalancer) -> None:
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed([*BATCH[:2]], encoding_format="base64")))
        await wait_until(balancer.num_waiting)
        pool = balancer.store.pool("default")
        ((_, fields),) = await pool.redis.xrange(pool.keys.buffer())
        path = f"/v1/requests/{fields[b'id'].decode()}"
        shown = (await http.get(path)).json()
        assert (shown["state"], shown["position"], shown["response"]) == ("waiting", 0, None)

        agent = HandAgent(balancer.store)
        await agent.register()
        await answer(await agent.take())
        told = (await asking).json()
        shown = (await http.get(path)).json()
        assert (shown["state"], shown["response"]) == ("done", told)
        stream = await http.get(f"{path}/stream")
        assert (stream.status_code, stream.json()["error"]["param"]) == (400, "id")
        await agent.leave()


async def test_cancelled_from_outside(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed()))
        request = await agent.take()
        await http.post(f"/v1/requests/{request.request_id}/cancel")
        await request.cancelled()
        assert (await refused(asking, 499))["code"] == "cancelled"
