"""Pinned prefixes where agents have a tier behind host memory: computed once, and there again after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet_harness import Fleet, RunningAgent
from short_model import shorten

from paddler.clock import SystemClock
from paddler.engine import Pinned
from paddler.engine_settings import EngineSettings
from paddler.prefixes.store import Prefixes
from paddler.store.client import connect
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter
from paddler.wire.agent import Generate, Message
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.scheduler import Scheduler
from workers.agent.tiers.disk import DiskTier
from workers.agent.tiers.keeper import StateKeeper
from workers.agent.tiers.packing import Packer

pytestmark = pytest.mark.anyio

RULES = Generate(messages=(Message("system", "You know every animal of the forest and speak of them. " * 40),))
SECRET = b"s" * 32
MakeAgent = Callable[..., RunningAgent]


class SharedFolder(DiskTier):
    """A directory that agents of several machines have, as far as they know."""

    name = "shared"


@pytest.fixture
def prefixes(fleet: Fleet) -> Prefixes:
    return Prefixes(fleet.store)


@pytest.fixture
def make_agent(
    fleet: Fleet, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> MakeAgent:
    """Not started. Computing is believed to be so slow that a busy disk is waited for."""
    monkeypatch.setattr(Scheduler, "prefill_token_s", property(lambda _scheduler: 0.05))
    monkeypatch.setattr("workers.agent.reading_ahead.MAX_S", 30.0)
    model = shorten(find_starter(), tmp_path_factory.mktemp("pinned") / "short.gguf", (0, 29))

    def keeper(_model: Model, _settings: EngineSettings, _size: int) -> StateKeeper:
        clock = SystemClock()
        tier = SharedFolder(tmp_path / "states", 1 << 30, clock)
        return StateKeeper([tier], Packer(SECRET), SECRET, lambda: "f", clock)

    def make(n_batch: int = 512) -> RunningAgent:
        settings = EngineSettings(
            model_path=str(model), slots=2, context_size=2048, n_batch=n_batch, threads=1, kv_ram=1 << 28
        )
        engine = LlamaEngine(Model(model), settings, SystemClock(), keeper)
        agent = RunningAgent(connect(fleet.url, fleet.prefix), engine, 5000)
        fleet.agents.append(agent)
        return agent

    return make


def held(agent: RunningAgent) -> Pinned | None:
    """What is resident there, if all is that was asked for."""
    found = agent.loop.engine.engine.pinned or ()
    return found[0] if len(found) == 1 and found[0].num_resident > 400 else None


def num_restored(agent: RunningAgent) -> int:
    saved = agent.loop.engine.engine.saved
    assert saved is not None
    return saved.num_restored


async def test_an_agent_that_starts_has_it_before_it_takes_requests(
    fleet: Fleet, prefixes: Prefixes, make_agent: MakeAgent
) -> None:
    await prefixes.pin("default", "rules", RULES, tenant=None, author="a test")
    first = make_agent()
    await first.start()
    await wait_until(lambda: held(first), what="it is resident")
    assert num_restored(first) == 0
    assert first.loop.engine.engine.flush_states(30.0)
    await first.leave()
    again = make_agent()
    again.loop.engine.start_thread()
    await again.loop.pinning.preload(30.0)
    told = held(again)
    assert told is not None
    assert num_restored(again) == told.num_resident - 1, "all but the token whose logits are wanted"
    assert await fleet.pool.redis.zcard(fleet.pool.keys.agents()) == 0, "and it is in no pool yet"
    await again.kill()


async def test_what_the_start_had_no_time_for_is_no_loss(prefixes: Prefixes, make_agent: MakeAgent) -> None:
    """It goes on where it was, at once, and nothing of the first try stays pinned."""
    await prefixes.pin("default", "rules", RULES, tenant=None, author="a test")
    agent = make_agent(n_batch=64)
    engine, pinning = agent.loop.engine, agent.loop.pinning
    llama = engine.engine
    assert isinstance(llama, LlamaEngine)
    preload = asyncio.create_task(pinning.preload(30.0))
    while not any(one.work.num_cached for one in llama._sequences.values()):
        await asyncio.to_thread(engine.run_once)
    preload.cancel()
    await asyncio.gather(preload, return_exceptions=True)
    [kept] = pinning._kept.values()
    assert pinning._next() is None, "not while its job is still there"
    while engine._giving_way:
        await asyncio.to_thread(engine.run_once)
    await wait_until(lambda: not pinning._ends, what="its end was heard")
    assert (kept.num_losses, pinning._next()) == (0, kept)
    [rest] = list(llama.pinned or ())
    assert 0 < rest.num_resident < 400
    engine.start_thread()
    await pinning.preload(30.0)
    assert held(agent) is not None
    await agent.kill()


async def test_one_agent_computes_it_for_all(prefixes: Prefixes, make_agent: MakeAgent) -> None:
    one, other = make_agent(), make_agent()
    await one.start()
    await other.start()
    await prefixes.pin("default", "rules", RULES, tenant=None, author="a test")
    await wait_until(lambda: held(one) and held(other), what="both have it")
    told = held(one)
    assert told is not None
    assert sorted((num_restored(one), num_restored(other))) == [0, told.num_resident - 1]
