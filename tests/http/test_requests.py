"""`/v1/requests`: a request seen, resumed and cancelled by its id, on any balancer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, NewAgent, NewBalancer, chat, read_events
from hypothesis import given
from hypothesis import strategies as st

from api.event_ids import read_offset
from paddler.errors import EngineFailed, InvalidField
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
UNKNOWN = "default." + "x" * 22


def text_of(body: str) -> str:
    chunks = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: {")]
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk.get("choices", []))


def whole_events(body: str) -> list[str]:
    """What a client of server-sent events has seen: an event counts when its empty line has come."""
    return [event + "\n\n" for event in body.split("\n\n")[:-1]]


async def begin_background(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await http.post(CHAT, json=chat(background=True, **fields))
    assert answer.status_code == 202, answer.text
    status = answer.json()
    assert answer.headers["location"] == f"/v1/requests/{status['id']}"
    assert answer.headers["x-request-id"] == status["id"]
    return status


async def status_of(http: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/requests/{request_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_background_request_goes_on_without_a_client(new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    balancer, other = await new_balancer(), await new_balancer()
    async with balancer.http() as http, other.http() as elsewhere:
        status = await begin_background(http)
        request_id = status["id"]
        assert (status["state"], status["position"], status["background"]) == ("waiting", 0, True)
        assert (await begin_background(http))["position"] == 1
        agent = await new_agent(slots=2)
        requests = {request.request_id: request for request in [await agent.take(), await agent.take()]}
        request = requests.pop(request_id)
        await request.say("hel")
        status = await status_of(elsewhere, request_id)
        assert (status["state"], status["agent"], status["attempt"]) == ("running", "hand", 1)
        assert status["position"] is status["response"] is status["ended_at"] is None
        await request.say("lo")
        await request.finish()

        status = await status_of(elsewhere, request_id)
        assert (status["state"], status["cache"], status["usage"]["total_tokens"]) == ("done", "partial", 7)
        assert status["created_at"] <= status["started_at"] <= status["ended_at"]
        assert status["response"]["choices"][0]["message"]["content"] == "hello"
        assert (status["response"]["model"], status["response"]["id"]) == ("default", f"chatcmpl-{request_id}")
        assert status["response"]["created"] > 1_700_000_000
        answer = await elsewhere.get(status["stream_url"])
        assert text_of(answer.text) == "hello"
        assert answer.text.endswith("data: [DONE]\n\n")
        await requests.popitem()[1].finish()


async def test_a_stream_in_the_background_survives_its_client(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        body = chat(background=True, stream=True)
        sending = asyncio.create_task(http.send(http.build_request("POST", CHAT, json=body), stream=True))
        request = await agent.take()
        await request.say("hel")
        answer = await sending
        await answer.aclose()
        await wait_until(lambda: balancer.num_tasks() == 0)
        await request.say("lo")
        await request.finish()
        answer = await http.get(f"/v1/requests/{request.request_id}/stream")
        assert text_of(answer.text) == "hello"


async def test_any_event_is_a_place_to_go_on_from(new_balancer: NewBalancer, agent: HandAgent) -> None:
    balancer, other = await new_balancer(), await new_balancer()
    async with balancer.http() as http, other.http() as elsewhere:
        options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        posting = asyncio.create_task(http.post(CHAT, json=chat(**options)))
        request = await agent.take()
        for word in ("one ", "zwei ", "drei \u2603 ", "four"):
            await request.say(word)
        await request.finish()
        events = whole_events((await posting).text)
        for seen in range(len(events)):
            had = "".join(events[:seen])
            ids = [line[4:] for line in had.split("\n") if line.startswith("id: ")]
            headers = {"Last-Event-ID": ids[-1]} if ids else {}
            answer = await elsewhere.get(f"/v1/requests/{request.request_id}/stream", headers=headers)
            assert answer.status_code == 200
            assert answer.headers["x-paddler-agent"] == "hand"
            if ids:
                at = max(n for n, event in enumerate(events) if f"id: {ids[-1]}\n" in event)
                assert whole_events(answer.text) == events[at + 1 :], "byte for byte, the role included"
            else:
                assert whole_events(answer.text) == events


async def test_a_running_stream_is_followed_from_where_it_was_left(new_balancer: NewBalancer, agent: HandAgent) -> None:
    balancer, other = await new_balancer(), await new_balancer()
    async with balancer.http() as http, other.http() as elsewhere:
        posting = asyncio.create_task(http.post(CHAT, json=chat(stream=True)))
        request = await agent.take()
        await request.say("one ")
        request_url = f"/v1/requests/{request.request_id}/stream"
        offset = await balancer.store.redis.strlen(agent.pool.keys.journal(request.request_id))
        following = asyncio.create_task(elsewhere.get(request_url, headers={"Last-Event-ID": str(offset)}))

        async def both_follow() -> bool:
            return await balancer.store.redis.scard(agent.pool.keys.watchers(request.request_id)) == 2

        await wait_until(both_follow)
        posting.cancel()
        await wait_until(lambda: balancer.num_tasks() == 0)
        await request.say("two")
        await request.finish()
        assert text_of((await following).text) == "two"
        end = await balancer.store.redis.strlen(agent.pool.keys.journal(request.request_id))
        answer = await elsewhere.get(request_url, headers={"Last-Event-ID": str(end)})
        assert answer.text == "data: [DONE]\n\n"


async def test_who_follows_last_and_leaves_cancels(new_balancer: NewBalancer, agent: HandAgent) -> None:
    balancer = await new_balancer()
    async with balancer.http() as http:
        posting = asyncio.create_task(http.post(CHAT, json=chat(stream=True)))
        request = await agent.take()
        following = asyncio.create_task(http.get(f"/v1/requests/{request.request_id}/stream"))
        await wait_until(lambda: balancer.num_tasks() == 2)
        posting.cancel()
        await wait_until(lambda: balancer.num_tasks() == 1)
        await request.say("still there")
        following.cancel()
        await request.cancelled()
    assert await balancer.is_idle()


@pytest.mark.parametrize("path", ["", "/stream"])
async def test_ids_that_lead_nowhere(balancer: HttpBalancer, path: str) -> None:
    async with balancer.http() as http:
        answer = await http.get(f"/v1/requests/{UNKNOWN}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "request_not_found")
        answer = await http.get(f"/v1/requests/nonsense{path}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "id")
        answer = await http.post(f"/v1/requests/{UNKNOWN}/cancel")
        assert answer.status_code == 404
        assert (await http.post("/v1/requests/nonsense/cancel")).status_code == 400


async def test_places_that_are_none(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        status = await begin_background(http)
        request = await agent.take()
        await request.say("hello")
        url = status["stream_url"]
        for event_id in ("x", "-1", "1.5", f"{UNKNOWN}:3", f"{status['id']}:", "9" * 11, "\u0665"):
            answer = await http.get(url, headers=[(b"Last-Event-ID", event_id.encode())])
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Last-Event-ID"), event_id
        for event_id in ("3", "100000"):
            answer = await http.get(url, headers={"Last-Event-ID": event_id})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "request_lost")
            assert answer.headers["x-should-retry"] == "true"
        assert await balancer.demand() == 1, "asking in vain cancels nothing"
        await request.finish()


@given(st.text(max_size=40))
def test_any_event_id_is_an_offset_or_a_named_header(event_id: str) -> None:
    try:
        offset = read_offset(event_id, UNKNOWN)
    except InvalidField as error:
        offset, param = 0, error.param
    else:
        param = "Last-Event-ID"
    assert offset >= 0
    assert param == "Last-Event-ID"


async def test_cancelling_what_waits_and_what_runs(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        running = asyncio.create_task(http.post(CHAT, json=chat(stream=True)))
        request = await agent.take()
        await request.say("hel")
        waiting = await begin_background(http)
        answer = await http.post(f"/v1/requests/{waiting['id']}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert (await http.post(f"/v1/requests/{waiting['id']}/cancel")).json()["state"] == "cancelled"

        answer = await http.post(f"/v1/requests/{request.request_id}/cancel")
        assert (answer.json()["state"], answer.json()["cancelling"]) == ("running", True)
        await request.cancelled()
        events = await read_events(await running)
        assert json.loads(events[-2][6:])["error"]["code"] == "cancelled"
        assert (await status_of(http, request.request_id))["state"] == "cancelled"
        answer = await http.get(f"/v1/requests/{waiting['id']}/stream")
        assert (answer.status_code, answer.json()["error"]["code"]) == (499, "cancelled")
    assert await balancer.is_idle()


async def test_a_failure_is_told_again(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        status = await begin_background(http)
        request = await agent.take()
        await request.fail(EngineFailed("it broke"))
        status = await status_of(http, status["id"])
        assert (status["state"], status["error"]["code"], status["response"]) == ("failed", "engine_failed", None)
        answer = await http.get(status["stream_url"])
        assert (answer.status_code, answer.json()["error"]["message"]) == (500, "it broke")


async def test_the_estimated_wait(balancer: HttpBalancer, agent: HandAgent) -> None:
    await agent.pool.renew(agent.agent_id, lease_ms=60_000, snapshot={"rate": 100})
    async with balancer.http() as http:
        first = await begin_background(http)
        assert (first["state"], first["position"], first["estimated_wait_ms"]) == ("assigned", None, None)
        await begin_background(http)
        third = await begin_background(http)
        assert third["position"] == 1
        assert 2_000 <= third["estimated_wait_ms"] <= 4_000, "about 256 + 9 tokens at 100 a second"
        for _ in range(3):
            await (await agent.take()).finish()


@pytest.mark.parametrize("service", ["inference", "openai"])
async def test_where_a_background_request_is_can_be_asked_where_it_was_sent(
    balancer: HttpBalancer, agent: HandAgent, service: str
) -> None:
    async with balancer.http(service) as http:
        sent = await http.post("/v1/chat/completions", json=chat(background=True))
        assert sent.status_code == 202
        request = await agent.take()
        await request.say("hi")
        await request.finish()
        assert (await http.get(sent.headers["location"])).json()["state"] == "done"
        assert "data: [DONE]" in (await http.get(f"{sent.headers['location']}/stream")).text
        assert (await http.post(f"{sent.headers['location']}/cancel")).json()["state"] == "done"
