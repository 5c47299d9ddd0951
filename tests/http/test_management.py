"""The management service with the official client: real agents and a real queue, and what is not there yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from http_harness import HandAgent, HttpBalancer, NewAgent, chat, http_balancer
from native_harness import following, management
from paddler_client import ClientManagement
from paddler_client.agent_controller_pool_snapshot import AgentControllerPoolSnapshot
from paddler_client.agent_state_application_status import AgentStateApplicationStatus as Status
from paddler_client.error import HttpError

from api.management.issue_objects import issue_object
from api.management.snapshots import agent_object, agents_object
from paddler.issues import UPSTREAM_KINDS, all_kinds, encode_issues, issue_of
from paddler.jobs.lanes import Lane
from paddler.jobs.overview import PoolQueue
from paddler.store.client import Store
from paddler.tier_stats import TierStats

pytestmark = pytest.mark.anyio

OURS = ("LoraAdapterCannotBeLoaded", "SettingsInvalid", "VersionIncompatible", *UPSTREAM_KINDS)
"""Kinds that Paddler 4.1 does not have."""


@pytest.fixture
async def client(balancer: HttpBalancer) -> AsyncIterator[ClientManagement]:
    async with management(balancer.url("management")) as client:
        yield client


async def test_health_and_metrics(client: ClientManagement, balancer: HttpBalancer, new_agent: NewAgent) -> None:
    assert await client.get_health() == "OK"
    agent = await new_agent(slots=3)
    async with balancer.http() as http, balancer.http("management") as operator:
        asking = asyncio.create_task(http.post("/v1/chat/completions", json=chat("hi")))
        request = await agent.take()
        metrics = (await client.get_metrics()).splitlines()
        assert {"paddler_slots_processing 1.0", "paddler_slots_total 3.0", "paddler_requests_buffered 0.0"} <= {
            *metrics
        }
        health = await operator.get("/health", headers={"accept": "application/json"})
        assert health.json() == {
            "status": "ok",
            "slots_idle": 2,
            "slots_processing": 1,
            "requests_buffered": 0,
            "agents": 1,
        }
        assert (await operator.head("/health")).status_code == 200
        await request.finish()
        await asking


async def test_health_is_of_all_pools(balancer: HttpBalancer, store: Store, new_agent: NewAgent) -> None:
    await store.add_pool("other")
    other = HandAgent(store, pool="other", slots=2)
    await other.register()
    headers = {"accept": "application/json"}
    async with balancer.http() as http, balancer.http("management") as operator:
        alone = (await operator.get("/health", headers=headers)).json()
        assert (alone["status"], alone["slots_idle"], alone["agents"]) == ("ok", 2, 1)
        mine = await new_agent(slots=1)
        asking = asyncio.create_task(http.post("/v1/chat/completions", json=chat("hi")))
        request = await mine.take()
        health = (await operator.get("/health", headers=headers)).json()
        assert health == {
            "status": "ok",
            "slots_idle": 2,
            "slots_processing": 1,
            "requests_buffered": 0,
            "agents": 2,
        }
        await request.finish()
        await asking
    await other.leave()


async def test_health_without_a_slot(balancer: HttpBalancer) -> None:
    async with balancer.http("management") as operator:
        health = await operator.get("/health", headers={"accept": "application/json"})
    assert health.json()["status"] == "no slot available"


async def test_agents(client: ClientManagement, store: Store, new_agent: NewAgent) -> None:
    assert (await client.get_agents()).agents == []
    ready = await new_agent(slots=3)
    failed = await new_agent(slots=0, state="failed")
    issue = issue_of("ModelFileDoesNotExist", "no such file", "/m.gguf", waits=True)
    told = {"issues": encode_issues((issue,)), "desired_slots": 4, "model_path": "/m.gguf", "name": "zoe"}
    await failed.pool.renew(failed.agent_id, lease_ms=60_000, snapshot=told)
    one, other = (await client.get_agents()).agents
    assert (one.id, one.name, one.model_path, one.issues) == (ready.agent_id, "hand", None, [])
    assert (one.slots_total, one.desired_slots_total, one.slots_processing) == (3, 3, 0)
    assert one.state_application_status is Status.APPLIED
    assert (other.slots_total, other.desired_slots_total, other.model_path) == (0, 4, "/m.gguf")
    assert other.state_application_status is Status.ATTEMPTED_AND_RETRYING
    assert other.issues[0].variant == "ModelFileDoesNotExist"
    assert other.issues[0].params == {"model_path": "/m.gguf", "error": "no such file"}


def test_an_agent_tells_of_its_tiers() -> None:
    told = TierStats("disk", num_hits=3, saved_s=1.2345, num_bytes=700, bytes_per_s=412_345_678.0)
    basic: dict[str, Any] = {"agent": "a", "name": "", "model": "", "state": "ready", "slots": 1, "requests": 0}
    lane = Lane(**basic, prefill=None, rate=None, lease_left_ms=1, tiers=(told, TierStats("peer")))
    disk, peer = agent_object(lane)["tiers"]
    assert (disk["tier"], disk["hits"], disk["saved_ms"], disk["bytes"]) == ("disk", 3, 1234, 700)
    assert (disk["bytes_per_second"], peer["bytes_per_second"]) == (412_000_000, None)


def test_issues_have_kinds_that_clients_know() -> None:
    lane: dict[str, Any] = {"agent": "a", "name": "", "model": "", "state": "failed", "slots": 0, "requests": 0}
    lane |= {"prefill": None, "rate": None, "lease_left_ms": 1}
    for kind in all_kinds():
        issue = issue_of(kind, "why", "/m.gguf", waits=True)
        counts: dict[str, Any] = {"waiting": {}, "oldest_wait_ms": None, "demand": 0, "demand_batch": 0}
        counts |= {"backlog_tokens": 0, "dead_letters": 0, "counters": {}}
        pool = PoolQueue(pool="default", lanes=[Lane(**lane, issues=(issue,))], **counts)
        [agent] = AgentControllerPoolSnapshot.model_validate_json(agents_object(pool)).agents
        [told] = agent.issues
        assert told.variant == ("SlotCannotStart" if kind in OURS else kind)
        assert told.params["error"] == "why"
        path = {"model_path": "/m.gguf"}
        if kind in ("ChatTemplateDoesNotCompile", "HuggingFaceCannotAcquireLock"):
            assert told.params["model_path"] == path
        elif told.variant != "SlotCannotStart":
            assert told.params == {**path, "error": "why"}


def test_issues_with_more_to_say() -> None:
    lock = issue_of("HuggingFaceCannotAcquireLock", "why", "m", waits=True, lock_path="/l")
    assert issue_object(lock) == {
        "HuggingFaceCannotAcquireLock": {"lock_path": "/l", "model_path": {"model_path": "m"}, "error": "why"}
    }
    template = issue_of("ChatTemplateDoesNotCompile", "why", "m", waits=True, template_content="{{")
    assert issue_object(template) == {
        "ChatTemplateDoesNotCompile": {"error": "why", "model_path": {"model_path": "m"}, "template_content": "{{"}
    }


async def test_agents_as_they_change(client: ClientManagement, balancer: HttpBalancer, new_agent: NewAgent) -> None:
    async with following(client.agents_stream()) as stream:
        assert (await anext(stream)).agents == []
        agent = await new_agent(slots=2)
        assert [one.slots_total for one in (await anext(stream)).agents] == [2]
        async with balancer.http() as http:
            asking = asyncio.create_task(http.post("/v1/chat/completions", json=chat("hi")))
            request = await agent.take()
            assert [one.slots_processing for one in (await anext(stream)).agents] == [1]
            await request.finish()
            await asking
        assert [one.slots_processing for one in (await anext(stream)).agents] == [0]


async def test_buffered_requests(client: ClientManagement, balancer: HttpBalancer) -> None:
    assert (await client.get_buffered_requests()).buffered_requests_current == 0
    async with following(client.buffered_requests_stream()) as stream:
        assert (await anext(stream)).buffered_requests_current == 0
        async with balancer.http() as http:
            asking = [asyncio.create_task(http.post("/v1/chat/completions", json=chat("hi"))) for _ in range(3)]
            while (snapshot := await anext(stream)).buffered_requests_current < 3:
                pass
            assert snapshot.buffered_requests_current == 3
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            while (await anext(stream)).buffered_requests_current:
                pass


async def test_streams_end_with_the_balancer(client: ClientManagement, balancer: HttpBalancer) -> None:
    async with following(client.agents_stream()) as stream:
        await anext(stream)
        balancer.gateway.stop_accepting()
        async with asyncio.timeout(3):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_redis_is_away(prefix: str) -> None:
    async with (
        http_balancer("redis://127.0.0.1:1", prefix) as balancer,
        balancer.http("management") as operator,
        management(balancer.url("management")) as client,
    ):
        assert await client.get_health() == "OK"
        health = await operator.get("/health", headers={"accept": "application/json"})
        assert (health.status_code, health.json()["status"]) == (503, "error")
        with pytest.raises(HttpError, match="Redis cannot be reached") as refused:
            await client.get_agents()
        assert refused.value.status_code == 503
