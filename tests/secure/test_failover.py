"""The primary dies while tokens flow: Sentinel promotes its replica, and every request ends as if nothing had been."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from secure_servers import Pair
from story_harness import SCRIPTED, CommandFleet, Told, open_queue, openai_client

from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240), pytest.mark.xdist_group("secure failover")]

NUM_REQUESTS = 8
TOKENS = 400
TEXT = f"[[tokens={TOKENS}]]"


async def test_requests_survive_a_failover(valkey: RedisServer, tmp_path: Path, prefix: str) -> None:
    """Half of them run and half of them wait as it happens. No token is missing, none comes twice."""
    pair = await asyncio.to_thread(Pair, valkey.binary, tmp_path)
    fleet = CommandFleet(pair.url, prefix, tmp_path)
    try:
        await fleet.start()
        await fleet.agent("one", *SCRIPTED, "--slots", str(NUM_REQUESTS // 2), "--scripted-step", "10")
        async with openai_client(fleet.balancer_url) as client, open_queue(pair.url, prefix) as queue:
            undisturbed = await Told().ask(client, TEXT, max_tokens=TOKENS, temperature=0)
            heard = [Told() for _ in range(NUM_REQUESTS)]
            asked = [asyncio.create_task(one.ask(client, TEXT, max_tokens=TOKENS, temperature=0)) for one in heard]
            await wait_until(
                lambda: sum(len(one.text) > 50 for one in heard) >= NUM_REQUESTS // 2, what="half of them speak"
            )
            await wait_until(pair.is_synced)
            pair.primary.kill()
            await asyncio.gather(*asked)
            assert [one.text for one in heard] == [undisturbed.text] * NUM_REQUESTS
            assert {one.completion_tokens for one in heard} == {TOKENS}
            await wait_until(queue.is_empty, what="the queue is empty")
    finally:
        fleet.close()
        await asyncio.to_thread(pair.close)
