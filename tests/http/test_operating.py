"""The operators' routes beyond Paddler 4's, with agents moved by hand: each answer is as the document promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, NewAgent, chat, http_balancer
from openapi_checks import Document, document_of

from api.management.snapshots import agents_object
from api.management.view import PoolWatch
from api.ready import NO_SLOT, SLOTS_FRESH_S, STOPPING, Readiness
from paddler.clock import SystemClock
from paddler.jobs.endings import CANCELLED_FRAME, DEAD_FRAME
from paddler.jobs.overview import Overview, PoolQueue
from paddler.store.client import Store
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
UNKNOWN = "default." + "x" * 22


class Operator:
    """Asks the management service, and holds each answer against its document."""

    def __init__(self, http: httpx.AsyncClient, document: Document) -> None:
        self.http = http
        self._document = document

    async def ask(self, method: str, path: str, *, expect: int = 200, query: Any = None, **places: Any) -> Any:
        answer = await self.http.request(method, path.format(**places), params=query)
        assert answer.status_code == expect, answer.text
        self._document.check(path, method.lower(), expect, answer.headers["content-type"], answer.text)
        return answer.json()

    async def get(self, path: str, **how: Any) -> Any:
        return await self.ask("GET", path, **how)


@asynccontextmanager
async def operating(balancer: HttpBalancer) -> AsyncGenerator[Operator]:
    async with balancer.http("management") as http:
        yield Operator(http, await document_of(balancer, "management"))


@pytest.fixture
async def operator(balancer: HttpBalancer) -> AsyncIterator[Operator]:
    async with operating(balancer) as operator:
        yield operator


@asynccontextmanager
async def asking(
    balancer: HttpBalancer, number: int = 1, *, are_last: bool = True
) -> AsyncGenerator[list[asyncio.Task[httpx.Response]]]:
    """So many chats; they are given up at the end."""
    async with balancer.http() as http:
        tasks = [asyncio.create_task(http.post(CHAT, json=chat("hi"))) for _ in range(number)]
        yield tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if are_last:
        await wait_until(balancer.is_idle, what="nobody waits any more")


async def waiting(balancer: HttpBalancer, number: int) -> None:
    async def is_so() -> bool:
        return await balancer.num_waiting() == number

    await wait_until(is_so, what=f"{number} wait")


async def test_drain_undrain_remove(balancer: HttpBalancer, operator: Operator, new_agent: NewAgent) -> None:
    agent = await new_agent(slots=2)
    where: dict[str, Any] = {"agent_id": agent.agent_id}

    async def state() -> tuple[str, bool]:
        (one,) = (await operator.get("/api/v1/agents"))["agents"]
        return one["state"], one["is_draining"]

    async with asking(balancer) as tasks:
        request = await agent.take()
        told = await operator.ask("POST", "/api/v1/agent/{agent_id}/drain", **where)
        assert told == {"id": agent.agent_id, "pool": "default", "order": "drain", "requests_running": 1}
        assert await state() == ("draining", True)
        async with asking(balancer, are_last=False) as later:
            await waiting(balancer, 1)
            health = await operator.http.get("/health", headers={"accept": "application/json"})
            assert (health.json()["status"], health.json()["slots_idle"]) == ("no slot available", 0)
            await request.finish()
            assert (await tasks[0]).status_code == 200
            assert await state() == ("drained", True)
            await operator.ask("POST", "/api/v1/agent/{agent_id}/undrain", **where)
            await (await agent.take()).finish()
            assert (await later[0]).status_code == 200
    assert await state() == ("ready", False)
    await operator.ask("DELETE", "/api/v1/agent/{agent_id}", **where)
    assert await state() == ("leaving", True)
    refused = await operator.ask("POST", "/api/v1/agent/{agent_id}/undrain", expect=409, **where)
    assert "is leaving" in refused["error"]["message"]
    await operator.ask("DELETE", "/api/v1/agent/{agent_id}", query={"force": "true"}, **where)
    assert (await operator.get("/api/v1/agents"))["agents"] == []


async def test_an_agent_of_another_pool_is_found_by_its_id(operator: Operator, store: Store) -> None:
    await store.add_pool("chat")
    agent = HandAgent(store, pool="chat")
    await agent.register()
    told = await operator.ask("POST", "/api/v1/agent/{agent_id}/drain", agent_id=agent.agent_id)
    assert told["pool"] == "chat"
    (one,) = (await operator.get("/api/v1/pools/{name}/agents", name="chat"))["agents"]
    assert (one["id"], one["state"]) == (agent.agent_id, "drained")
    assert (await operator.get("/api/v1/agents"))["agents"] == []
    await agent.leave()


async def test_what_is_not_there(operator: Operator) -> None:
    for method, end in (("POST", "/drain"), ("POST", "/undrain"), ("DELETE", "")):
        path = f"/api/v1/agent/{{agent_id}}{end}"
        refused = await operator.ask(method, path, expect=404, agent_id="agent-none")
        assert refused["error"]["code"] == "agent_not_found"
    for end in ("", "/agents", "/buffered_requests", "/requests", "/dead_letters", "/autoscale", "/agents/stream"):
        refused = await operator.get(f"/api/v1/pools/{{name}}{end}", expect=404, name="nobody")
        assert refused["error"]["message"] == "There is no pool 'nobody'; there is: default."
    for method, path in (
        ("GET", "/api/v1/requests/{request_id}"),
        ("DELETE", "/api/v1/requests/{request_id}"),
        ("POST", "/api/v1/requests/{request_id}/cancel"),
        ("POST", "/api/v1/dead_letters/{request_id}/requeue"),
        ("DELETE", "/api/v1/dead_letters/{request_id}"),
    ):
        assert (await operator.ask(method, path, expect=404, request_id=UNKNOWN))["error"]["param"] == "id"
        assert (await operator.ask(method, path, expect=400, request_id="x"))["error"]["param"] == "id"


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("/api/v1/requests", {"state": "done"}, "state"),
        ("/api/v1/requests", {"class": "urgent"}, "class"),
        ("/api/v1/requests", {"limit": "0"}, "limit"),
        ("/api/v1/requests", {"limit": "501"}, "limit"),
        ("/api/v1/requests", {"cursor": "x"}, "cursor"),
        ("/api/v1/requests", {"nonsense": "1"}, "nonsense"),
        ("/api/v1/dead_letters", {"cursor": "x"}, "cursor"),
        ("/api/v1/autoscale", {"target_demand_per_slot": "0"}, "target_demand_per_slot"),
        ("/api/v1/autoscale", {"target_demand_per_slot": "nan"}, "target_demand_per_slot"),
        ("/api/v1/autoscale", {"include_batch": "1"}, "include_batch"),
        ("/ready", {"slots": "2"}, "slots"),
    ],
)
async def test_a_query_is_checked(operator: Operator, path: str, query: dict[str, str], param: str) -> None:
    refused = await operator.get(path, expect=400, query=query)
    assert refused["error"]["param"] == param


async def test_requests_and_their_timelines(balancer: HttpBalancer, operator: Operator, new_agent: NewAgent) -> None:
    agent = await new_agent()
    async with asking(balancer) as tasks:
        request = await agent.take()
        await request.say("hello")
        async with asking(balancer, are_last=False):
            await waiting(balancer, 1)
            running, queued = (await operator.get("/api/v1/requests"))["requests"]
            assert (running["id"], running["state"], running["position"]) == (request.request_id, "running", None)
            assert (running["agent"], running["agent_name"], running["model"]) == (agent.agent_id, "hand", "default")
            assert (queued["state"], queued["position"], queued["agent"], queued["class"]) == (
                "waiting",
                0,
                None,
                "normal",
            )
            only = await operator.get("/api/v1/pools/{name}/requests", name="default", query={"state": "waiting"})
            assert [one["id"] for one in only["requests"]] == [queued["id"]]
            first = await operator.get("/api/v1/requests", query={"limit": "1"})
            rest = await operator.get("/api/v1/requests", query={"cursor": first["next_cursor"]})
            assert [one["id"] for one in rest["requests"]] == [queued["id"]]
            assert rest["next_cursor"] is None

            told = await operator.get("/api/v1/requests/{request_id}", request_id=request.request_id)
            assert [one["event"] for one in told["events"]] == ["accepted", "delivered", "opened", "first_token"]
            assert (told["tokens"], told["agent"], told["finish_reason"]) == (1, agent.agent_id, None)
            told = await operator.get("/api/v1/requests/{request_id}", request_id=queued["id"])
            assert [one["event"] for one in told["events"]] == ["accepted", "buffered"]
            assert told["position"] == 0

            where: dict[str, Any] = {"request_id": queued["id"]}
            assert (await operator.ask("DELETE", "/api/v1/requests/{request_id}", **where))["outcome"] == "cancelled"
            again = await operator.ask("POST", "/api/v1/requests/{request_id}/cancel", **where)
            assert again["outcome"] == "ended"
        path, where = "/api/v1/requests/{request_id}/cancel", {"request_id": request.request_id}
        assert (await operator.ask("POST", path, **where))["outcome"] == "cancelling"
        (one,) = (await operator.get("/api/v1/requests"))["requests"]
        assert one["is_cancelling"]
        await request.cancelled()
        await tasks[0]
        told = await operator.get("/api/v1/requests/{request_id}", request_id=request.request_id)
        assert (told["state"], told["finish_reason"]) == ("cancelled", "cancelled")
        assert told["events"][-1]["event"] == "ended"


async def test_dead_letters(balancer: HttpBalancer, operator: Operator, new_agent: NewAgent) -> None:
    async def die() -> str:
        """A request that kills three agents."""
        request_id = ""
        for _ in range(3):
            agent = await new_agent()
            request_id = (await agent.take()).request_id
            await agent.pool.redis.zadd(agent.pool.keys.agents(), {agent.agent_id: 1})
            await agent.pool.reap(agent.agent_id, max_deaths=3, dead_frame=DEAD_FRAME, cancel_frame=CANCELLED_FRAME)
        return request_id

    dead: list[str] = []
    for _ in range(2):
        async with asking(balancer) as tasks:
            dead.append(await die())
            assert (await tasks[0]).status_code == 502
    page = await operator.get("/api/v1/dead_letters", query={"limit": "1"})
    assert [(one["id"], one["deaths"], one["can_requeue"]) for one in page["dead_letters"]] == [(dead[1], 3, True)]
    rest = await operator.get("/api/v1/dead_letters", query={"cursor": page["next_cursor"]})
    assert ([one["id"] for one in rest["dead_letters"]], rest["next_cursor"]) == ([dead[0]], None)
    told = await operator.get("/api/v1/requests/{request_id}", request_id=dead[0])
    assert (told["state"], told["deaths"], told["error"]["code"]) == ("failed", 3, "agents_lost")
    assert (await operator.get("/api/v1/pools/{name}", name="default"))["dead_letters"] == 2

    where: dict[str, Any] = {"request_id": dead[0]}
    assert (await operator.ask("POST", "/api/v1/dead_letters/{request_id}/requeue", **where))["outcome"] == "requeued"
    agent = await new_agent()
    await (await agent.take()).finish()
    await agent.pool.redis.delete(agent.pool.keys.payload(dead[1]))  # a day later
    where: dict[str, Any] = {"request_id": dead[1]}
    await operator.ask("POST", "/api/v1/dead_letters/{request_id}/requeue", expect=409, **where)
    assert (await operator.ask("DELETE", "/api/v1/dead_letters/{request_id}", **where))["outcome"] == "dropped"
    assert (await operator.get("/api/v1/dead_letters"))["dead_letters"] == []


async def test_pools(balancer: HttpBalancer, operator: Operator, new_agent: NewAgent, store: Store) -> None:
    await store.add_pool("chat")
    await new_agent(slots=3)
    async with asking(balancer):

        async def is_busy() -> bool:
            return (await operator.get("/api/v1/pools/{name}", name="default"))["slots_processing"] == 1

        await wait_until(is_busy, what="a slot is busy")
        told = await operator.get("/api/v1/pools")
        chat_pool, default = told["pools"]
        assert (told["worker"], chat_pool["name"], chat_pool["agents"]) == (False, "chat", 0)
        assert (default["slots_total"], default["slots_idle"], default["models"]) == (3, 2, ["tiny"])
        assert (await operator.get("/api/v1/pools/{name}/buffered_requests", name="chat")) == {
            "buffered_requests_current": 0
        }


async def test_streams_of_a_pool(balancer: HttpBalancer, operator: Operator, store: Store) -> None:
    await store.add_pool("chat")
    document = await document_of(balancer, "management")
    for end in ("agents", "buffered_requests"):
        async with operator.http.stream("GET", f"/api/v1/pools/chat/{end}/stream") as stream:
            async for line in stream.aiter_lines():
                document.check_event(f"/api/v1/pools/{{name}}/{end}/stream", 200, line.removeprefix("data: "))
                break


async def test_autoscale(balancer: HttpBalancer, operator: Operator, new_agent: NewAgent) -> None:
    empty = await operator.get("/api/v1/autoscale")
    assert (empty["demand"], empty["slots_suggested"], empty["agents_total"]) == (0, 0, 0)
    assert (empty["backlog_seconds"], empty["oldest_wait_ms"]) == (0, 0)
    agent = await new_agent(slots=2)
    loading = await new_agent(slots=0, state="loading")
    await loading.pool.renew(loading.agent_id, lease_ms=60_000, snapshot={"desired_slots": 4})
    await agent.pool.renew(agent.agent_id, lease_ms=60_000, snapshot={"rate": 100.0})
    async with asking(balancer, 5):
        await waiting(balancer, 3)
        found = await operator.get("/api/v1/pools/{name}/autoscale", name="default")
        slots = [found[f"slots_{name}"] for name in ("total", "idle", "processing", "loading")]
        assert (slots, found["demand"], found["waiting"]) == ([2, 0, 2, 4], 5, 3)
        assert found["agents"] == {
            "ready": 1,
            "loading": 1,
            "failed": 0,
            "draining": 0,
            "drained": 0,
            "leaving": 0,
            "lost": 0,
        }
        assert found["slots_suggested"] == 5
        assert found["backlog_seconds"] == pytest.approx(found["backlog_tokens"] / 100)
        halved = await operator.get("/api/v1/autoscale", query={"target_demand_per_slot": "2", "include_batch": "true"})
        assert halved["slots_suggested"] == 3
        await operator.ask("POST", "/api/v1/agent/{agent_id}/drain", agent_id=agent.agent_id)
        drained = await operator.get("/api/v1/autoscale")
        assert (drained["slots_total"], drained["agents"]["ready"]) == (0, 0)
        assert drained["backlog_seconds"] is None


@pytest.mark.parametrize("service", ["inference", "openai", "management"])
async def test_ready(balancer: HttpBalancer, new_agent: NewAgent, service: str) -> None:
    async with balancer.http(service) as http:
        document = await document_of(balancer, service)

        async def ready(expect: int, query: str = "") -> Any:
            answer = await http.get(f"/ready{query}")
            assert answer.status_code == expect
            document.check("/ready", "get", expect, answer.headers["content-type"], answer.text)
            assert (await http.head(f"/ready{query}")).status_code == expect
            return answer.json()

        assert await ready(200) == {"status": "ready"}
        assert (await ready(503, "?slots=1"))["reason"] == "No agent has a slot that serves."
        await new_agent(slots=1)

        async def has_slots() -> bool:
            return (await http.get("/ready?slots=1")).status_code == 200

        await wait_until(has_slots, what="the next look finds the agent")
        assert await ready(200, "?slots=1") == {"status": "ready"}
        balancer.gateway.stopping.set()
        assert (await ready(503))["reason"] == "This balancer is stopping."


class HandClock(SystemClock):
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


async def test_however_many_probes_come_redis_is_asked_once(
    store: Store, new_agent: NewAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They need no key, so they must not cost much; of all services of a process together."""
    num_read, read = [0], Overview.pools

    async def counting(self: Overview) -> list[PoolQueue]:
        num_read[0] += 1
        return await read(self)

    monkeypatch.setattr(Overview, "pools", counting)
    clock, stopping = HandClock(), asyncio.Event()
    readiness = Readiness(store, stopping, clock)
    told = await asyncio.gather(*(readiness.why_not(needs_slots=True) for _ in range(50)))
    assert (set(told), num_read) == ({NO_SLOT}, [1])
    await new_agent(slots=1)
    clock.now_s += SLOTS_FRESH_S - 0.01
    assert await readiness.why_not(needs_slots=True) == NO_SLOT
    clock.now_s += 0.02
    assert [await readiness.why_not(needs_slots=True) for _ in range(3)] == [None] * 3
    assert num_read == [2]
    assert await readiness.why_not() is None
    stopping.set()
    assert await readiness.why_not(needs_slots=True) == STOPPING, "what this process knows itself it says at once"


