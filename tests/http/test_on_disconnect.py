"""`X-On-Disconnect: wait`: a connection that breaks costs no answer, and stopping is said in words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from embedding_calls import EMBEDDINGS, embed
from http_harness import HandAgent, HandRequest, HttpBalancer, chat

from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
WAIT = {"X-On-Disconnect": "wait"}


async def begun_and_broken(balancer: HttpBalancer, agent: HandAgent) -> tuple[HandRequest, str]:
    """A stream whose client has had `one ` and lost its connection, and the last id it has seen."""
    async with balancer.http() as http:
        sending = asyncio.create_task(
            http.send(http.build_request("POST", CHAT, json=chat(stream=True), headers=WAIT), stream=True)
        )
        request = await agent.take()
        await request.say("one ")
        answer = await sending
        seen = ""
        async for text in answer.aiter_text():
            seen += text
            if "\nid: " in seen and seen.endswith("\n\n"):
                break
        await answer.aclose()
    await nobody_follows(agent, request)
    return request, seen.rpartition("\nid: ")[2].strip()


async def nobody_follows(agent: HandAgent, request: HandRequest) -> None:
    async def is_left() -> bool:
        return await agent.pool.redis.scard(agent.pool.keys.watchers(request.request_id)) == 0

    await wait_until(is_left, what="the balancer has noticed")


async def test_it_goes_on_and_can_be_followed_again(balancer: HttpBalancer, agent: HandAgent) -> None:
    request, event_id = await begun_and_broken(balancer, agent)
    assert await balancer.demand() == 1
    url, headers = f"/v1/requests/{request.request_id}/stream", WAIT | {"Last-Event-ID": event_id}
    async with balancer.http() as http:
        # The next connection may break as well.
        again = await http.send(http.build_request("GET", url, headers=headers), stream=True)
        await again.aclose()
        await nobody_follows(agent, request)
        following = asyncio.create_task(http.get(url, headers=headers))
        await request.say("two")
        await request.finish()
        told = (await following).text
    assert '"content":"two"' in told
    assert "one " not in told


async def test_it_is_stopped_by_saying_so(balancer: HttpBalancer, agent: HandAgent) -> None:
    request, _ = await begun_and_broken(balancer, agent)
    async with balancer.http() as http:
        stopped = await http.post(f"/v1/requests/{request.request_id}/cancel")
        assert (stopped.status_code, stopped.json()["cancelling"]) == (200, True)
    await request.cancelled()
    assert await balancer.is_idle()


async def test_who_follows_without_it_and_leaves_cancels(balancer: HttpBalancer, agent: HandAgent) -> None:
    request, event_id = await begun_and_broken(balancer, agent)
    url = f"/v1/requests/{request.request_id}/stream"
    async with balancer.http() as http:
        asked = http.build_request("GET", url, headers={"Last-Event-ID": event_id})
        await (await http.send(asked, stream=True)).aclose()
    await request.cancelled()


@pytest.mark.parametrize(
    ("path", "body", "way"),
    [
        (CHAT, chat(), "often"),
        (CHAT, chat(), ""),
        (CHAT, chat(n=2), "wait"),
        ("/v1/completions", {"model": "default", "prompt": "x", "n": 2}, "wait"),
        (EMBEDDINGS, embed(), "wait"),
    ],
    ids=["unknown", "empty", "choices", "completions", "embeddings"],
)
async def test_where_it_cannot_be_it_is_refused(
    balancer: HttpBalancer, path: str, body: dict[str, Any], way: str
) -> None:
    async with balancer.http() as http:
        refused = await http.post(path, json=body, headers={"X-On-Disconnect": way})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "X-On-Disconnect")
    assert await balancer.is_idle()
