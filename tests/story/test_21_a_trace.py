"""One trace shows where a request's time went: over HTTP, in the queue, in the prompt, in the answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from native_harness import raw_socket
from otlp_collector import CollectedSpan, Collector, otlp_collector
from story_harness import Command

from paddler.store.client import Store
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120), pytest.mark.xdist_group("traces")]

SECRET = "zebramarmalade"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SERVER, CONSUMER = 2, 5


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp_collector() as collector:
        yield collector


@pytest.fixture
async def balancer_url(
    store: Store, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """A balancer and an agent that send their spans after 50 ms, where they would wait for 5 s."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    where = ("--redis-url", store.url, "--redis-prefix", store.prefix, "--otlp-endpoint", collector.url)
    anywhere = ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0")
    balancer = Command(tmp_path / "balancer.log", "balancer", *anywhere, *where)
    engine = ("--engine", "scripted", "--slots", "1", "--scripted-step", "5", "--name", "first", "--grace", "0")
    agent = Command(tmp_path / "agent.log", "agent", *engine, *where)
    try:
        await agent.logged("registered")
        yield f"http://{(await balancer.logged('listening', service='inference'))['address']}"
    finally:
        for one in (balancer, agent):
            one.process.terminate()
        for one in (balancer, agent):
            one.process.wait(20)


def chat(text: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{SECRET} {text}"}]
    return {"model": "default", "messages": messages, "stop": [SECRET], **fields}


async def trace_of(collector: Collector, trace: str, *names: str) -> dict[str, CollectedSpan]:
    """The spans of a trace by name, once these are there."""

    def find() -> dict[str, CollectedSpan] | None:
        found = {span.name: span for span in collector.spans if span.trace == trace}
        return found if found.keys() >= {*names} else None

    return await wait_until(find, timeout_s=30, what=f"spans {names} of {trace}")


async def test_a_trace_from_http_through_the_queue_into_the_engine(balancer_url: str, collector: Collector) -> None:
    async with httpx.AsyncClient(base_url=balancer_url, timeout=30, trust_env=False) as http:
        answer = await http.post(
            "/v1/chat/completions",
            json=chat("[[tokens=9]]", temperature=0.25, max_tokens=20),
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "authorization": f"Bearer {SECRET}"},
        )
    names = ("POST /v1/chat/completions", "chat default", "queue", "chat scripted", "prefill", "decode")
    spans = await trace_of(collector, TRACE, *names)
    assert spans.keys() == {*names}
    server, request, queue, work, prefill, decode = (spans[name] for name in names)
    # Each is below the one it belongs to, the first below the client's own.
    parents = [span.parent for span in (server, request, queue, work, prefill, decode)]
    assert parents == [PARENT, server.id, request.id, request.id, work.id, work.id]
    services = [span.service for span in (server, request, queue, work, prefill, decode)]
    assert services == ["paddler-balancer"] * 3 + ["paddler-agent"] * 3
    assert (server.kind, work.kind) == (SERVER, CONSUMER)
    # Their times are in order, on one clock.
    assert server.begin <= request.begin == queue.begin <= queue.end <= request.end <= server.end
    assert work.begin == prefill.begin <= prefill.end == decode.begin < decode.end == work.end

    usage = answer.json()["usage"]
    assert server.attributes["http.route"] == "/v1/chat/completions"
    assert server.attributes["http.response.status_code"] == 200
    request_id = answer.headers["x-paddler-request-id"]
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "paddler",
        "gen_ai.response.id": request_id,
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.response.finish_reasons": ["stop"],
    }
    for span in (request, work):
        assert expected.items() <= span.attributes.items()
    assert request.attributes["gen_ai.request.model"] == "default"
    asked = {"gen_ai.response.model": "scripted", "gen_ai.request.temperature": 0.25, "gen_ai.request.max_tokens": 20}
    assert asked.items() <= work.attributes.items()
    assert not any(span.is_error for span in spans.values())
    assert all(SECRET.encode() not in body for body in collector.bodies)


async def test_what_goes_wrong_is_said(balancer_url: str, collector: Collector) -> None:
    traces = ["1" * 32, "2" * 32, "3" * 32, "4" * 32]
    async with httpx.AsyncClient(base_url=balancer_url, timeout=30, trust_env=False) as http:

        async def ask(trace: str, body: dict[str, Any], flags: str = "01") -> int:
            headers = {"traceparent": f"00-{trace}-{PARENT}-{flags}"}
            return (await http.post("/v1/chat/completions", json=body, headers=headers)).status_code

        assert await ask(traces[0], chat("[[fail]]")) == 500
        assert await ask(traces[1], chat("x", temperature="hot")) == 400
        # Whose caller does not record is not recorded here.
        assert await ask(traces[2], chat("[[tokens=2]]"), flags="00") == 200
        # What is no trace context is as none.
        for wrong in ("nonsense", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01"):
            answer = await http.post("/v1/chat/completions", json=chat("[[tokens=2]]"), headers={"traceparent": wrong})
            assert answer.status_code == 200
        assert await ask(traces[3], chat("[[tokens=2]]")) == 200
        await http.get("/health")
    failed = await trace_of(collector, traces[0], "POST /v1/chat/completions", "chat default", "chat scripted")
    errors = {name: span.attributes.get("error.type") for name, span in failed.items()}
    assert (errors["chat default"], errors["chat scripted"]) == ("engine_failed", "engine_failed")
    assert errors["POST /v1/chat/completions"] == "500"
    assert failed["POST /v1/chat/completions"].is_error
    refused = await trace_of(collector, traces[1], "POST /v1/chat/completions")
    assert refused.keys() == {"POST /v1/chat/completions"}
    assert refused["POST /v1/chat/completions"].attributes["http.response.status_code"] == 400
    await trace_of(collector, traces[3], "chat scripted", "chat default")
    assert not [span for span in collector.spans if span.trace == traces[2]]
    roots = [span for span in collector.named("POST /v1/chat/completions") if not span.parent]
    assert len(roots) == 3
    assert not [span for span in collector.spans if "health" in span.name]


async def test_what_a_socket_asks_is_traced_too(balancer_url: str, collector: Collector) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    async with raw_socket(balancer_url, additional_headers=headers) as socket:
        await socket.ask("1", f"{SECRET} [[tokens=3]]")
        await socket.texts(1)
    spans = await trace_of(collector, TRACE, "chat default", "chat scripted")
    assert spans["chat default"].parent == PARENT
    async with httpx.AsyncClient(base_url=balancer_url, timeout=30, trust_env=False) as http:
        body = {"model": "default", "input": [f"{SECRET} a", "b"]}
        headers = {"traceparent": f"00-{'5' * 32}-{PARENT}-01"}
        assert (await http.post("/v1/embeddings", json=body, headers=headers)).status_code == 200
    embedded = await trace_of(collector, "5" * 32, "embeddings default", "embeddings scripted")
    assert embedded["embeddings scripted"].attributes["gen_ai.usage.input_tokens"] > 0
    assert SECRET not in json.dumps([span.attributes for span in collector.spans])
