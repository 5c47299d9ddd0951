"""A fleet that is there when it is needed: `paddler up --agents 0..2` starts agents when requests come, and ends them.

Nobody loads a model for nothing, and nobody is turned away: what comes first waits until the model is loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from openai import AsyncOpenAI
from story_harness import Queue, asking, open_queue, openai_client
from up_harness import Up, paddler_up

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

NUM_REQUESTS = 100


async def answer(client: AsyncOpenAI, number: int) -> int:
    said = await client.chat.completions.create(
        model="default", messages=asking(f"{number}?"), max_tokens=2, temperature=0
    )
    assert said.usage is not None
    return said.usage.completion_tokens


def num_agent_processes(up: Up) -> int:
    num = 0
    for one in psutil.Process(up.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            num += ("paddler", "agent") in pairwise(one.cmdline())
    return num


async def test_a_hundred_requests_to_no_agent(tmp_path: Path) -> None:
    """They wait in the buffer. The first of them starts two agents, as four slots are too few for all; these work it
    off, and when nobody has needed them for a while they take no more, are idle, and end. None was killed, and none had
    anything to hand over, for the fleet to become small again."""
    flags = ("--engine", "llama", "--agents", "0..2", "--cooldown", "2000", "--max-buffered-requests", "200")
    flags = (*flags, "--threads", "1")  # two agents share what may be two cores
    async with paddler_up(tmp_path, *flags, "--buffered-request-timeout", "200000") as up:
        assert "There is no agent: the first request starts one, and waits up to 200 s for it." in up.shown
        assert num_agent_processes(up) == 0
        async with open_queue(up.redis_url) as queue, openai_client(up.openai_url) as client:
            assert await queue.agents() == []
            asked = [asyncio.create_task(answer(client.with_options(timeout=200), n)) for n in range(NUM_REQUESTS)]
            await wait_until(lambda: num_agent_processes(up) == 2, timeout_s=60, poll_s=0.1, what="two agents start")
            assert all(num in (1, 2) for num in await asyncio.gather(*asked))
            await wait_until(lambda: is_at_zero(queue, up), timeout_s=60, poll_s=0.1, what="back to no agent")
            assert len(await queue.requests("done")) == NUM_REQUESTS
        handed_over = await wait_until(lambda: told(up, r"handed_over=(\d+)", 2), what="both have said goodbye")
        assert handed_over == ["0", "0"]
    for trouble in ("killed", "crashed", "has not come"):
        assert trouble not in up.log


def told(up: Up, pattern: str, number: int) -> list[str]:
    """What the log has of it, once that is so many."""
    found = re.findall(pattern, up.log)
    return found if len(found) == number else []


async def is_at_zero(queue: Queue, up: Up) -> bool:
    return await queue.agents() == [] and num_agent_processes(up) == 0
