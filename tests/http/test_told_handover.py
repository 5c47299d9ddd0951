"""A stream tells which agent goes on with it."""

from __future__ import annotations

import asyncio

import pytest
from http_harness import HttpBalancer, NewAgent, chat, read_events

from paddler.wire.balancer import Prefilled

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("way", ["comments", "none"])
async def test_a_hand_over_is_told_before_the_text_of_the_next_agent(
    balancer: HttpBalancer, new_agent: NewAgent, way: str
) -> None:
    first = await new_agent()
    async with balancer.http() as http:
        asked = http.build_request("POST", CHAT, json=chat(stream=True), headers={"X-SSE-Keepalive": way})
        sending = asyncio.create_task(http.send(asked, stream=True))
        request = await first.take()
        await request.say("one ")
        answer = await sending
        assert answer.headers["x-paddler-attempt"] == "1"
        second = await new_agent()
        await first.leave()
        request = await second.take()
        await request.emit(Prefilled(10, 2))
        await request.say("two")
        await request.say(" three")
        await request.finish()
        events = await read_events(answer)
    told = [event for event in events if event.startswith(":")]
    # The attempt is the fence: it is another one while nobody has the request, too.
    attempts = [": x-paddler-agent: hand", ": x-paddler-attempt: 3", ": x-paddler-cache: partial"]
    assert told == (attempts if way == "comments" else [])
    if told:
        at = events.index(told[0])
        assert '"one "' in events[at - 1]
        assert '"two"' in events[at + 3]
