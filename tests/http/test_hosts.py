"""DNS rebinding: a page whose name leads to this machine is of one origin with a service; its `Host` gives it away."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import click
import httpx
import pytest
from balancer_process import StartBalancer
from http_harness import HttpBalancer, NewBalancer
from litestar import Litestar
from litestar.types import Receive, Scope, Send
from native_harness import SOCKET
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from api.hosts import Hosts, guard_hosts, is_known_host
from api.sockets import bind
from paddler.clock import SystemClock
from paddler.host_options import HOST
from paddler.settings import Address
from paddler.store.client import Store
from paddler.tenants.keys import ApiKeys
from paddler.tenants.ring import KeyRing

pytestmark = pytest.mark.anyio

EVIL = "evil.example:8061"
SERVICES = pytest.mark.parametrize("service", ["inference", "openai", "management"])


def rebound(host: str) -> dict[str, str]:
    """What a browser sends for a page of `http://<host>` that calls its own address."""
    return {"host": host, "origin": f"http://{host}"}


@SERVICES
async def test_a_page_that_has_rebound_its_name(balancer: HttpBalancer, service: str) -> None:
    async with balancer.http(service) as http:
        for method, path in (("GET", "/health"), ("GET", "/nowhere"), ("POST", "/v1/files"), ("OPTIONS", "/health")):
            answer = await http.request(method, path, headers=rebound(EVIL))
            assert (answer.status_code, answer.json()["error"]["code"]) == (421, "host_not_allowed")
            assert "evil.example" in answer.json()["error"]["message"]
            assert "--allowed-host" in answer.json()["error"]["message"]
            assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_each_protocol_hears_it_in_its_own_form(balancer: HttpBalancer) -> None:
    async with balancer.http() as http:
        anthropic = await http.post("/v1/messages", json={}, headers=rebound(EVIL))
        assert (anthropic.status_code, anthropic.json()["type"]) == (421, "error")
        native = await http.post("/api/v1/continue_from_raw_prompt", json={}, headers=rebound(EVIL))
        assert (native.status_code, native.headers["content-type"]) == (421, "text/plain; charset=utf-8")
        assert "--allowed-host" in native.text


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "panel.localhost", "127.0.0.1", "[::1]:8061", "192.0.2.1:80"]
)
async def test_this_machine_by_its_names_and_addresses(balancer: HttpBalancer, host: str) -> None:
    """The port is not looked at: a tunnel has another one."""
    async with balancer.http() as http:
        assert (await http.get("/v1/models", headers=rebound(host))).status_code == 200


async def test_names_that_a_flag_allows(new_balancer: NewBalancer) -> None:
    balancer = await new_balancer(allowed_hosts=("llm.example.org", ".dev.example"))
    known = ["LLM.example.org:443", "llm.example.org.", "dev.example", "a.b.dev.example"]
    async with balancer.http() as http:
        for host in [*known, "x.llm.example.org", "adev.example"]:
            answer = await http.get("/health", headers={"host": host})
            assert answer.status_code == (200 if host in known else 421), host


async def test_a_socket_of_such_a_page(new_balancer: NewBalancer) -> None:
    balancer = await new_balancer(allowed_hosts=("llm.example.org",))
    address = httpx.URL(balancer.url())

    async def opened_as(host: str) -> None:
        url = f"ws://{host}:{address.port}{SOCKET}"
        async with connect(
            url,
            origin=Origin(f"http://{host}:{address.port}"),
            host=address.host,
            port=address.port,
            proxy=None,
        ) as sock:
            await sock.send("{")
            assert "400" in str(await sock.recv())

    await opened_as("llm.example.org")
    with pytest.raises(InvalidStatus) as refused:
        await opened_as("evil.example")
    assert refused.value.response.status_code == 421


async def test_where_a_key_is_needed_any_name_will_do(balancer: HttpBalancer) -> None:
    """A page has none, and what is behind a proxy then need not be told its names."""
    new = await balancer.new_key("alice")
    async with balancer.http(key=new.secret) as http:
        assert (await http.get("/v1/models", headers={"host": "llm.example.org"})).status_code == 200
        http.headers.pop("authorization")
        assert (await http.get("/v1/models", headers=rebound(EVIL))).status_code == 401


async def test_who_comes_by_a_name_before_the_keys_are_read_waits(store: Store) -> None:
    """Or each start of a balancer behind a proxy would refuse who has a key."""
    clock = SystemClock()
    keys = ApiKeys(store, clock)
    ring = KeyRing(keys, clock)
    reached: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def ask() -> int:
        transport = httpx.ASGITransport(cast(Any, Hosts(app, ring, ())))
        async with httpx.AsyncClient(transport=transport, base_url="http://llm.example.org") as http:
            return (await http.get("/v1/models")).status_code

    await keys.create("alice")
    status, _ = await asyncio.gather(ask(), ring.refresh_once())
    assert (status, reached) == (200, ["/v1/models"])


async def test_the_balancers_flag_and_its_own_address(start: StartBalancer, store: Store) -> None:
    balancer = await start(store, "--management-addr", "localhost:0", "--allowed-host", "llm.example.org")
    for service in ("inference", "management"):
        async with balancer.http(service) as http:
            statuses = [
                (await http.get("/health", headers={"host": host})).status_code
                for host in ("llm.example.org", "localhost", "evil.example")
            ]
            assert statuses == [200, 200, 421]


@pytest.mark.parametrize(
    ("host", "allowed", "is_guarded"),
    [("127.0.0.1", (), True), ("0.0.0.0", (), False), ("0.0.0.0", ("llm.example.org",), True)],
)
def test_it_guards_loopback_addresses_and_where_names_are_said(
    host: str, allowed: tuple[str, ...], is_guarded: bool
) -> None:
    """Elsewhere a key is needed; or the operator has said --insecure, and who knows by what names others call it."""
    with bind("--inference-addr", Address(host, 0)) as listener:
        app = guard_hosts(Litestar(openapi_config=None, logging_config=None), listener, allowed, ring=None, own=host)
    assert isinstance(app.asgi_handler, Hosts) is is_guarded


async def test_an_open_balancer_that_is_told_its_names(start: StartBalancer, store: Store) -> None:
    """As in a container whose ports are published on its host's loopback address."""
    flags = [part for name in ("management", "inference") for part in (f"--{name}-addr", "0.0.0.0:0")]
    balancer = await start(store, *flags, "--insecure", "--allowed-host", "balancer")
    for service in ("inference", "management"):
        async with balancer.http(service) as http:
            statuses = [
                (await http.get("/health", headers={"host": host})).status_code
                for host in ("balancer:8060", "127.0.0.1", "evil.example")
            ]
            assert statuses == [200, 200, 421]


@pytest.mark.parametrize(
    "value",
    [b"", b"evil.example", b"localhost.evil.example", b"127.0.0.1.evil.example", b"[evil]", b"a b", b":80", b"\xff"],
)
def test_what_is_no_name_of_this_machine(value: bytes) -> None:
    assert not is_known_host(value, ["llm.example.org"])


@pytest.mark.parametrize(
    ("given", "kept"), [("LLM.Example.org", "llm.example.org"), (".dev.example.", ".dev.example"), ("a_b", "a_b")]
)
def test_names_that_the_flag_takes(given: str, kept: str) -> None:
    assert HOST.convert(given, None, None) == kept


@pytest.mark.parametrize("given", ["", "*", "https://example.org", "example.org:80", "a..b", "-a", "[::1]", "a b"])
def test_what_is_no_host_name(given: str) -> None:
    with pytest.raises(click.BadParameter, match="no host name, such as"):
        HOST.convert(given, None, None)
