"""Agents keep what operators have pinned, before anybody has asked for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fleet_harness import Fleet, RunningAgent
from short_model import shorten

from paddler.engine_settings import EngineSettings
from paddler.jobs.gateway import Gateway, Submit
from paddler.prefixes.records import Held, decode_held
from paddler.prefixes.store import Prefixes, Shown
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter
from paddler.wire.agent import Generate, Message, Sampling
from paddler.wire.balancer import Finished, Usage
from workers.agent.loading import load

pytestmark = pytest.mark.anyio

RULES = Message("system", "You know every animal of the forest and speak of them. " * 12)
OTHER = Message("system", "You sell tickets for trains and for nothing else at all. " * 12)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole = find_starter()
    return shorten(whole, tmp_path_factory.mktemp("pinned") / whole.name, (0, 29))


@pytest.fixture
def prefixes(fleet: Fleet) -> Prefixes:
    return Prefixes(fleet.store)


async def start(fleet: Fleet, model: Path, **settings: int) -> RunningAgent:
    given: dict[str, Any] = {"slots": 2, "context_size": 1024, "threads": 1} | settings
    return await fleet.agent(engine=load(EngineSettings(model_path=str(model), **given)), lease_ms=5000)


async def pin(prefixes: Prefixes, name: str, *messages: Message, tenant: str | None = None) -> None:
    await prefixes.pin("default", name, Generate(messages=messages), tenant=tenant, author="a test")


async def ask(gateway: Gateway, tenant: str, *messages: Message) -> Usage:
    request = Generate(messages=messages, max_tokens=2, sampling=Sampling(temperature=0))
    async with await gateway.submit("default", request, Submit(tenant=tenant)) as reply:
        [end] = [frame async for frame in reply if isinstance(frame, Finished)]
    return end.usage


async def standing(fleet: Fleet, agent: RunningAgent) -> list[Held]:
    """As the agent tells it."""
    return decode_held(await fleet.pool.redis.hget(fleet.pool.keys.agent(agent.loop.agent_id), "pinned"))


async def resident(fleet: Fleet, agent: RunningAgent, name: str) -> Held:
    async def found() -> Held | None:
        held = await standing(fleet, agent)
        return next((one for one in held if one.name == name and one.state == "resident"), None)

    await wait_until(found, what=f"{name} is resident")
    told = await found()
    assert told is not None
    return told


async def shown(prefixes: Prefixes, name: str) -> Shown:
    [found] = await prefixes.shown("default", name)
    return found


async def test_the_first_request_finds_it(fleet: Fleet, prefixes: Prefixes, small_model: Path) -> None:
    await pin(prefixes, "rules", RULES, tenant="acme")
    agent = await start(fleet, small_model)
    held = await resident(fleet, agent, "rules")
    assert held.num_tokens > 100
    assert held.num_bytes > 100 * held.num_tokens
    gateway = await fleet.gateway()
    for text in ("Who?", "\n\nAnd who not?"):
        usage = await ask(gateway, "acme", RULES, Message("user", text))
        assert held.num_tokens <= usage.cached_tokens < usage.prompt_tokens
    assert (await ask(gateway, "bolt", RULES, Message("user", "Who?"))).cached_tokens == 0, "it is not theirs"
    assert (await ask(gateway, "acme", OTHER, Message("user", "Who?"))).cached_tokens < 10

    async def has_counted() -> bool:
        return (await shown(prefixes, "rules")).hits == 2

    await wait_until(has_counted, what="two hits")
    [told] = (await shown(prefixes, "rules")).agents
    assert (told.agent, told.held.state) == (agent.loop.agent_id, "resident")


async def test_one_for_everybody_is_every_tenants(fleet: Fleet, prefixes: Prefixes, small_model: Path) -> None:
    await pin(prefixes, "rules", RULES)
    agent = await start(fleet, small_model)
    held = await resident(fleet, agent, "rules")
    gateway = await fleet.gateway()
    for tenant in ("acme", "bolt"):
        usage = await ask(gateway, tenant, RULES, Message("user", "Who?"))
        assert held.num_tokens <= usage.cached_tokens < usage.prompt_tokens
    usage = await ask(gateway, "core", RULES, Message("user", "Who?"))
    assert usage.cached_tokens == held.num_tokens, "what others have asked behind it is theirs"

    async def has_counted() -> bool:
        return (await shown(prefixes, "rules")).hits == 3

    await wait_until(has_counted, what="three hits")


async def test_host_memory_has_it_while_others_take_its_place(
    fleet: Fleet, prefixes: Prefixes, small_model: Path
) -> None:
    await pin(prefixes, "rules", RULES)
    agent = await start(fleet, small_model, slots=1, kv_ram=1 << 30)
    held = await resident(fleet, agent, "rules")
    gateway = await fleet.gateway()
    large = Message("user", "a b c d e f g h " * 110)
    assert (await ask(gateway, "bolt", large)).prompt_tokens > 1024 - held.num_tokens
    usage = await ask(gateway, "acme", RULES, Message("user", "Who?"))
    # One less was seen once, on a busy machine.
    assert usage.cached_tokens >= held.num_tokens - 1
    await resident(fleet, agent, "rules")


async def test_a_running_agent_hears_of_changes(fleet: Fleet, prefixes: Prefixes, small_model: Path) -> None:
    agent = await start(fleet, small_model)
    await pin(prefixes, "rules", RULES, tenant="acme")
    first = await resident(fleet, agent, "rules")
    await pin(prefixes, "rules", OTHER, tenant="acme")

    async def is_another() -> bool:
        return [one.version for one in await standing(fleet, agent) if one.state == "resident"] == [first.version + 1]

    await wait_until(is_another, what="the new version is resident")
    gateway = await fleet.gateway()
    second = await resident(fleet, agent, "rules")
    assert (await ask(gateway, "acme", OTHER, Message("user", "Who?"))).cached_tokens >= second.num_tokens
    assert (await ask(gateway, "acme", RULES, Message("user", "Who?"))).cached_tokens < 10, "the old one is gone"
    await prefixes.unpin("default", "rules")

    async def is_gone() -> bool:
        return await standing(fleet, agent) == []

    await wait_until(is_gone, what="nothing is pinned")
    await wait_until(lambda: agent.loop.engine.engine.pinned == (), what="it is free to go")


async def test_every_agent_has_it_and_one_that_starts_again(
    fleet: Fleet, prefixes: Prefixes, small_model: Path
) -> None:
    await pin(prefixes, "rules", RULES)
    first, second = await start(fleet, small_model), await start(fleet, small_model)
    for agent in (first, second):
        await resident(fleet, agent, "rules")
    assert len((await shown(prefixes, "rules")).agents) == 2
    await first.leave()
    again = await start(fleet, small_model)
    await resident(fleet, again, "rules")


async def test_requests_come_before_it(fleet: Fleet, prefixes: Prefixes, small_model: Path) -> None:
    """With the only slot of the agent busy it waits, and gives way to what comes."""
    agent = await start(fleet, small_model, slots=1, context_size=2048)
    gateway = await fleet.gateway()
    request = Generate(prompt="The forest", max_tokens=300, sampling=Sampling(temperature=0, ignore_eos=True))
    async with await gateway.submit("default", request, Submit(tenant="acme")) as reply:
        await pin(prefixes, "rules", RULES)
        frames = [frame async for frame in reply]
    assert isinstance(frames[-1], Finished)
    assert frames[-1].usage.completion_tokens == 300
    await resident(fleet, agent, "rules")


async def test_the_version_before_stays_until_the_new_one_is_there(
    fleet: Fleet, prefixes: Prefixes, small_model: Path
) -> None:
    await pin(prefixes, "rules", RULES)
    agent = await start(fleet, small_model, slots=1, context_size=4096)
    first = await resident(fleet, agent, "rules")
    gateway = await fleet.gateway()
    request = Generate(prompt="The forest", max_tokens=3500, sampling=Sampling(temperature=0, ignore_eos=True))
    async with await gateway.submit("default", request, Submit(tenant="acme")) as reply:
        await anext(aiter(reply))
        await pin(prefixes, "rules", OTHER)

        async def waits() -> bool:
            return [(one.version, one.state) for one in await standing(fleet, agent)] == [(2, "waiting")]

        await wait_until(waits, what="the new version waits for the slot")
        [there] = list(agent.loop.engine.engine.pinned or ())
        assert there.num_resident == first.num_tokens
    assert (await resident(fleet, agent, "rules")).version == 2
    await wait_until(lambda: len(agent.loop.engine.engine.pinned or ()) == 1, what="the old one is free to go")
    await pin(prefixes, "rules", OTHER, tenant="bolt")
    await wait_until(lambda: not any(one.prefix.tenant is None for one in agent.loop.pinning._kept.values()))
    assert (await ask(gateway, "acme", OTHER, Message("user", "Who?"))).cached_tokens < 10, "it is another tenant's"


async def test_what_is_too_long_is_told(fleet: Fleet, prefixes: Prefixes, small_model: Path) -> None:
    await pin(prefixes, "book", Message("system", "A tree is a tree. " * 200))
    agent = await start(fleet, small_model, context_size=512)

    async def refused() -> bool:
        return [one.state for one in await standing(fleet, agent)] == ["refused"]

    await wait_until(refused)
    [held] = await standing(fleet, agent)
    assert "256 of this agent's context" in held.detail


async def test_an_engine_that_keeps_nothing_says_so(fleet: Fleet, prefixes: Prefixes) -> None:
    await pin(prefixes, "rules", RULES)
    agent = await fleet.agent(engine=ScriptedEngine())

    async def refused() -> bool:
        return [one.state for one in await standing(fleet, agent)] == ["refused"]

    await wait_until(refused)
