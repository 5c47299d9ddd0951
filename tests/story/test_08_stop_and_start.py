"""Stopping is quick and leaves nothing behind; what waits in the queue outlives every process, Valkey included."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from openai import APIConnectionError, APIError
from story_harness import Told, asking, open_queue, openai_client
from up_harness import descendants, is_alive, paddler_up

from paddler.store.client import TROUBLE
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

STOP_S = 5.0


async def test_a_waiting_request_outlives_a_crash_of_the_valkey(tmp_path: Path) -> None:
    """No agent yet (`--agents 0`), a request waits, and the server that holds the queue is killed. The new one has the
    request, the client has noticed nothing, and the first agent (the command is on the screen) answers it."""
    async with (
        paddler_up(tmp_path, "--agents", "0", "--buffered-request-timeout", "60000") as up,
        open_queue(up.redis_url) as queue,
        openai_client(up.openai_url) as client,
    ):
        asked = client.chat.completions.create(model="default", messages=asking("[[say=still here]]"))
        answering = asyncio.create_task(asked)
        await wait_until(queue.num_waiting)
        old = up.pids()["valkey"]
        os.kill(old, signal.SIGKILL)
        await wait_until(lambda: up.pids().get("valkey", old) != old, what="the next server runs")

        async def still_waits() -> bool:
            with contextlib.suppress(*TROUBLE):
                return await queue.num_waiting() == 1
            return False

        await wait_until(still_waits, what="the next server has the request")
        line = next(line for line in up.shown.splitlines() if " agent --name " in line)
        agent = subprocess.Popen(shlex.split(line), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            answer = await answering
        finally:
            agent.terminate()
            agent.wait(10)
        assert answer.choices[0].message.content == "still here"


async def test_a_power_cut_keeps_the_queue(tmp_path: Path) -> None:
    """Everything is killed at once and started again: the request still waits. As the client has lost its connection
    and will not come back, the deadline ends it, and it leaves Redis by its TTL."""
    flags = ("--agents", "0", "--buffered-request-timeout", "3000")
    async with paddler_up(tmp_path, *flags) as up, openai_client(up.openai_url) as client:
        asked = asyncio.create_task(client.chat.completions.create(model="default", messages=asking("hi")))
        async with open_queue(up.redis_url) as queue:
            await wait_until(queue.num_waiting)
            (request_id,) = await queue.requests("waiting")
        left = descendants(up.process.pid)
        up.process.kill()
        await wait_until(lambda: not any(map(is_alive, left)), timeout_s=STOP_S, what="nobody is left")
        with pytest.raises(APIConnectionError):
            await asked
    (tmp_path / "out").unlink()
    async with paddler_up(tmp_path, *flags) as up, open_queue(up.redis_url) as queue:
        assert await queue.requests() == {request_id}
        await wait_until(queue.is_empty, what="its deadline has ended it")
        assert await queue.requests("failed") == {request_id}
        assert all(ttl > 0 for ttl in await queue.ttls(request_id))


async def test_ctrl_c_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    """Whoever is being answered is told, everything ends within five seconds, and no process stays behind."""
    async with paddler_up(tmp_path, "--engine", "llama") as up, openai_client(up.openai_url) as client:
        told = Told()
        telling = asyncio.create_task(told.ask(client, "Tell me a very long story.", max_tokens=2000))
        await wait_until(lambda: told.text, timeout_s=30, what="the story has begun")
        left = descendants(up.process.pid)
        assert len(left) == 4
        began = time.monotonic()
        up.process.send_signal(signal.SIGINT)
        with pytest.raises(APIError) as stopped:
            await telling
        assert stopped.value.code == "shutting_down"
        assert await asyncio.to_thread(up.process.wait, STOP_S) == 0
        assert time.monotonic() - began < STOP_S
        assert not any(map(is_alive, left))
        assert "killing" not in up.log
