"""What one agent has computed the next one need not: it fetches the state from whoever has it, and goes on from there.

Agents with `--kv-addr` give each other what their KV cache holds. Nothing is set up for that but the flag.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI
from story_harness import CommandFleet, Heard, Queue, asking

from paddler.store.client import Store, connect
from paddler.store.results import Order
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from paddler.wire.balancer import Prefilled

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

FLAGS = ("--slots", "1", "--threads", "1", "--kv-addr", "127.0.0.1:0", "--context-size", "2048")
DOCUMENT = "The harbour master wrote down every ship, its cargo and the weather it came through. " * 40
BLOCKS = 512
"""Tokens of two whole blocks, which the document has."""


@pytest.fixture
async def store(fleet: CommandFleet, valkey: RedisServer) -> AsyncIterator[Store]:
    store = connect(valkey.url, fleet.prefix)
    yield store
    fleet.stop_agents()
    await store.redis.delete(store.pool("default").keys.kv_secret())
    await store.close()


async def test_a_prefix_is_fetched_from_the_agent_that_has_it(
    fleet: CommandFleet, fleet_queue: Queue, patient: AsyncOpenAI, store: Store
) -> None:
    first = await fleet.agent("first", *FLAGS)
    await ask(patient, "Who wrote?")
    await fleet.agent("second", *FLAGS)
    agent_id = (await first.logged("registered"))["agent"]
    assert await store.pool("default").order(agent_id, Order.DRAIN) is not None
    cached = await ask(patient, "What did he write down?")
    assert cached >= BLOCKS
    (last,) = [one for one in await fleet_queue.requests("done") if "second" in await fleet_queue.agent_names(one)]
    assert await fleet_queue.agent_names(last) == ["second"]


async def test_a_request_that_is_handed_over_brings_its_state(
    fleet: CommandFleet, fleet_queue: Queue, patient: AsyncOpenAI, store: Store
) -> None:
    """SIGTERM in the middle of an answer: the next agent restores what it was computed from."""
    agents = {name: await fleet.agent(name, *FLAGS) for name in ("one", "other")}
    told = Heard()
    question = f"{DOCUMENT} Tell it all again."
    asked = asyncio.create_task(told.ask(patient, question, max_tokens=100, extra_body={"ignore_eos": True}))
    await wait_until(lambda: told.text, timeout_s=90, what="it has begun to answer")
    (first,) = await fleet_queue.agent_names(told.request_id)
    agents[first].process.send_signal(signal.SIGTERM)
    await asked
    assert told.finish_reasons == ["length"]
    assert await fleet_queue.agent_names(told.request_id) == [first, "other" if first == "one" else "one"]
    prefilled = [one for one in await fleet_queue.frames(told.request_id) if isinstance(one, Prefilled)]
    assert prefilled[-1].cached_tokens >= BLOCKS
    await wait_until(lambda: not agents[first].is_running, timeout_s=10, what="it ends when others have what they need")


async def ask(client: AsyncOpenAI, question: str) -> int:
    """How many tokens of the prompt came from a cache."""
    answer = await client.chat.completions.create(
        model="default", messages=asking(f"{DOCUMENT} {question}"), max_tokens=4
    )
    assert answer.usage is not None
    details = answer.usage.prompt_tokens_details
    return 0 if details is None else details.cached_tokens or 0
