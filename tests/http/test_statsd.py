"""Numbers for StatsD: which, of what, from whom, and what happens when somebody is away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from http_harness import NewAgent, NewBalancer, chat
from udp_sink import UdpSink, udp_sink

from api.telemetry import TelemetrySettings
from paddler.clock import SystemClock
from paddler.jobs.gateway import Submit
from paddler.jobs.measuring import measured_of
from paddler.metrics.statsd import MAX_TIMERS, Statsd, StatsdSettings, Timers
from paddler.settings import Address
from paddler.store.client import Store
from paddler.testing.waiting import wait_until
from paddler.tier_stats import TierStats, encode_tiers
from paddler.wire.agent import Generate

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).resolve().parents[2] / "docs/metrics.md"
GAUGES = {
    *("requests_buffered", "requests_buffered_since_report", "slots_idle", "slots_processing", "slots_total"),
    *("demand", "demand_batch", "agents"),
}


@pytest.fixture
async def sink() -> AsyncIterator[UdpSink]:
    async with udp_sink() as sink:
        yield sink


def reporter(store: Store, sink: UdpSink, prefix: str = "paddler") -> Statsd:
    return Statsd(StatsdSettings(Address("127.0.0.1", sink.port), prefix, 10_000), store, SystemClock())


async def report(statsd: Statsd, sink: UdpSink) -> dict[str, float]:
    """One report, without the prefix."""
    num_before = len(sink.reports)
    await statsd.run_report_once()
    await wait_until(lambda: len(sink.reports) > num_before, what="a report comes")
    return {name.removeprefix("paddler."): value for name, value in sink.reports[-1].items()}


async def test_gauges_of_the_fleet(store: Store, sink: UdpSink, new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    balancer = await new_balancer(max_buffered_requests=10)
    agent = await new_agent(slots=1)
    await new_agent(slots=2, state="loading")
    statsd = reporter(store, sink)
    await statsd.run_lead_once()
    first = await report(statsd, sink)
    assert first.keys() == GAUGES
    assert set(sink.gauges) == {f"paddler.{name}" for name in GAUGES}
    idle = {"slots_idle": 1, "slots_processing": 0, "slots_total": 3, "agents": 2, "demand": 0, "demand_batch": 0}
    assert first == idle | {"requests_buffered": 0, "requests_buffered_since_report": 0}
    async with balancer.http() as http:
        asking = [asyncio.create_task(http.post("/v1/chat/completions", json=chat("hi"))) for _ in range(3)]
        requests = [await agent.take()]

        async def two_wait() -> bool:
            return await balancer.num_waiting() == 2

        await wait_until(two_wait)
        busy = await report(statsd, sink)
        assert busy == idle | {
            "slots_idle": 0,
            "slots_processing": 1,
            "demand": 3,
            "requests_buffered": 2,
            "requests_buffered_since_report": 2,
        }
        # What waits still waits, and no other has come since.
        again = await report(statsd, sink)
        assert (again["requests_buffered"], again["requests_buffered_since_report"]) == (2, 0)
        for _ in range(2):
            await requests[-1].finish()
            requests.append(await agent.take())
        await requests[-1].finish()
        await asyncio.gather(*asking)
    await statsd.close()


async def test_an_idle_slot_is_one_that_a_request_could_get(
    store: Store, sink: UdpSink, new_balancer: NewBalancer, new_agent: NewAgent
) -> None:
    balancer = await new_balancer()
    drained, gone, _ = await new_agent(slots=4), await new_agent(slots=8), await new_agent(slots=1)
    statsd = reporter(store, sink)
    await statsd.run_lead_once()
    assert (await report(statsd, sink))["slots_idle"] == 13
    async with balancer.http("management") as http:
        (await http.post(f"/api/v1/agent/{drained.agent_id}/drain")).raise_for_status()
        # Its lease is over, and nobody has reaped it yet.
        await store.redis.zadd(gone.pool.keys.agents(), {gone.agent_id: 1})
        told = await report(statsd, sink)
        health = (await http.get("/health", headers={"accept": "application/json"})).json()
    assert (told["slots_idle"], told["slots_total"], told["agents"]) == (1, 13, 3)
    assert health["slots_idle"] == told["slots_idle"]
    await statsd.close()


async def test_tiers_are_told_of_where_there_are_some(store: Store, sink: UdpSink, new_agent: NewAgent) -> None:
    """The names are those of docs/metrics.md."""
    for blocks in (3, 4):
        agent = await new_agent(slots=1)
        told = encode_tiers((TierStats("disk", num_hits=99, num_bytes=blocks * 1000, num_blocks=blocks),))
        await agent.pool.renew(agent.agent_id, lease_ms=60_000, snapshot={"tiers": told})
    counters = store.pool("default").keys.counters()
    await store.redis.hset(counters, mapping={"kv_disk_hits": 7, "kv_disk_saved_ms": 900})
    statsd = reporter(store, sink)
    await statsd.run_lead_once()
    found = {name: value for name, value in (await report(statsd, sink)).items() if name not in GAUGES}
    names = re.findall(r"`paddler\.kv_<tier>_(\w+)`", DOCS.read_text())
    assert found == {f"kv_disk_{name}": 0 for name in names} | {
        "kv_disk_hits": 7,
        "kv_disk_saved_ms": 900,
        "kv_disk_bytes": 7000,
        "kv_disk_blocks": 7,
    }
    await statsd.close()
    await store.redis.delete(counters)


async def test_one_of_several_sends(store: Store, sink: UdpSink, new_agent: NewAgent) -> None:
    await new_agent(slots=1)
    several = [reporter(store, sink) for _ in range(3)]
    for statsd in several:
        await statsd.run_lead_once()
    assert [statsd.lease.is_held for statsd in several] == [True, False, False]
    for statsd in (*several[1:], several[0]):
        await statsd.run_report_once()
    await wait_until(lambda: sink.reports)
    assert len(sink.reports) == 1
    # Who has it keeps it; who leaves gives it up; who has another sink or prefix is another matter.
    await several[1].run_lead_once()
    await several[0].run_lead_once()
    assert [statsd.lease.is_held for statsd in several] == [True, False, False]
    other = reporter(store, sink, "other")
    await other.run_lead_once()
    assert other.lease.is_held
    await several[0].close()
    await several[1].run_lead_once()
    assert [statsd.lease.is_held for statsd in several] == [False, True, False]
    for statsd in (several[1], other):
        await statsd.close()


async def test_since_report_goes_on_where_the_last_sender_stopped(store: Store, sink: UdpSink) -> None:
    counters = store.pool("default").keys.counters()
    first, second = reporter(store, sink), reporter(store, sink)
    await store.redis.hset(counters, "buffered", 5)
    await first.run_lead_once()
    await store.redis.hset(counters, "buffered", 7)
    assert (await report(first, sink))["requests_buffered_since_report"] == 2
    await first.close()
    await store.redis.hset(counters, "buffered", 11)
    await second.run_lead_once()
    assert (await report(second, sink))["requests_buffered_since_report"] == 4
    # A Redis that has lost its counters begins anew.
    await store.redis.hset(counters, "buffered", 3)
    assert (await report(second, sink))["requests_buffered_since_report"] == 3
    await second.close()
    await store.redis.delete(counters)


async def test_timers_of_requests(store: Store, sink: UdpSink, new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    settings = StatsdSettings(Address("127.0.0.1", sink.port), "mine.fleet-1", 100)
    balancer = await new_balancer(telemetry=TelemetrySettings(statsd=settings))
    agent = await new_agent(slots=1)
    async with balancer.http() as http:
        for request_class in ("normal", "batch"):
            headers = {"x-request-class": request_class}
            asking = asyncio.create_task(http.post("/v1/chat/completions", json=chat("hi"), headers=headers))
            request = await agent.take()
            await request.say("x")
            await request.finish()
            assert (await asking).status_code == 200
    await wait_until(lambda: "mine.fleet-1.ttft" in sink.timers and "mine.fleet-1.slots_total" in sink.gauges)
    assert sink.gauges["mine.fleet-1.slots_total"] == 1
    (wait,), (ttft,) = sink.timers["mine.fleet-1.queue_wait"], sink.timers["mine.fleet-1.ttft"]
    assert 0 < wait <= ttft < 20_000


async def test_many_timers_do_not_wait_for_the_interval(store: Store, sink: UdpSink) -> None:
    statsd = reporter(store, sink)
    statsd.start()
    for number in range(MAX_TIMERS):
        measured = measured_of("default", Generate(prompt="x"), Submit(), 0.0)
        measured.opened_at = number / 1000
        statsd.timers.ended(measured)
    await wait_until(lambda: len(sink.timers.get("paddler.queue_wait", [])) == MAX_TIMERS, what="all have come")
    assert sorted(sink.timers["paddler.queue_wait"]) == pytest.approx(list(range(MAX_TIMERS)))
    await statsd.close()


async def test_a_sink_that_is_away_or_unknown_costs_nothing(store: Store) -> None:
    for address in (Address("127.0.0.1", 1), Address("no-such-host.invalid", 8125)):
        statsd = Statsd(StatsdSettings(address, "paddler", 10_000), store, SystemClock())
        await statsd.run_lead_once()
        measured = measured_of("default", Generate(prompt="x"), Submit(), 0.0)
        measured.opened_at = 1.0
        statsd.timers.ended(measured)
        await statsd.run_report_once()
        assert statsd.timers.take() == []
        await statsd.close()


async def test_without_redis_the_timers_still_come(sink: UdpSink, prefix: str) -> None:
    store = Store("redis://127.0.0.1:1", prefix)
    statsd = reporter(store, sink)
    statsd.start()
    measured = measured_of("default", Generate(prompt="x"), Submit(), 0.0)
    measured.opened_at = 1.0
    statsd.timers.ended(measured)
    await statsd.run_report_once()
    await wait_until(lambda: sink.timers.get("paddler.queue_wait") == [1000.0])
    assert sink.reports == []
    await statsd.close()
    await store.close()


async def test_nothing_is_gathered_without_an_address(new_balancer: NewBalancer) -> None:
    plain = await new_balancer()
    assert not [meter for meter in plain.gateway._meters if isinstance(meter, Timers)]
