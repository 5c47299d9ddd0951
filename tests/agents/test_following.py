"""Agents that follow their pool: what they serve changes, and nobody who asks them for something notices."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from broken_models import projection_that_kills
from following_harness import SLOTS, FollowingFleet, scripted
from story_harness import Command
from tiny_vision import write_projector

from paddler.desired.schema import ChatTemplate, GivenModel, InferenceParameters
from paddler.engine import Engine, ModelError
from paddler.engine_settings import EngineSettings
from paddler.jobs.gateway import Gateway
from paddler.jobs.overview import Lane, Overview
from paddler.jobs.reaping import reap_agent
from paddler.presence import processes
from paddler.store.turn_keys import losses_key
from paddler.testing.script import whole
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter
from paddler.wire.agent import Generate
from paddler.wire.balancer import Finished, Opened, Tokens

pytestmark = pytest.mark.anyio


class Told:
    def __init__(self) -> None:
        self.text = ""
        self.agents: list[str] = []
        self.is_done = False


async def tell(gateway: Gateway, payload: Generate, told: Told | None = None) -> Told:
    """Ask, and check that the answer is that of an uninterrupted run."""
    told = told or Told()
    async with await gateway.submit("default", payload) as reply:
        async for frame in reply:
            match frame:
                case Opened(agent_name=name):
                    told.agents.append(name)
                case Tokens(text=text):
                    told.text += text
                case Finished():
                    told.is_done = True
                case _:
                    pass
    assert told.text == whole(payload).text
    return told


def story(name: str, tokens: int = 20) -> Generate:
    return Generate(prompt=f"{name} [[tokens={tokens}]]")


async def test_it_waits_in_the_pool_until_a_model_is_wanted(following: FollowingFleet) -> None:
    """Scale from zero by a state: the request waits, then the model comes."""
    agent = following.agent()
    gateway = await following.fleet.gateway()
    pending = asyncio.create_task(tell(gateway, story("early")))
    told = await agent.is_told(state="waiting", state_application_status="Fresh", issues="[]", slots=0)
    (present,) = await wait_until(lambda: processes(following.fleet.store), what="it says that it is there")
    assert (present.kind, present.name) == ("agent", "one")
    assert (told["desired_slots"], told["desired_version"], told["model_path"]) == (str(SLOTS), "0", "")
    await wait_until(following.fleet.num_waiting)
    version = await following.put(following.model("first"))
    assert (await pending).is_done
    told = await agent.serves("first", version)
    assert told["model_path"].endswith("first.gguf")
    assert told["slots"] == str(SLOTS)


async def test_a_swap_under_load_loses_nothing_and_leaves_half(following: FollowingFleet) -> None:
    """Two agents, streams without a break, one model after the other: every answer is whole, and at no time are fewer
    than half of the slots ready. What runs when its agent's turn comes goes on elsewhere, or here, from its text."""
    await following.put(following.model("m0"))
    agents = [following.agent(name) for name in ("one", "two")]
    for agent in agents:
        await agent.serves("m0", 1)
    gateway = await following.fleet.gateway(buffered_request_timeout_ms=60_000)
    over, fewest, answers = asyncio.Event(), [2 * SLOTS], list[Told]()

    async def client(number: int) -> None:
        turn = 0
        while not over.is_set() or turn < 3:
            turn += 1
            answers.append(await tell(gateway, story(f"client {number} turn {turn}", tokens=25)))

    async def watch() -> None:
        while not over.is_set():
            fewest[0] = min(fewest[0], await following.num_ready_slots())
            await asyncio.sleep(0.005)

    clients = [asyncio.create_task(client(number)) for number in range(4)]
    watching = asyncio.create_task(watch())
    for number in (1, 2):
        version = await following.put(following.model(f"m{number}"))
        for agent in agents:
            await agent.serves(f"m{number}", version)
    over.set()
    await asyncio.gather(*clients, watching)
    assert len(answers) >= 12
    assert all(answer.is_done for answer in answers)
    assert fewest[0] == SLOTS, f"{fewest[0]} slots were ready at one time"
    assert any(len(answer.agents) > 1 for answer in answers), "some were handed over"
    assert await following.fleet.is_idle()


async def test_one_agent_alone_changes_and_what_waits_is_served_then(following: FollowingFleet) -> None:
    await following.put(following.model("old"))
    agent = following.agent(step_s=0.02)
    await agent.serves("old", 1)
    gateway = await following.fleet.gateway(buffered_request_timeout_ms=60_000)
    running = [Told(), Told()]
    telling = [asyncio.create_task(tell(gateway, story(f"s{n}", 150), told)) for n, told in enumerate(running)]
    await wait_until(lambda: all(told.text for told in running))
    version = await following.put(following.model("new"))
    waiting = asyncio.create_task(tell(gateway, story("waits")))
    await agent.serves("new", version)
    assert not any(told.is_done for told in running)
    await asyncio.gather(*telling, waiting)
    assert [len(told.agents) for told in running] == [2, 2]


