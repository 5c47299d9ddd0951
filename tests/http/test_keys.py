"""API keys on every service and in every protocol: who is let in, and what is said to who is not."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from anthropic import AsyncAnthropic
from anthropic import AuthenticationError as AnthropicRefused
from http_harness import HandAgent, HttpBalancer, chat
from native_harness import SOCKET, params
from openai import AsyncOpenAI, AuthenticationError, PermissionDeniedError
from openapi_checks import document_of
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from api.access.gate import FREE
from paddler.agent_access import PATH as AGENT_ACCESS
from paddler.batches.batches import Batches
from paddler.clock import SystemClock
from paddler.store.client import Store
from paddler.store.keys import FileKeys, batch_jobs_key
from paddler.tenants.keys import ApiKeys
from paddler.tenants.records import Scope
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
RAW = "/api/v1/continue_from_raw_prompt"
MESSAGE = {"model": "default", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def answered(agent: HandAgent, asking: Awaitable[httpx.Response]) -> httpx.Response:
    """What the balancer answers once the agent has said hello."""
    task = asyncio.ensure_future(asking)
    request = await agent.take()
    await request.say("hello")
    await request.finish()
    return await task


async def test_without_any_key_everybody_is_let_in(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        assert (await answered(agent, http.post(CHAT, json=chat()))).status_code == 200
        assert (await answered(agent, http.post(CHAT, json=chat(), headers=bearer("anything")))).status_code == 200


async def test_a_key_is_good_as_soon_as_it_is_made(balancer: HttpBalancer, store: Store) -> None:
    """At a balancer that knows others, and reads of changes only now and then."""
    keys = ApiKeys(store, SystemClock())
    await keys.create("alice")
    await balancer.tenants.ring.refresh_once()
    async with balancer.http() as http:
        for number in range(3):
            new = await keys.create(f"bob{number}")
            asked = await asyncio.gather(*(http.get("/v1/models", headers=bearer(new.secret)) for _ in range(5)))
            assert [one.status_code for one in asked] == [200] * 5


REFUSED = [
    ("inference", "POST", CHAT),
    ("inference", "GET", "/v1/models"),
    ("inference", "GET", "/v1/files"),
    ("inference", "GET", "/v1/requests/default.aaaaaaaaaaaaaaaaaaaaaa"),
    ("inference", "POST", "/v1/messages"),
    ("inference", "POST", RAW),
    ("inference", "GET", "/nowhere"),
    ("openai", "POST", "/v1/embeddings"),
    ("management", "GET", "/api/v1/agents"),
    ("management", "GET", "/api/v1/agents/stream"),
    ("management", "POST", "/api/v1/keys"),
    ("management", "GET", "/metrics"),
]


@pytest.mark.parametrize(("service", "method", "path"), REFUSED)
@pytest.mark.parametrize("given", ["nothing", "nonsense", "another secret"])
async def test_who_has_no_key_is_told_so_in_the_words_of_the_protocol(
    balancer: HttpBalancer, service: str, method: str, path: str, given: str
) -> None:
    secret = (await balancer.new_key("alice", "inference", "management")).secret
    sent = {"nothing": {}, "nonsense": bearer("sk-1234"), "another secret": bearer(secret[:-43] + "x" * 43)}[given]
    async with balancer.http(service) as http:
        answer = await http.request(method, path, json=None if method == "GET" else chat(), headers=sent)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="paddler"'
    if path == "/v1/messages":
        assert answer.json()["type"] == "error"
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.headers["request-id"] == answer.json()["request_id"]
    elif path == RAW:
        assert answer.headers["content-type"].startswith("text/plain")
        assert "API key" in answer.text
    else:
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert secret[-43:] not in answer.text


@pytest.mark.parametrize("service", ["inference", "openai", "management"])
async def test_every_route_needs_a_key_of_its_service(balancer: HttpBalancer, service: str) -> None:
    """Whoever adds a route need not think of it."""
    scopes: tuple[Scope, ...] = ("inference" if service == "management" else "management", "agent")
    wrong = {scope: bearer((await balancer.new_key(f"of-{scope}", scope)).secret) for scope in scopes}
    async with balancer.http(service) as http:
        operations = (await document_of(balancer, service)).operations()
        guarded = [(method, re.sub(r"{[^}]*}", "x", path)) for path, method, _ in operations if path not in FREE]
        assert len(guarded) > 30
        for method, path in guarded:
            assert (await http.request(method, path)).status_code == 401, f"{method} {path}"
            for scope, headers in wrong.items():
                if (scope, path) != ("agent", AGENT_ACCESS):
                    assert (await http.request(method, path, headers=headers)).status_code == 403, f"{method} {path}"


@pytest.mark.parametrize("service", ["inference", "openai", "management"])
async def test_probes_and_the_document_need_no_key(balancer: HttpBalancer, service: str) -> None:
    await balancer.new_key("alice")
    async with balancer.http(service) as http:
        assert (await http.get("/health")).text == "OK"
        assert (await http.get("/openapi.json")).json()["components"]["securitySchemes"]
        assert (await http.options("/v1/models")).status_code != 401


async def test_the_official_clients_send_a_key_each_in_its_way(balancer: HttpBalancer, agent: HandAgent) -> None:
    secret = (await balancer.new_key("alice")).secret
    url = balancer.url()
    async with (
        AsyncOpenAI(base_url=f"{url}/v1", api_key=secret, max_retries=0) as openai,
        AsyncAnthropic(base_url=url, api_key=secret, max_retries=0) as anthropic,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-none", max_retries=0) as stranger,
        AsyncAnthropic(base_url=url, api_key="sk-none", max_retries=0) as other,
    ):
        asking = asyncio.create_task(openai.chat.completions.create(**chat()))
        await (await agent.take()).finish()
        assert (await asking).object == "chat.completion"
        sending = asyncio.create_task(anthropic.messages.create(**MESSAGE))  # pyright: ignore[reportArgumentType, reportCallIssue]
        await (await agent.take()).finish()
        assert (await sending).type == "message"
        with pytest.raises(AuthenticationError):
            await stranger.models.list()
        with pytest.raises(AnthropicRefused):
            await other.messages.create(**MESSAGE)  # pyright: ignore[reportArgumentType, reportCallIssue]


async def test_each_service_needs_its_scope(balancer: HttpBalancer) -> None:
    user, operator = await balancer.new_key("user"), await balancer.new_key("operator", "management")
    async with (
        balancer.http("management", user.secret) as http,
        AsyncOpenAI(base_url=f"{balancer.url()}/v1", api_key=operator.secret, max_retries=0) as openai,
    ):
        refused = await http.get("/api/v1/agents")
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "insufficient_scope"
        assert 'scope="management"' in refused.headers["www-authenticate"]
        with pytest.raises(PermissionDeniedError, match="`inference`"):
            await openai.models.list()
    async with balancer.http("inference", operator.secret) as http:
        told = await http.post("/v1/messages", json=MESSAGE)
        assert (told.status_code, told.json()["error"]["type"]) == (403, "permission_error")
        assert (await http.post(RAW, json={})).status_code == 403
    async with balancer.http("management", operator.secret) as http:
        assert (await http.get("/api/v1/agents")).json() == {"agents": []}


async def test_a_socket_is_refused_before_it_is_one(balancer: HttpBalancer, agent: HandAgent, store: Store) -> None:
    new = await balancer.new_key("alice")
    url = balancer.url().replace("http", "ws") + SOCKET
    with pytest.raises(InvalidStatus) as refusal:
        await connect(url, proxy=None)
    assert refusal.value.response.status_code == 401
    assert refusal.value.response.headers["www-authenticate"].startswith("Bearer")

    async with connect(url, proxy=None, additional_headers=bearer(new.secret)) as socket:
        message = {"Request": {"id": "1", "request": {"ContinueFromConversationHistory": params("hello")}}}
        await socket.send(json.dumps(message))
        request = await agent.take()
        assert await store.redis.hget(agent.pool.keys.request(request.request_id), "tenant") == b"alice"
        await request.finish()
        while "Done" not in str(await socket.recv()):
            pass
        await ApiKeys(store, SystemClock()).revoke(new.key.id)
        await balancer.tenants.ring.refresh_once()
        message["Request"]["id"] = "2"
        await socket.send(json.dumps(message))
        error = json.loads(await socket.recv())["Error"]
        assert (error["request_id"], error["error"]["code"]) == ("2", 401), "a socket outlives its key by no request"


async def test_a_socket_from_before_the_first_key_needs_one_too(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with connect(balancer.url().replace("http", "ws") + SOCKET, proxy=None) as socket:
        message = {"Request": {"id": "1", "request": {"ContinueFromConversationHistory": params("hello")}}}
        await socket.send(json.dumps(message))
        await (await agent.take()).finish()
        while "Done" not in str(await socket.recv()):
            pass
        await balancer.new_key("alice")
        await socket.send(json.dumps(message))
        error = json.loads(await socket.recv())["Error"]
        assert error["error"]["code"] == 401


@pytest.mark.parametrize("path", ["/api/v1/agents/stream", "/api/v1/pools/default/buffered_requests/stream"])
async def test_an_operators_stream_ends_with_its_key(balancer: HttpBalancer, store: Store, path: str) -> None:
    async with balancer.http("management") as http, http.stream("GET", path) as nobodys:
        assert nobodys.status_code == 200
        new = await balancer.new_key("operator", "management")
        async with http.stream("GET", path, headers=bearer(new.secret)) as own:
            assert own.status_code == 200
            async for _ in nobodys.aiter_raw():
                pass  # it ends: by now everybody needs a key
            await ApiKeys(store, SystemClock()).revoke(new.key.id)
            await balancer.tenants.ring.refresh_once()
            async for _ in own.aiter_raw():
                pass


async def test_a_key_that_is_revoked_anywhere_is_refused_here_soon(balancer: HttpBalancer, store: Store) -> None:
    new, other = await balancer.new_key("alice"), await balancer.new_key("bob")
    async with balancer.http(key=new.secret) as http:
        assert (await http.get("/v1/models")).status_code == 200
        await ApiKeys(store, SystemClock()).revoke(new.key.id)

        async def is_refused() -> bool:
            return (await http.get("/v1/models")).status_code == 401

        await wait_until(is_refused, what="the key is refused")
        assert "revoked" in (await http.get("/v1/models")).text, "who has the secret is told why"
    async with balancer.http(key=other.secret) as http:
        assert (await http.get("/v1/models")).status_code == 200


async def test_rotation_with_and_without_an_overlap_and_expiry(balancer: HttpBalancer, store: Store) -> None:
    keys, first = ApiKeys(store, SystemClock()), await balancer.new_key("alice")
    second = await keys.rotate(first.key.id, overlap_ms=60_000)
    await balancer.tenants.ring.refresh_once()

    async def status(secret: str) -> int:
        async with balancer.http(key=secret) as http:
            return (await http.get("/v1/models")).status_code

    assert [await status(one.secret) for one in (first, second)] == [200, 200]
    third = await keys.rotate(first.key.id)
    await balancer.tenants.ring.refresh_once()
    assert [await status(one.secret) for one in (first, second, third)] == [401, 401, 200]
    brief = await balancer.new_key("brief", expires_ms=1)
    assert await status(brief.secret) == 401


async def test_redis_has_no_secret(balancer: HttpBalancer, store: Store) -> None:
    new = await balancer.new_key("alice")
    secret = new.secret.rpartition("-")[2].encode() if "-" not in new.secret[16:] else new.secret[16:].encode()
    for name in await store.redis.keys(f"{store.prefix}:*"):
        assert secret not in name
        if await store.redis.type(name) == b"hash":
            assert secret not in b"".join((await store.redis.hgetall(name)).values())


Ask = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


async def test_what_is_one_tenants_is_for_another_as_if_it_were_not_there(
    balancer: HttpBalancer, agent: HandAgent
) -> None:
    alice, bob = await balancer.new_key("alice"), await balancer.new_key("bob")
    async with balancer.http(key=alice.secret) as own, balancer.http(key=bob.secret) as other:
        body: dict[str, Any] = {"model": "default", "input": "hello", "background": True}
        made = (await own.post("/v1/responses", json=body)).json()["id"]
        request_id = made.removeprefix("resp_")
        lines = b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "default"}}'
        upload = await own.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", lines)})
        file_id = upload.json()["id"]
        asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "1h"}
        batch_id = (await own.post("/v1/batches", json=asked)).json()["id"]
        secrets: list[Ask] = [
            lambda http: http.get(f"/v1/requests/{request_id}"),
            lambda http: http.get(f"/v1/requests/{request_id}/stream"),
            lambda http: http.post(f"/v1/requests/{request_id}/cancel"),
            lambda http: http.get(f"/v1/responses/{made}"),
            lambda http: http.get(f"/v1/responses/{made}/input_items"),
            lambda http: http.post(f"/v1/responses/{made}/cancel"),
            lambda http: http.delete(f"/v1/responses/{made}"),
            lambda http: http.post("/v1/responses", json=body | {"previous_response_id": made}),
            lambda http: http.get(f"/v1/files/{file_id}"),
            lambda http: http.get(f"/v1/files/{file_id}/content"),
            lambda http: http.delete(f"/v1/files/{file_id}"),
            lambda http: http.get(f"/v1/files?after={file_id}"),
            lambda http: http.post("/v1/batches", json=asked),
            lambda http: http.get(f"/v1/batches/{batch_id}"),
            lambda http: http.post(f"/v1/batches/{batch_id}/cancel"),
            lambda http: http.get(f"/v1/batches?after={batch_id}"),
        ]
        for number, ask in enumerate(secrets):
            answer = await ask(other)
            assert answer.status_code in (400, 404), (number, answer.text)
            assert "alice" not in answer.text
        for path in ("/v1/files", "/v1/batches"):
            assert (await other.get(path)).json()["data"] == []
            assert len((await own.get(path)).json()["data"]) == 1
        request = await agent.take()
        assert request.request_id == request_id, "nothing of this has stopped it"
        await request.finish()
        assert (await own.get(f"/v1/requests/{request_id}")).json()["state"] == "done"
        assert (await own.delete(f"/v1/responses/{made}")).status_code == 200
        await own.post(f"/v1/batches/{batch_id}/cancel")
    await forget_batches(balancer.store)


async def forget_batches(store: Store) -> None:
    """No worker is there to end them."""
    batches = Batches(store, SystemClock())
    for name in await store.redis.hkeys(FileKeys(store.prefix).open_batches()):
        await batches.take(name.decode(), "test", lease_ms=1000)
        await batches.end(name.decode(), "test", lambda batch: batch)
    await store.redis.delete(batch_jobs_key(store.prefix))


async def test_an_idempotency_key_and_a_session_are_each_tenants_own(
    balancer: HttpBalancer, agent: HandAgent, store: Store
) -> None:
    alice, bob = await balancer.new_key("alice"), await balancer.new_key("bob")
    ids: list[str] = []
    for one in (alice, bob, alice):
        async with balancer.http(key=one.secret) as http:
            asking = asyncio.create_task(
                http.post(CHAT, json=chat(), headers={"idempotency-key": "the same", "x-session-id": "one"})
            )
            if len(ids) < 2:
                await (await agent.take()).finish()
            ids.append((await asking).headers["x-paddler-request-id"])
    assert ids[0] == ids[2] != ids[1]


async def test_a_key_has_a_class_and_a_highest_one(balancer: HttpBalancer, agent: HandAgent, store: Store) -> None:
    new = await balancer.new_key("alice", default_class="batch", max_class="normal", weight=2.0)
    found: list[tuple[str | None, str, str]] = []
    async with balancer.http(key=new.secret) as http:
        for asked in (None, "batch", "normal", "interactive"):
            headers = {} if asked is None else {"x-request-class": asked}
            asking = asyncio.create_task(http.post(CHAT, json=chat(), headers=headers))
            request = await agent.take()
            fields = await store.redis.hmget(agent.pool.keys.request(request.request_id), "class", "weight")
            assert float(fields[1]) == 2
            await request.finish()
            found.append((asked, fields[0].decode(), (await asking).headers.get("x-paddler-class", "")))
    assert found == [
        (None, "batch", ""),
        ("batch", "batch", ""),
        ("normal", "normal", ""),
        ("interactive", "normal", "normal"),
    ]
