"""What an agent shares: the fleet's secret, its door for others, and which settings cannot be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from paddler.clock import SystemClock
from paddler.kv_flags import KvSettings
from paddler.settings import Address
from paddler.store.client import Store, connect
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from workers.agent.tiers.sharing import CannotShare, Sharing

pytestmark = pytest.mark.anyio

StartSharing = Callable[..., Awaitable[Sharing]]
DOOR = KvSettings(addr=Address("127.0.0.1", 0), grace_ms=60_000)
NAME = b"n" * 16


@pytest.fixture
async def start(store: Store) -> AsyncIterator[StartSharing]:
    started: list[Sharing] = []

    async def build(settings: KvSettings, other: Store | None = None) -> Sharing:
        used = other or store
        sharing = Sharing(settings, used, used.pool("default"), SystemClock())
        await sharing.start()
        started.append(sharing)
        return sharing

    yield build
    for sharing in started:
        await sharing.close()
    await store.redis.delete(store.pool("default").keys.kv_secret())


async def read(sharing: Sharing, *peers: str) -> list[bytes]:
    (tier,) = (one for one in sharing.tiers() if one.name == "peer")
    return await asyncio.to_thread(lambda: tier.read([NAME], peers=peers, deadline_s=10.0))


async def test_agents_of_a_fleet_give_each_other_what_they_have(start: StartSharing) -> None:
    one, other = await start(DOOR), await start(DOOR)
    assert one.secret == other.secret
    assert other.fields() == {"kv_url": other.url}
    assert other.most_peers == 3
    assert await read(one, other.url) == [], "it has nothing to give yet"
    other.lends({NAME: b"block"}.get)
    assert await read(one, other.url) == [b"block"]
    restore = one.fields()["restore"]
    assert isinstance(restore, float)
    assert restore > 0
    await other.close()
    assert await read(one, other.url) == []


async def test_the_tiers_of_each_keeper_are_its_own(
    start: StartSharing, kv_server: RedisServer, tmp_path: Path
) -> None:
    settings = replace(DOOR, disk=tmp_path, disk_bytes=1 << 20, url=kv_server.url)
    sharing = await start(settings)
    assert sharing.is_shared
    assert sharing.fields()["kv_shared"] == 1
    first, second = sharing.tiers(), sharing.tiers()
    assert [tier.name for tier in first] == ["disk", "peer", "shared"]
    assert all(one is not other for one, other in zip(first, second, strict=True))
    for tier in (*first, *second):
        tier.close()
    assert (await start(KvSettings(disk=tmp_path, disk_bytes=1 << 20))).most_peers == 0


@pytest.mark.parametrize(
    ("host", "advertise", "url"),
    [
        ("0.0.0.0", None, "http://127.0.0.1:{}"),
        ("::1", None, "http://[::1]:{}"),
        ("127.0.0.1", "http://agent-7:9000", "http://agent-7:9000"),
    ],
)
async def test_others_are_told_an_address_that_they_can_reach(
    start: StartSharing, host: str, advertise: str | None, url: str
) -> None:
    sharing = await start(replace(DOOR, addr=Address(host, 0), advertise=advertise))
    assert sharing.url == url.format(sharing.url.rpartition(":")[2])


async def test_a_port_that_is_taken(start: StartSharing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        with pytest.raises(CannotShare, match=f"--kv-addr 127.0.0.1:{port}: Address already in use"):
            await start(replace(DOOR, addr=Address("127.0.0.1", port)))


async def test_the_queues_server_by_another_name(start: StartSharing, kv_server: RedisServer) -> None:
    server = RedisServer(kv_server.binary)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    server.arguments = {"port": str(port), "bind": "127.0.0.1"}
    server.start()
    store = connect(server.url)
    try:
        with pytest.raises(CannotShare, match="is the server of the queue, by another name"):
            await start(KvSettings(url=f"redis://127.0.0.1:{port}/3"), store)
    finally:
        await store.close()
        server.close()


async def test_a_store_that_is_away_is_no_reason_not_to_start(start: StartSharing) -> None:
    sharing = await start(KvSettings(url="redis://127.0.0.1:1"))
    assert not sharing.is_shared
    assert sharing.fields() == {"kv_shared": 0}


async def test_who_hands_over_stays_until_others_have_come(start: StartSharing) -> None:
    """As many as there were requests, and no longer than the grace time."""
    one, other = await start(DOOR), await start(DOOR)
    other.lends({NAME: b"block"}.get)
    since, hurry = SystemClock().monotonic(), asyncio.Event()
    await other.stay(0, since, hurry)
    staying: asyncio.Task[Any] = asyncio.create_task(other.stay(2, since, hurry))
    assert await read(one, other.url) == [b"block"]
    assert not staying.done()
    assert await read(one, other.url) == [b"block"]
    await wait_until(staying.done)
    hurried = asyncio.create_task(other.stay(9, since, hurry))
    hurry.set()
    await wait_until(hurried.done)
    await other.stay(9, since - 60, asyncio.Event())