async def test_within_the_grace_time_what_runs_ends_where_it_is(following: FollowingFleet) -> None:
    await following.put(following.model("old"))
    agent = following.agent(grace_ms=60_000, step_s=0.02)
    await agent.serves("old", 1)
    gateway = await following.fleet.gateway()
    told = Told()
    telling = asyncio.create_task(tell(gateway, story("s", 60), told))
    await wait_until(lambda: told.text)
    version = await following.put(following.model("new"))
    await agent.is_told(state="leaving")
    await agent.serves("new", version)
    assert telling.done(), "it had its time"
    assert (await telling).agents == ["one"]


async def test_the_engine_of_before_is_gone_before_the_next_is_made(following: FollowingFleet) -> None:
    """Two models rarely fit."""
    alive: list[int] = []

    def make(settings: EngineSettings) -> Engine:
        alive.append(sum(one() is not None for one in following.agents[0].engines))
        return scripted(settings, step_s=0.0)

    await following.put(following.model("m1"))
    agent = following.agent(make=make)
    await agent.serves("m1", 1)
    for number in (2, 3):
        await following.put(following.model(f"m{number}"))
        await agent.serves(f"m{number}", number)
    assert alive == [0, 0, 0]


async def test_a_state_that_cannot_be_had_leaves_the_model_that_serves(following: FollowingFleet) -> None:
    await following.put(following.model("good"))
    agent = following.agent()
    before = await agent.serves("good", 1)
    await following.put(following.model("bad", b"<html>"))
    told = await agent.is_told(state_application_status="AttemptedAndNotAppliable", desired_version=2)
    assert (told["id"], told["state"], told["applied_version"]) == (before["id"], "ready", "1")
    assert "ModelCannotBeLoaded" in told["issues"]
    assert "goes on serving" in told["issues"]
    gateway = await following.fleet.gateway()
    assert (await tell(gateway, story("still"))).is_done
    (following.folder / "bad.gguf").write_bytes(b"GGUF after all")
    await agent.serves("bad", 2)


@pytest.mark.timeout(180)
async def test_a_projection_that_kills_llama_cpp_costs_nobody_the_model_that_serves(
    following: FollowingFleet, tmp_path: Path
) -> None:
    """The real process: it has never more than looked at it, in another one."""
    fleet, model = following.fleet, GivenModel(LocalToAgent=str(find_starter()))
    small = InferenceParameters(context_size=256)
    bad = projection_that_kills(write_projector(tmp_path / "good.gguf"), tmp_path / "bad.gguf")
    await following.put(model, inference_parameters=small)
    where = ("--redis-url", fleet.url, "--redis-prefix", fleet.prefix, "--slots", "1", "--threads", "1")
    process = Command(tmp_path / "agent.log", "agent", *where)
    try:

        async def lane(version: int, *kinds: str) -> Lane | None:
            assert process.is_running, process.text
            [one] = (await Overview(fleet.store).pool("default")).lanes or [None]
            told = one is not None and one.desired_version == version and tuple(i.kind for i in one.issues) == kinds
            return one if told and one is not None and one.state == "ready" else None

        before = await wait_until(lambda: lane(1), timeout_s=60, what="it serves")
        projection = GivenModel(LocalToAgent=str(bad))
        await following.put(model, inference_parameters=small, multimodal_projection=projection)
        after = await wait_until(
            lambda: lane(2, "MultimodalProjectionCannotBeLoaded"), timeout_s=90, what="it says what is wrong"
        )
        assert (after.agent, after.pid) == (before.agent, before.pid)
        assert after.issues[0].model_path == str(bad)
        assert "goes on serving" in after.issues[0].action
    finally:
        process.kill()
        for agent in await fleet.pool.redis.zrange(fleet.pool.keys.agents(), 0, -1):
            await reap_agent(fleet.pool, agent.decode(), is_leaving=True)


async def test_what_cannot_be_loaded_costs_one_try_and_the_old_one_comes_back(following: FollowingFleet) -> None:
    loads: list[str] = []

    def make(settings: EngineSettings) -> Engine:
        loads.append(Path(settings.model_path).stem)
        if loads[-1] == "heavy":
            raise ModelError("no room for its context", kind="SlotCannotStart")
        return scripted(settings, step_s=0.0)

    await following.put(following.model("light"))
    agent = following.agent(make=make)
    await agent.serves("light", 1)
    await following.put(following.model("heavy"))
    told = await agent.is_told(state="ready", state_application_status="AttemptedAndNotAppliable")
    assert (told["model"], told["applied_version"], told["desired_version"]) == ("light", "1", "2")
    gateway = await following.fleet.gateway()
    for number in range(3):
        await tell(gateway, story(f"still {number}"))
    assert loads == ["light", "heavy", "light"]
    await following.put(following.model("other"))
    await agent.serves("other", 3)


