"""`/metrics` after real requests: what is counted is what happened, and Prometheus can read it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fleet_harness import RunningAgent
from http_harness import HttpBalancer, NewAgent, NewBalancer, chat, http_balancer
from metrics_lint import faults_of
from native_harness import raw_socket
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus

from paddler import __version__
from paddler.issues import encode_issues, issue_of
from paddler.metrics.redis_health import FAULTS, faults_in
from paddler.store.client import Store, connect
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from paddler.tier_stats import TierStats, encode_tiers

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).resolve().parents[2] / "docs/metrics.md"
UPSTREAM_TYPE = "text/plain; version=0.0.4; charset=utf-8; escaping=values"

Samples = dict[str, dict[tuple[str, ...], float]]
"""By name, then by the values of the labels in the order of their names."""


def parsed(text: str) -> Samples:
    assert faults_of(text) == []
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            samples.setdefault(sample.name, {})[labels] = sample.value
    return samples


async def scrape(balancer: HttpBalancer, scope: str = "") -> Samples:
    async with balancer.http("management") as operator:
        answer = await operator.get("/metrics", params={"scope": scope} if scope else {})
    assert (answer.status_code, answer.headers["content-type"]) == (200, UPSTREAM_TYPE)
    return parsed(answer.text)


@pytest.fixture
async def fleet(store: Store, balancer: HttpBalancer) -> AsyncIterator[HttpBalancer]:
    """A balancer and a real agent with two slots of a scripted engine."""
    agent = RunningAgent(connect(store.url, store.prefix), ScriptedEngine(slots=2, model="tiny"), 2000)
    await agent.start()
    yield balancer
    await agent.leave()


async def ask(http: httpx.AsyncClient, text: str, **fields: Any) -> httpx.Response:
    return await http.post("/v1/chat/completions", json=chat(text, **fields))


async def test_requests_are_counted_by_how_they_ended(fleet: HttpBalancer) -> None:
    long = "tell me a long story " * 40
    async with fleet.http() as http:
        first = (await ask(http, long + "[[tokens=5]]")).json()
        turns = [{"role": "user", "content": long + "[[tokens=5]]"}, first["choices"][0]["message"]]
        again = await http.post(
            "/v1/chat/completions",
            json={"model": "default", "messages": [*turns, {"role": "user", "content": "[[now=abcd]]"}]},
        )
        with_usage = {"include_usage": True}
        streamed = await ask(http, "x [[tokens=30]]", stream=True, max_tokens=7, stream_options=with_usage)
        *_, last, done = [line[6:] for line in streamed.text.splitlines() if line.startswith("data: ")]
        assert done == "[DONE]"
        assert (await ask(http, "[[fail]]")).status_code == 500
        assert (await ask(http, "[[tokens=1]]", temperature="hot")).status_code == 400
        assert (await http.get("/v1/nothing/here")).status_code == 404
        embedded = await http.post("/v1/embeddings", json={"model": "default", "input": "three little words"})
        await http.post("/tokenize", json={"content": "a b"})
    usages = [one["usage"] for one in (first, again.json(), json.loads(last))]
    found = await scrape(fleet)

    outcomes = found["paddler_request_outcomes_total"]
    assert outcomes == {
        ("normal", "generate", "stop", "default"): 2,
        ("normal", "generate", "length", "default"): 1,
        ("normal", "generate", "engine_failed", "default"): 1,
        ("normal", "embed", "stop", "default"): 1,
        ("normal", "tokenize", "stop", "default"): 1,
    }
    http_requests = found["paddler_http_requests_total"]
    assert http_requests["POST", "/v1/chat/completions", "inference", "200"] == 3
    assert http_requests["POST", "/v1/chat/completions", "inference", "400"] == 1
    assert http_requests["POST", "/v1/chat/completions", "inference", "500"] == 1
    assert http_requests["GET", "none", "inference", "404"] == 1

    key = ("normal", "default")
    assert found["paddler_request_queue_seconds_count"][key] == 6
    assert found["paddler_request_duration_seconds_count"][key] == 6
    # Neither an embedding nor a question nor a failure has a first token.
    assert found["paddler_time_to_first_token_seconds_count"][key] == 3
    num_output = sum(one["completion_tokens"] for one in usages)
    assert usages[2]["completion_tokens"] == 7
    assert found["paddler_inter_token_latency_seconds_count"][key] <= num_output - 3
    queue, first_token, whole = (
        found[f"paddler_{name}_seconds_sum"][key]
        for name in ("request_queue", "time_to_first_token", "request_duration")
    )
    assert 0 < queue < whole
    assert 0 < first_token < whole

    async def counted() -> Samples | None:
        """An agent tells with its renewals."""
        now = await scrape(fleet, "fleet")
        return now if now["paddler_embedded_tokens_total"]["default",] else None

    seen = await wait_until(counted, what="tokens are counted")
    assert seen["paddler_embedded_tokens_total"]["default",] == embedded.json()["usage"]["prompt_tokens"]
    prompt = sum(one["prompt_tokens"] for one in usages)
    cached = sum(one["prompt_tokens_details"]["cached_tokens"] for one in usages)
    assert cached > 0
    assert seen["paddler_cached_prompt_tokens_total"]["default",] == cached
    assert seen["paddler_prompt_tokens_total"]["default",] == prompt
    assert seen["paddler_output_tokens_total"]["default",] == num_output
    ratio = seen["paddler_pool_cache_hit_ratio"]["default",]
    assert ratio == pytest.approx(cached / prompt)
    assert seen["paddler_pool_events_total"]["done", "default"] == 5
    assert seen["paddler_pool_events_total"]["failed", "default"] == 1


async def test_the_fleet_as_it_is_now(new_balancer: NewBalancer, new_agent: NewAgent, store: Store) -> None:
    balancer = await new_balancer(max_buffered_requests=10)
    agent = await new_agent(slots=1)
    issue = issue_of("ModelFileDoesNotExist", "no", "/m.gguf", waits=True)
    await agent.pool.renew(
        agent.agent_id,
        lease_ms=60_000,
        snapshot={
            "model": "tiny",
            "rate": 12.5,
            "prefill": 80,
            "saved_bytes": 4096,
            "restored_tokens": 7,
            "tiers": encode_tiers((TierStats("disk", num_bytes=5000, num_blocks=2, bytes_per_s=4e8),)),
            "context_size": 8192,
            "held_tokens": 1024,
            "held_sequences": 3,
            "max_parked": 64,
            "issues": encode_issues((issue,)),
            "prompt_tokens": 60,
            "cached_tokens": 45,
        },
    )
    counted = {"kv_disk_tokens": 512, "kv_disk_saved_ms": 1500, "kv_shared_refused": 1}
    await agent.pool.redis.hset(agent.pool.keys.counters(), mapping=counted)
    other = await new_agent(slots=2, state="loading")
    told = {"prompt_tokens": 40, "cached_tokens": 5}
    await other.pool.renew(other.agent_id, lease_ms=60_000, snapshot=told)
    async with balancer.http() as http:
        asking = [
            asyncio.create_task(
                http.post("/v1/chat/completions", json=chat("hi"), headers={"x-request-class": request_class})
            )
            for request_class in ("normal", "interactive", "batch")
        ]
        request = await agent.take()
        await wait_until(lambda: balancer.num_waiting(), what="two wait")

        async def two_wait() -> bool:
            return await balancer.num_waiting() == 2

        await wait_until(two_wait)
        found = await scrape(balancer)
        assert found["paddler_slots_processing"] == {(): 1}
        assert found["paddler_slots_total"] == {(): 3}
        assert found["paddler_requests_buffered"] == {(): 2}
        waiting = found["paddler_pool_requests_buffered"]
        assert sum(waiting.values()) == 2
        assert {request_class for request_class, _ in waiting} == {"interactive", "normal", "batch"}
        assert found["paddler_pool_slots"]["default",] == 3
        assert found["paddler_pool_slots_processing"]["default",] == 1
        assert found["paddler_pool_demand"]["default",] + found["paddler_pool_demand_batch"]["default",] == 3
        assert found["paddler_pool_oldest_wait_seconds"]["default",] > 0
        assert found["paddler_pool_backlog_tokens"]["default",] > 0
        assert found["paddler_pool_tokens_per_second"]["default",] == 12.5
        states = {state: number for (_, state), number in found["paddler_pool_agents"].items()}
        none = ("waiting", "failed", "draining", "drained", "leaving", "lost", "other")
        assert states == {"ready": 1, "loading": 1, **dict.fromkeys(none, 0)}
        # Both agents are called `hand`.
        assert found["paddler_agent_slots"] == {("hand", "default"): 3}
        assert found["paddler_agent_slots_processing"] == {("hand", "default"): 1}
        assert found["paddler_agent_prefill_tokens_per_second"] == {("hand", "default"): 80}
        assert found["paddler_agent_saved_bytes"] == {("hand", "default"): 4096}
        assert found["paddler_agent_restored_tokens"] == {("hand", "default"): 7}
        assert found["paddler_agent_tier_bytes"] == {("hand", "default", "disk"): 5000}
        assert found["paddler_agent_tier_blocks"] == {("hand", "default", "disk"): 2}
        assert found["paddler_agent_tier_speed_bytes"] == {("hand", "default", "disk"): 4e8}
        assert found["paddler_agent_cache_hit_ratio"] == {("hand", "default"): 0.5}
        assert found["paddler_agent_context_tokens"] == {("hand", "default"): 8192}
        assert found["paddler_agent_held_tokens"] == {("hand", "default"): 1024}
        assert found["paddler_agent_held_sequences"] == {("hand", "default"): 3}
        assert found["paddler_agent_parked_sequences_max"] == {("hand", "default"): 64}
        assert found["paddler_agent_issues"] == {("hand", "default"): 1}
        assert found["paddler_agent_state"] == {
            ("hand", "default", "ready"): 1,
            ("hand", "default", "loading"): 1,
        }
        assert found["paddler_agent_info"] == {("hand", "tiny", "default"): 1}
        assert found["paddler_pool_events_total"]["buffered", "default"] == 2
        assert found["paddler_kv_restored_tokens_total"] == {("default", "disk"): 512, ("default", "shared"): 0}
        assert found["paddler_kv_saved_seconds_total"]["default", "disk"] == 1.5
        assert found["paddler_kv_refused_total"]["default", "shared"] == 1
        assert not [event for event, _ in found["paddler_pool_events_total"] if event.startswith("kv_")]
        assert found["paddler_redis_up"] == {(): 1}
        assert found["paddler_redis_memory_used_bytes"][()] > 100_000
        assert 0 < found["paddler_redis_latency_seconds"][()] < 3
        assert found["paddler_worker_up"] == {(): 0}
        assert found["paddler_redis_fault"] == {(fault,): 0 for fault in FAULTS}
        assert found["paddler_build_info"].keys() >= {(found_python(found), __version__)}
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await request.cancelled()
        await wait_until(balancer.is_idle)

        async def left() -> bool:
            outcomes = (await scrape(balancer))["paddler_request_outcomes_total"]
            return sum(number for (_, _, outcome, _), number in outcomes.items() if outcome == "client_gone") == 3

        await wait_until(left, what="three clients have left")


def found_python(found: Samples) -> str:
    ((python, _),) = found["paddler_build_info"]
    return python


def test_what_redis_says_of_its_troubles() -> None:
    info = {
        "maxmemory_policy": "allkeys-lru",
        "aof_enabled": 0,
        "aof_last_write_status": "err",
        "aof_last_bgrewrite_status": "err",
        "rdb_last_bgsave_status": "err",
        "role": "slave",
    }
    assert faults_in(info) == dict.fromkeys(FAULTS, True)
    assert faults_in({}) == dict.fromkeys(FAULTS, False)


async def test_what_is_whose(balancer: HttpBalancer) -> None:
    process, fleet = await scrape(balancer, "process"), await scrape(balancer, "fleet")
    assert not process.keys() & fleet.keys()
    assert {"paddler_build_info", "process_resident_memory_bytes"} <= process.keys()
    assert {"paddler_redis_up", "paddler_pool_slots"} <= fleet.keys()
    assert process.keys() | fleet.keys() <= (await scrape(balancer)).keys()
    async with balancer.http("management") as operator:
        for query in ("scope=all", "name=x"):
            refused = await operator.get(f"/metrics?{query}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_field")


async def test_without_redis_it_says_so(valkey: RedisServer, prefix: str) -> None:
    """Gone while the balancer serves: one that has never seen it does not know either whether there are keys."""
    server = RedisServer(valkey.binary)
    server.start()
    async with http_balancer(server.url, prefix) as balancer:
        await balancer.tenants.ring.refresh_once()
        server.close()
        async with balancer.http() as http:
            assert (await ask(http, "hi")).status_code == 503
        found = await scrape(balancer)
        assert found["paddler_redis_up"] == {(): 0}
        assert "paddler_slots_total" not in found
        assert found["paddler_request_outcomes_total"] == {("normal", "generate", "queue_unavailable", "default"): 1}


async def test_tenants_ids_and_texts_are_no_labels(fleet: HttpBalancer) -> None:
    async with fleet.http() as http:
        for number in range(5):
            await http.post("/v1/chat/completions", json=chat(f"secret{number} [[tokens=2]]"))
            await http.get(f"/v1/requests/default.secret{number}")
            await http.request(f"M{number}", "/v1/models")
    async with fleet.http("management") as operator:
        text = (await operator.get("/metrics")).text
    assert "secret" not in text
    methods = {labels[0] for labels in parsed(text)["paddler_http_requests_total"]}
    assert not [method for method in methods if re.fullmatch(r"M\d", method)]
    assert len([line for line in text.splitlines() if line.startswith("paddler_http_requests_total")]) < 6


async def test_the_document_names_every_metric(fleet: HttpBalancer) -> None:
    async with fleet.http() as http:
        await ask(http, "[[tokens=3]]")
    async with fleet.http("management") as operator:
        text = (await operator.get("/metrics")).text
    told = re.findall(r"^# TYPE (paddler_\w+) (\w+)$", text, re.MULTILINE)
    rows = re.findall(r"^\| `(paddler_\w+)` \| (\w+) \|", DOCS.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(told)


async def test_a_socket_is_one_http_request(balancer: HttpBalancer) -> None:
    with pytest.raises(InvalidStatus):
        async with raw_socket(balancer.url(), additional_headers={"x-request-class": "batch"}):
            pass
    async with raw_socket(balancer.url()) as socket:
        await socket.send("nonsense")
        await socket.error()

    async def counted() -> dict[tuple[str, ...], float] | None:
        found = (await scrape(balancer)).get("paddler_http_requests_total", {})
        sockets = {labels: number for labels, number in found.items() if "WEBSOCKET" in labels}
        return sockets if len(sockets) == 2 else None

    route = "/api/v1/inference_socket"
    assert await wait_until(counted, what="both have ended") == {
        ("WEBSOCKET", route, "inference", "400"): 1,
        ("WEBSOCKET", route, "inference", "101"): 1,
    }
