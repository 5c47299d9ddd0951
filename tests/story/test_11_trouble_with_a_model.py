"""A model file that is no good, a process that native code ends, a step that never comes back: each costs one agent at
most, says what it was, and costs no request.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from broken_models import that_kills_in_a_decode, that_kills_the_reader
from openai import AsyncOpenAI
from story_harness import SCRIPTED, CommandFleet, Heard, Queue, Told, asking
from up_harness import Up

from paddler.store.client import connect
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


def lanes(url: str, prefix: str) -> list[dict[str, Any]]:
    """What `paddler queue --json` shows of the agents."""
    command = [sys.executable, "-P", "-m", "paddler", "queue", "--json", "--redis-url", url, "--redis-prefix", prefix]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)["pools"][0]["lanes"]


async def test_a_bad_file_is_an_issue_and_no_crash_loop(
    fleet: CommandFleet, patient: AsyncOpenAI, valkey: RedisServer, tmp_path: Path
) -> None:
    """llama.cpp aborts over this file, in a process of its own. The agent stays in its pool and says what is wrong and
    what to do; when the file is replaced, it serves."""
    file = that_kills_the_reader(find_starter(), tmp_path / "model.gguf")
    agent = fleet.begin_agent("one", "--slots", "1", "--threads", "1", "--model", str(file), "--model-name", "mine")
    await agent.logged("the model cannot be served", kind="ModelCannotBeLoaded")
    (lane,) = await asyncio.to_thread(lanes, valkey.url, fleet.prefix)
    assert (lane["state"], lane["slots"], lane["name"]) == ("failed", 0, "one")
    (issue,) = lane["issues"]
    assert "GGML_ASSERT" in issue["detail"]
    assert "tries again as soon as the file changes" in issue["action"]
    assert "Download the file again" in issue["remedy"]
    shutil.copyfile(find_starter(), file)
    await agent.logged("registered", model="mine")
    answer = await patient.chat.completions.create(model="mine", messages=asking("hello"), max_tokens=2)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


async def test_one_that_only_kills_while_it_is_warmed_up_costs_one_process(fleet: CommandFleet, tmp_path: Path) -> None:
    """A first look computes nothing, so this file ends the agent once. The next start looks more closely."""
    file = that_kills_in_a_decode(find_starter(), tmp_path / "model.gguf")
    flags = ("--slots", "1", "--threads", "1", "--model", str(file))
    first = fleet.begin_agent("one", *flags)
    await wait_until(lambda: not first.is_running, timeout_s=60, poll_s=0.1, what="it is killed")
    assert first.process.returncode == -signal.SIGABRT
    second = fleet.begin_agent("one", *flags)
    await second.logged("an earlier start with this model never came to its end; looking at it in full")
    await second.logged("the model cannot be served", kind="ModelCannotBeLoaded")
    assert second.is_running


async def test_under_paddler_up_it_is_no_crash_loop(tmp_path: Path) -> None:
    """One death, then the closer look, twice, as for anything that is refused; then all of it stops with the reason."""
    file = that_kills_in_a_decode(find_starter(), tmp_path / "model.gguf")
    flags = ("--engine", "llama", "--model", str(file), "--slots", "1", "--threads", "1", "--context-size", "512")
    up = Up(tmp_path, *flags)
    try:
        await wait_until(lambda: up.process.poll() is not None, timeout_s=120, poll_s=0.2, what="it gives up")
    finally:
        up.end()
    assert up.process.returncode == 1
    assert up.log.count("was killed by SIGABRT; starting it again") == 1
    assert "exited with code 78 again; stopping" in up.log
    assert f"llama.cpp does not survive {file}" in up.log


async def test_a_waiting_agent_that_is_stopped_leaves_the_next_one_careful(fleet: CommandFleet, tmp_path: Path) -> None:
    file = that_kills_in_a_decode(find_starter(), tmp_path / "model.gguf")
    flags = ("--slots", "1", "--threads", "1", "--model", str(file))
    first = fleet.begin_agent("one", *flags)
    await wait_until(lambda: not first.is_running, timeout_s=60, poll_s=0.1, what="it is killed")
    for _ in range(2):
        waiting = fleet.begin_agent("one", *flags)
        await waiting.logged("the model cannot be served", kind="ModelCannotBeLoaded")
        waiting.process.send_signal(signal.SIGTERM)
        await wait_until(lambda agent=waiting: not agent.is_running, timeout_s=20, what="it ends")
        assert waiting.process.returncode == 0


async def test_sigterm_while_loading_ends_it_at_once(fleet: CommandFleet, fleet_queue: Queue) -> None:
    agent = fleet.begin_agent("slow", *SCRIPTED, "--slots", "1", "--scripted-load", "60000")
    await agent.logged("entered the pool, not ready yet")
    agent.process.send_signal(signal.SIGTERM)
    await wait_until(lambda: not agent.is_running, timeout_s=5, what="it ends")
    assert agent.process.returncode == 0
    assert await fleet_queue.agents() == []


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT])
async def test_a_native_crash_ends_one_agent_and_no_request(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue, how: signal.Signals
) -> None:
    """With the model: killed as a bad access in llama.cpp or an assertion kills it, four streams in mid-sentence. Each
    goes on with the next agent and ends with as many tokens as it asked for."""
    agents = {name: await fleet.agent(name, "--slots", "4", "--threads", "1") for name in ("one", "two")}
    told = [Heard() for _ in range(4)]
    asked = {"max_tokens": 60, "temperature": 0}
    stories = [f"Tell me a long story about river number {number}." for number in range(4)]
    telling = [asyncio.create_task(one.ask(patient, story, **asked)) for one, story in zip(told, stories, strict=True)]

    def are_all_heard() -> bool:
        for one in telling:
            assert not one.done(), one.result()
        return all(one.text for one in told)

    await wait_until(are_all_heard, timeout_s=60, what="all are in mid-sentence")
    victim = (await fleet_queue.agent_names(told[0].request_id))[-1]
    agents[victim].process.send_signal(how)
    await asyncio.gather(*telling)
    assert agents.pop(victim).process.wait(10) == -how
    assert all(agent.is_running for agent in agents.values()), "the others live"
    assert [one.completion_tokens for one in told] == [60] * 4
    assert [one.finish_reasons for one in told] == [["length"]] * 4
    for one in told:
        assert len(await fleet_queue.token_ids(one.request_id)) == 60


async def test_a_step_that_never_comes_back_ends_its_agent_and_not_its_request(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue, valkey: RedisServer
) -> None:
    """`[[hang]]` never returns and hears no interruption, as native code in a loop. The watchdog ends the process,
    which lets go of its requests before it goes: with a lease of a minute they would otherwise wait for that."""
    flags = (*SCRIPTED, "--slots", "2", "--lease", "60000", "--hang-timeout", "300")
    one = await fleet.agent("one", *flags)
    await Told().ask(patient, "warm up [[tokens=3]]")
    heard = Heard()
    asking_it = asyncio.create_task(heard.ask(patient, "hang [[hang]] [[tokens=20]]", temperature=0))
    await one.logged("a step hangs; interrupting it")
    await wait_until(lambda: not one.is_running, timeout_s=20, what="the watchdog ends it")
    assert one.process.returncode == 70
    assert "most recent call first" in one.text, "where Python's threads stood"
    store = connect(valkey.url, fleet.prefix)
    assert await store.pool("default").redis.zcard(store.pool("default").keys.agents()) == 0
    await store.close()
    await fleet.agent("two", *flags)
    await asking_it
    assert heard.completion_tokens == 20
    assert await fleet_queue.agent_names(heard.request_id) == ["one", "two"]