async def test_where_one_was_lost_over_a_state_the_others_wait_and_say_so(following: FollowingFleet) -> None:
    """A file that kills whoever loads it must not take down agent after agent."""
    await following.put(following.model("m1"))
    agent = following.agent()
    await agent.serves("m1", 1)
    turns = following.fleet.store.turns("default")
    assert await turns.turn("lost", agent_id="", slots=SLOTS, lease_ms=1, version=2)
    await following.put(following.model("m2"))
    told = await agent.is_told(state="ready", state_application_status="AttemptedAndRetrying", applied_version=1)
    assert "lost while changing to version 2" in told["issues"]
    await turns.redis.hset(losses_key(following.fleet.pool.keys), "until", 0)
    told = await agent.serves("m2", 2)
    assert told["issues"] == "[]"


async def test_what_needs_no_reload_is_applied_at_once(following: FollowingFleet) -> None:
    """Sampling is the balancer's; a template is changed between two steps."""
    templates: list[str | None] = []

    class Engine_(ScriptedEngine):
        def use_template(self, source: str | None) -> None:
            if source == "unloved":
                raise ModelError("line 1: no", kind="ChatTemplateDoesNotCompile")
            templates.append(source)

    model = following.model("one")
    await following.put(model)
    agent = following.agent(make=lambda settings: Engine_(slots=settings.slots, model="one"))
    before = await agent.serves("one", 1)
    await following.put(model, inference_parameters=InferenceParameters(temperature=1.5))
    await agent.serves("one", 2)
    override = {"chat_template_override": ChatTemplate("{{ messages }}"), "use_chat_template_override": True}
    await following.put(model, **override)
    told = await agent.serves("one", 3)
    assert (told["id"], told["uses_chat_template_override"]) == (before["id"], "1")
    await following.put(model, chat_template_override=ChatTemplate("unloved"), use_chat_template_override=True)
    told = await agent.is_told(desired_version=4, state_application_status="AttemptedAndNotAppliable")
    assert (told["id"], told["applied_version"], told["uses_chat_template_override"]) == (before["id"], "3", "1")
    await following.put(model)
    assert (await agent.serves("one", 5))["uses_chat_template_override"] == "0"
    assert templates == ["{{ messages }}", None]
    await following.put(model, inference_parameters=InferenceParameters(context_size=256))
    assert (await agent.serves("one", 6))["id"] != before["id"]


@pytest.mark.parametrize("rollout", ["rolling", "all_at_once"])
async def test_while_one_loads_the_other_serves_unless_all_change_at_once(
    following: FollowingFleet, rollout: str
) -> None:
    loading, go_on = threading.Semaphore(0), threading.Event()

    def make(settings: EngineSettings) -> Engine:
        if "slow" in settings.model_path:
            loading.release()
            assert go_on.wait(30)
        return scripted(settings, step_s=0.0)

    await following.put(following.model("quick"))
    agents = [following.agent(name, make) for name in ("one", "two")]
    for agent in agents:
        await agent.serves("quick", 1)
    await following.put(following.model("slow"), rollout=rollout)
    assert await asyncio.to_thread(loading.acquire, timeout=30)
    if rollout == "rolling":
        assert await following.num_ready_slots() == SLOTS
        gateway = await following.fleet.gateway()
        for number in range(3):
            await tell(gateway, story(f"meanwhile {number}"))
        assert await following.num_ready_slots() == SLOTS, "it waits for its turn"
    else:
        assert await asyncio.to_thread(loading.acquire, timeout=30), "the other has gone, too"
        assert await following.num_ready_slots() == 0
    go_on.set()
    for agent in agents:
        await agent.serves("slow", 2)


async def test_when_no_model_is_wanted_any_more_none_is_served(following: FollowingFleet) -> None:
    await following.put(following.model("one"))
    agent = following.agent()
    await agent.serves("one", 1)
    await following.put(None)
    told = await agent.is_told(state="waiting", state_application_status="Applied")
    assert (told["slots"], told["model_path"]) == ("0", "")
    await following.put(following.model("two"))
    await agent.serves("two", 3)


async def test_one_that_joins_takes_the_newest(following: FollowingFleet) -> None:
    await following.put(following.model("one"))
    await following.put(following.model("two"))
    agent = following.agent()
    await agent.serves("two", 2)
    assert len(agent.engines) == 1
