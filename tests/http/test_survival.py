"""Streams outlive their balancer: real processes, SIGKILL, and what a client that saw its stream break can do."""

from __future__ import annotations

import asyncio
import json
import re
import signal

import httpx
import pytest
from balancer_process import BalancerProcess, StartBalancer
from http_harness import HandAgent, chat

from paddler.store.client import Store

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
WORDS = [f"w{n} \u2603 " for n in range(12)]


async def read_until_it_breaks(balancer: BalancerProcess, body: dict[str, object], seen: list[bytes]) -> None:
    async with balancer.http() as http, http.stream("POST", CHAT, json=body) as answer:
        async for piece in answer.aiter_bytes():
            seen.append(piece)  # noqa: PERF401  # whoever waits for a piece sees it at once


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_client_of_a_balancer_that_ends_goes_on_at_another(
    start: StartBalancer, store: Store, number: signal.Signals
) -> None:
    """Killed, its stream breaks off; stopped, as in a rolling restart, it ends with an error that says try again."""
    first, second = await start(store), await start(store)
    agent = HandAgent(store, slots=2)
    await agent.register()
    async with second.http() as http:
        # The same conversation without any trouble, to compare bytes with.
        posting = asyncio.create_task(http.post(CHAT, json=chat(stream=True)))
        request = await agent.take()
        for word in WORDS:
            await request.say(word)
        await request.finish()
        unbroken = await posting
        expected = events_of(unbroken.text)

        seen: list[bytes] = []
        reading = asyncio.create_task(read_until_it_breaks(first, chat(stream=True), seen))
        request = await agent.take()
        for at, word in enumerate(WORDS[:6]):
            await request.say(word)
            while WORDS[at].encode() not in b"".join(seen):
                await asyncio.wait({reading}, timeout=0.01)
        first.process.send_signal(number)
        if number is signal.SIGKILL:
            with pytest.raises(httpx.HTTPError):
                await reading
        else:
            await reading
        assert await asyncio.wait_for(first.process.wait(), 10) in (0, -number)
        await request.say(WORDS[6])

        had = events_of(b"".join(seen).decode())
        if number is signal.SIGTERM:
            *had, failure, end = had
            assert json.loads(failure.removeprefix("data: "))["error"]["code"] == "shutting_down"
            assert end == "data: [DONE]"
        last_id = had[-1].partition("\nid: ")[2]
        assert last_id.startswith(request.request_id)
        url = f"/v1/requests/{request.request_id}/stream"
        resuming = asyncio.create_task(http.get(url, headers={"Last-Event-ID": last_id}))
        for word in WORDS[7:]:
            await request.say(word)
        await request.finish()
        rest = events_of((await resuming).text)
        assert plain(had + rest, request.request_id) == plain(expected, unbroken.headers["x-request-id"])
    assert await store.redis.xlen(agent.pool.keys.demand()) == 0
    await agent.leave()


def events_of(text: str) -> list[str]:
    """Whole events; what was cut within one has not been seen."""
    return text.split("\n\n")[:-1]


def plain(events: list[str], request_id: str) -> list[str]:
    """Without what differs between two requests: the id, and the second in which they were made."""
    return [re.sub(r'"created":\d+', "", event.replace(request_id, "")) for event in events]