async def test_without_redis_nothing_is_ready(prefix: str) -> None:
    async with http_balancer("redis://127.0.0.1:1", prefix) as balancer:
        for service in ("inference", "openai", "management"):
            async with balancer.http(service) as http:
                answer = await http.get("/ready")
                assert (answer.status_code, answer.json()["reason"]) == (503, "Redis does not answer.")
                assert (await http.get("/health")).text == "OK"
        async with operating(balancer) as operator:
            for path in ("/api/v1/requests", "/api/v1/pools", "/api/v1/autoscale", "/api/v1/dead_letters"):
                assert (await operator.get(path, expect=503))["error"]["code"] == "queue_unavailable"
            await operator.ask("POST", "/api/v1/agent/{agent_id}/drain", expect=503, agent_id="a")


async def test_many_who_look_are_one_reader(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    num_read, num_made = [0], [0]
    read = Overview.pool

    async def counting(self: Overview, name: str) -> PoolQueue:
        num_read[0] += 1
        return await read(self, name)

    def make(pool: PoolQueue) -> bytes:
        num_made[0] += 1
        return agents_object(pool)

    monkeypatch.setattr(Overview, "pool", counting)
    watch = PoolWatch(store, SystemClock())
    told = await asyncio.gather(*(watch.made(make, max_age_s=60) for _ in range(100)))
    assert (set(told), num_read[0], num_made[0]) == ({b'{"agents":[]}'}, 1, 1)
