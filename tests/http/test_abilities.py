"""What no agent of a pool can do is refused at once, and `GET /v1/models` shows what they can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from embedding_calls import EMBEDDINGS, answer, embed
from fleet_harness import Fleet
from http_harness import HttpBalancer, NewAgent, chat
from starter_engine import starter_engine

from paddler.jobs import fleet_view, models
from paddler.store.client import Store
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()


@pytest.fixture(autouse=True)
def fresh_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Balancers see a new agent at once."""
    monkeypatch.setattr(fleet_view, "REFRESH_S", 0)


@pytest.mark.parametrize(("abilities", "path", "body"), [("embed", CHAT, chat()), ("generate", EMBEDDINGS, embed())])
async def test_what_no_agent_can_do_is_not_queued(
    balancer: HttpBalancer, new_agent: NewAgent, abilities: str, path: str, body: dict[str, Any]
) -> None:
    await new_agent(abilities=abilities)
    async with balancer.http() as http:
        told = await http.post(path, json=body)
    assert (told.status_code, told.json()["error"]["param"]) == (400, "model")
    assert f"only {abilities}" in told.json()["error"]["message"]
    assert await balancer.is_idle()


async def test_one_agent_that_can_or_does_not_say_is_enough(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    await new_agent(abilities="generate")
    agent = await new_agent(abilities="generate embed", slots=2)
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed(), headers={"X-Request-Class": "interactive"}))
        await answer(await agent.take())
        assert (await asking).status_code == 200


async def test_without_an_agent_a_request_waits(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed()))
        await wait_until(balancer.num_waiting)
        await answer(await (await new_agent(abilities="embed")).take())
        assert (await asking).status_code == 200


async def test_models_show_it(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    async with balancer.http() as http:
        assert "abilities" not in (await http.get("/v1/models/default")).json()
        await new_agent(abilities="rerank generate")
        shown = (await http.get("/v1/models")).json()["data"]
        assert [one["abilities"] for one in shown] == [["generate", "rerank"]] * len(shown)
        await new_agent()
        assert "abilities" not in (await http.get("/v1/models/default")).json(), "an older agent may do anything"


async def test_the_official_client_sees_what_the_file_says(
    balancer: HttpBalancer, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As llama.cpp's server tells it, under its names."""
    monkeypatch.setattr(models, "TTL_S", 0)
    engine = starter_engine(context_size=512)
    async with balancer.openai() as client:
        assert (await client.models.retrieve("default")).model_extra == {}
        await fleet.agent(engine=engine)
        model = await client.models.retrieve(engine.info.model)
        assert (model.id, model.object, model.owned_by) == (engine.info.model, "model", "paddler")
        assert model.created > 1_600_000_000
        assert model.model_extra is not None
        assert model.model_extra["meta"] | {"size": 0} == {
            "vocab_type": 2, "n_vocab": 49_152, "n_ctx": 512, "n_ctx_train": 8192, "n_embd": 576,
            "n_params": 134_515_008, "size": 0,
        }  # fmt: skip
        assert 80_000_000 < model.model_extra["meta"]["size"] < 110_000_000
        listed = {one.id: one.model_extra async for one in client.models.list()}
        assert listed["default"] == listed[engine.info.model] == model.model_extra


async def test_facts_of_another_version_are_left_out(balancer: HttpBalancer, fleet: Fleet) -> None:
    snapshot = {"slots": 1, "state": "ready", "abilities": "generate", "facts": '{"n_vocab":"many"}'}
    await fleet.pool.register("agent.other", lease_ms=60_000, model="m", seen_s=7, snapshot=snapshot)
    async with balancer.http() as http:
        assert "meta" not in (await http.get("/v1/models/m")).json()
    await fleet.pool.reap("agent.other", max_deaths=3, dead_frame=b"", cancel_frame=b"", is_leaving=True)


@pytest.mark.parametrize("state", ["loading", "failed"])
async def test_one_that_cannot_serve_yet_says_nothing_of_the_pool(
    balancer: HttpBalancer, new_agent: NewAgent, state: str
) -> None:
    await new_agent(abilities="embed")
    await new_agent(state=state, slots=0)
    async with balancer.http() as http:
        assert (await http.post(CHAT, json=chat())).status_code == 400
        assert (await http.get("/v1/models/default")).json()["abilities"] == ["embed"]
