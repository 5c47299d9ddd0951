"""Headers of every answer: who it was, how long it took, and where its client stands."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, NewAgent, NewBalancer, chat

from api.standing import duration
from paddler.jobs import fleet_view
from paddler.jobs.fleet_view import PoolView
from paddler.jobs.standing import Standing, standing_of
from paddler.store.results import Admission, Submission, Submitted
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
LIMIT, REMAINING, RESET = (f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset"))


@pytest.fixture(autouse=True)
def fresh_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Balancers see what has changed at once."""
    monkeypatch.setattr(fleet_view, "REFRESH_S", 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_clients_own_id_comes_back_and_the_queues_is_beside_it(
    balancer: HttpBalancer, agent: HandAgent, stream: bool
) -> None:
    async with balancer.http() as http:
        headers = {"X-Request-Id": "mine/42"}
        asking = asyncio.create_task(http.post(CHAT, json=chat(stream=stream), headers=headers))
        request = await agent.take()
        await request.say("hi")
        await request.finish()
        answer = await asking
        assert answer.headers.get_list("x-request-id") == ["mine/42"]
        assert answer.headers["x-paddler-request-id"] == request.request_id
        assert int(answer.headers["openai-processing-ms"]) >= 0
        if stream:
            assert f"id: {request.request_id}:" in answer.text
        assert (await http.get(f"/v1/requests/{answer.headers['x-paddler-request-id']}")).status_code == 200


async def test_the_official_client_reads_the_queues_id_if_it_gave_none(
    balancer: HttpBalancer, agent: HandAgent
) -> None:
    async with balancer.openai() as client:
        asking = asyncio.create_task(client.chat.completions.with_raw_response.create(**chat()))
        request = await agent.take()
        await request.finish()
        answer = await asking
        assert answer.request_id == answer.headers["x-paddler-request-id"] == request.request_id
        completion = answer.parse()
        assert completion._request_id == request.request_id


@pytest.mark.parametrize("service", ["inference", "openai"])
async def test_what_was_never_queued_has_an_id_too(balancer: HttpBalancer, service: str) -> None:
    async with balancer.http(service) as http:
        first, second = [await http.get("/v1/models") for _ in range(2)]
        assert first.headers["x-request-id"] != second.headers["x-request-id"]
        assert "x-paddler-request-id" not in first.headers
        assert "openai-processing-ms" in first.headers
        refused = await http.post(CHAT, json={}, headers={"X-Request-Id": "a"})
        assert (refused.status_code, refused.headers["x-request-id"]) == (400, "a")


@pytest.mark.parametrize("value", ["", "a b", "x" * 129, b"\xff"])
async def test_an_id_that_could_not_be_sent_back_is_as_none(balancer: HttpBalancer, value: Any) -> None:
    async with balancer.http() as http:
        for path in ("/v1/models", "/health", "/nowhere"):
            answer = await http.get(path, headers={"X-Request-Id": value})
            assert answer.status_code == (404 if path == "/nowhere" else 200)
            assert answer.headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize("service", ["inference", "openai"])
@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/v1/messages/nowhere", 404), (CHAT, 405)])
async def test_what_no_route_answers_has_them_too(balancer: HttpBalancer, service: str, path: str, status: int) -> None:
    async with balancer.http(service) as http:
        named = await http.get(path, headers={"X-Request-Id": "mine"})
        assert (named.status_code, named.headers.get_list("x-request-id")) == (status, ["mine"])
        assert "openai-processing-ms" in named.headers
        assert (await http.get(path)).headers["x-request-id"].startswith("req-")


async def test_what_may_still_wait(new_balancer: NewBalancer, agent: HandAgent) -> None:
    balancer = await new_balancer(max_buffered_requests=2)
    async with balancer.http() as http:
        served = asyncio.create_task(http.post(CHAT, json=chat()))
        first = await agent.take()
        waiting = asyncio.create_task(http.post(CHAT, json=chat(stream=True)))
        await wait_until(balancer.num_waiting)
        full = asyncio.create_task(http.post(CHAT, json=chat()))

        async def both_wait() -> bool:
            return await balancer.num_waiting() == 2

        await wait_until(both_wait)
        refused = await http.post(CHAT, json=chat())
        assert refused.status_code == 503
        assert (refused.headers[LIMIT], refused.headers[REMAINING]) == ("2", "0")
        assert refused.headers[RESET] == f"{refused.headers['retry-after']}s"
        await first.finish()
        for _ in range(2):
            await (await agent.take()).finish()
        answers = [await served, await waiting, await full]
    told = [(one.headers[LIMIT], one.headers[REMAINING]) for one in answers]
    assert told == [("2", "2"), ("2", "1"), ("2", "0")]
    assert answers[0].headers[RESET] == "0s"
    assert RESET not in answers[1].headers, "nobody has measured"
    assert [one.headers.get("x-queue-position") for one in answers] == [None, "0", "1"]


async def test_a_tenants_share_bounds_it(new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    balancer = await new_balancer(max_buffered_requests=10, tenant_share=0.3)
    async with balancer.http() as http:
        asking: list[asyncio.Task[httpx.Response]] = []
        for _ in range(3):
            asking.append(asyncio.create_task(http.post(CHAT, json=chat())))

            async def it_waits() -> bool:
                return await balancer.num_waiting() == len(asking)

            await wait_until(it_waits)
        refused = await http.post(CHAT, json=chat())
        assert (refused.status_code, refused.headers[LIMIT], refused.headers[REMAINING]) == (429, "3", "0")
        agent = await new_agent()
        for _ in asking:
            await (await agent.take()).finish()
        told = [(await one).headers[REMAINING] for one in asking]
    assert told == ["2", "1", "0"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_of_several_requests_tells_it_once(
    balancer: HttpBalancer, new_agent: NewAgent, stream: bool
) -> None:
    agent = await new_agent(slots=2)
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(CHAT, json=chat(n=2, stream=stream), headers={"X-Request-Id": "a"}))
        requests = [await agent.take() for _ in range(2)]
        for request in requests:
            await request.finish()
        answer = await asking
    assert [answer.headers.get_list(name) for name in (LIMIT, REMAINING, RESET)] == [["30"], ["30"], ["0s"]]
    assert answer.headers["x-request-id"] == "a"
    assert answer.headers["x-paddler-request-id"] in {request.request_id for request in requests}


def test_when_it_resets_is_an_estimate_from_what_was_measured() -> None:
    submission = Submission(
        request_id="p.1", request_class="normal", tenant="t", payload=b"", inbox="i", start_timeout_ms=0, max_waiting=30
    )
    view = PoolView(rate=100.0, waiting={"foreground": 4}, backlog={"foreground": 250})
    assert standing_of(submission, Submitted(Admission.WAITING, 3, "p.1"), view, None) == Standing(30, 26, 2500)
    assert standing_of(submission, Submitted(Admission.WAITING, 9, "p.1"), view, None) == Standing(30, 20, 2500)
    assert standing_of(submission, Submitted(Admission.ASSIGNED, 0, "p.1"), PoolView(), None) == Standing(30, 30, 0)


def test_durations_are_written_as_openai_does() -> None:
    assert [duration(ms) for ms in (0, 20, 999, 1000, 1001, 90_000)] == ["0s", "20ms", "999ms", "1s", "2s", "1m30s"]
