"""What a tenant has asked stays in the KV cache for itself alone, unless the operator lets tenants share."""

from __future__ import annotations

import pytest
from fleet_harness import Fleet

from paddler.engine import Engine
from paddler.engine_settings import EngineSettings
from paddler.jobs.gateway import Gateway, Submit
from paddler.testing.scripted import ScriptedEngine
from paddler.up.starter import find_starter
from paddler.wire.agent import Generate, Message, Sampling
from paddler.wire.balancer import Finished
from workers.agent.loading import load

pytestmark = pytest.mark.anyio

QUESTION = Generate(
    messages=(
        Message("system", "You know every animal of the forest and speak of them. " * 8),
        Message("user", "Who?"),
    ),
    max_tokens=2,
    sampling=Sampling(temperature=0),
)


def engine_of(kind: str) -> Engine:
    if kind == "scripted":
        return ScriptedEngine(slots=2)
    return load(EngineSettings(model_path=str(find_starter()), slots=2, context_size=1024, threads=1))


async def cached_share(gateway: Gateway, tenant: str) -> float:
    """How much of the question's prompt came from the cache."""
    async with await gateway.submit("default", QUESTION, Submit(tenant=tenant)) as reply:
        [end] = [frame async for frame in reply if isinstance(frame, Finished)]
    return end.usage.cached_tokens / end.usage.prompt_tokens


@pytest.mark.parametrize("kind", ["scripted", "llama"])
async def test_tenants_see_only_their_own_cache_hits(fleet: Fleet, kind: str) -> None:
    await fleet.agent(engine=engine_of(kind), lease_ms=5000)
    gateway = await fleet.gateway()
    for tenant in ("ann", "bob", "eve"):
        assert await cached_share(gateway, tenant) == 0, f"{tenant} learned that another has asked this"
        assert await cached_share(gateway, tenant) > 0.9, f"{tenant}'s own prompt is cached"


@pytest.mark.parametrize("kind", ["scripted", "llama"])
async def test_an_operator_may_let_them_share(fleet: Fleet, kind: str) -> None:
    await fleet.agent(engine=engine_of(kind), lease_ms=5000)
    gateway = await fleet.gateway(shares_prefix_cache=True)
    assert await cached_share(gateway, "ann") == 0
    assert await cached_share(gateway, "bob") > 0.9
