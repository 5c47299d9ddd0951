"""Pages in browsers: what a preflight and an answer tell them, on each service, for each kind of answer."""

from __future__ import annotations

import asyncio

import click
import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, NewBalancer, chat
from native_harness import SOCKET, management
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from paddler.cors_options import ORIGIN

pytestmark = pytest.mark.anyio

PAGE = "http://127.0.0.1:8062"
OTHER = "https://example.org"
SERVICES = pytest.mark.parametrize("service", ["inference", "openai", "management"])


@pytest.fixture
async def open_balancer(new_balancer: NewBalancer) -> HttpBalancer:
    return await new_balancer(cors=(PAGE,))


def preflight(origin: str, method: str = "POST", headers: str = "content-type") -> dict[str, str]:
    asked = {"access-control-request-method": method, "access-control-request-headers": headers}
    return {"origin": origin} | asked


def names(answer: httpx.Response, header: str) -> set[str]:
    return {name.strip().lower() for name in answer.headers[header].split(",")}


@SERVICES
async def test_a_preflight_of_a_page_that_is_allowed(open_balancer: HttpBalancer, service: str) -> None:
    async with open_balancer.http(service) as http:
        answer = await http.options("/v1/anything", headers=preflight(PAGE))
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-max-age"] == "3600"
    assert names(answer, "access-control-allow-methods") >= {"delete", "get", "post", "put", "options"}
    allowed = names(answer, "access-control-allow-headers")
    assert allowed >= {"accept", "authorization", "content-type", "last-event-id", "x-api-key", "idempotency-key"}
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers


@SERVICES
async def test_a_preflight_of_another_page(open_balancer: HttpBalancer, service: str) -> None:
    async with open_balancer.http(service) as http:
        for origin in (OTHER, "null", f"{PAGE}0", PAGE.replace("http", "https")):
            answer = await http.options("/health", headers=preflight(origin))
            assert answer.status_code == 403
            assert not [name for name in answer.headers if name.startswith("access-control-")]
            assert "cors-allowed-host" in answer.json()["error"]["message"]


@SERVICES
async def test_every_kind_of_answer_has_the_headers(open_balancer: HttpBalancer, service: str) -> None:
    """What Litestar answers, what it finds no route or method for, and what is around it."""
    async with open_balancer.http(service) as http:
        answers = [
            await http.get("/health", headers={"origin": PAGE}),
            await http.get("/nowhere", headers={"origin": PAGE}),
            await http.delete("/health", headers={"origin": PAGE}),
            await http.get("/openapi.json", headers={"origin": PAGE.upper().replace("HTTP", "http")}),
        ]
        assert [one.status_code for one in answers] == [200, 404, 405, 200]
        for answer in answers:
            assert answer.headers["access-control-allow-origin"].lower() == PAGE
            exposed = names(answer, "access-control-expose-headers")
            assert exposed >= {"x-request-id", "retry-after", "x-ratelimit-remaining-requests", "etag"}
            assert answer.headers["vary"] == "Origin"
        plain, other = await http.get("/health"), await http.get("/health", headers={"origin": OTHER})
        for answer in (plain, other):
            assert (answer.status_code, answer.headers["vary"]) == (200, "Origin")
            assert "access-control-allow-origin" not in answer.headers


@SERVICES
async def test_a_page_needs_a_key_and_can_read_why_it_was_refused(open_balancer: HttpBalancer, service: str) -> None:
    """Its preflight cannot carry one. What answers tell of a key's limits can be read by it, too."""
    new = await open_balancer.new_key("page", "inference", "management")
    async with open_balancer.http(service) as http:
        assert (await http.options("/openapi.json", headers=preflight(PAGE))).status_code == 204
        refused = await http.get("/nowhere", headers={"origin": PAGE})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PAGE)
        exposed = names(refused, "access-control-expose-headers")
        assert exposed >= {"www-authenticate", "x-paddler-class", "anthropic-ratelimit-tokens-remaining"}
        own = await http.get("/nowhere", headers={"origin": PAGE, "authorization": f"Bearer {new.secret}"})
        assert own.status_code == 404


async def test_a_stream_has_them_too(open_balancer: HttpBalancer, store: object) -> None:
    agent = HandAgent(open_balancer.store)
    await agent.register()
    async with open_balancer.http() as http:
        asked = http.post("/v1/chat/completions", json=chat(stream=True), headers={"origin": PAGE})
        asking = asyncio.create_task(asked)
        request = await agent.take()
        await request.say("hello")
        await request.finish()
        answer = await asking
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["access-control-allow-origin"] == PAGE
        refused = await http.post("/v1/chat/completions", json={"model": "default"}, headers={"origin": PAGE})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (400, PAGE)
    await agent.leave()
    async with (
        open_balancer.http("management") as http,
        http.stream("GET", "/api/v1/agents/stream", headers={"origin": PAGE}) as stream,
    ):
        assert stream.headers["access-control-allow-origin"] == PAGE


async def test_a_page_of_nobody_changes_nothing(open_balancer: HttpBalancer, balancer: HttpBalancer) -> None:
    """A browser sends a POST without a body unasked, whatever the answer lets the page read."""
    for one in (open_balancer, balancer):
        async with one.http("management") as http:
            path = "/api/v1/agent/agent-none/drain"
            refused = await http.post(path, headers={"origin": OTHER})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
            assert (await http.post(path)).status_code == 404, "curl sends no origin"
            assert (await http.post(path, headers={"origin": one.url("management")})).status_code == 404, "its own page"
            assert (await http.get("/health", headers={"origin": OTHER})).status_code == 200
    async with open_balancer.http("management") as http:
        assert (await http.post(path, headers={"origin": PAGE})).status_code == 404


async def test_a_socket_of_a_page_that_is_allowed(open_balancer: HttpBalancer) -> None:
    url = open_balancer.url().replace("http", "ws") + SOCKET
    async with connect(url, origin=PAGE, proxy=None) as sock:  # pyright: ignore[reportArgumentType]  # a NewType
        await sock.send("{")
        assert "400" in str(await sock.recv())
    with pytest.raises(InvalidStatus):
        await connect(url, origin=OTHER, proxy=None)  # pyright: ignore[reportArgumentType]


async def test_the_official_client_is_no_page(open_balancer: HttpBalancer) -> None:
    async with management(open_balancer.url("management")) as client:
        assert await client.get_health() == "OK"


async def test_a_page_on_the_internet_may_be_let_into_a_private_network(open_balancer: HttpBalancer) -> None:
    asked = preflight(PAGE) | {"access-control-request-private-network": "true"}
    async with open_balancer.http() as http:
        answer = await http.options("/v1/models", headers=asked)
    assert answer.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize("origin", [PAGE, OTHER, "http://[::1]:3000", "HTTPS://Example.org"])
def test_origins_that_a_flag_takes(origin: str) -> None:
    assert ORIGIN.convert(origin, None, None) == origin.lower()


@pytest.mark.parametrize(
    "origin",
    ["*", "example.org", "https://example.org/", "https://example.org/app", "ftp://x", "https://a@b", "http://x:y", ""],
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(click.BadParameter, match="no origin, such as"):
        ORIGIN.convert(origin, None, None)
