"""A Redis that Sentinel looks after: found by asking it, and found again when another server has taken over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from secure_servers import Certificates, Pair, Sentinel, TlsRedis, free_port

from paddler.store.client import TROUBLE, Store, connect, connection_pool
from paddler.store.location import with_access
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300), pytest.mark.xdist_group("secure sentinel")]


@pytest.fixture
async def pair(valkey: RedisServer, tmp_path: Path) -> AsyncIterator[Pair]:
    pair = await asyncio.to_thread(Pair, valkey.binary, tmp_path)
    yield pair
    await asyncio.to_thread(pair.close)


async def _works(store: Store) -> bool:
    try:
        await store.pool("default").follow("someone", lease_ms=1000)
        return await store.redis.ping()
    except TROUBLE:
        return False


async def _role(store: Store) -> bytes:
    return (await store.pipe.call("ROLE"))[0]


async def test_every_way_into_redis_follows_a_failover(pair: Pair, prefix: str) -> None:
    store = connect(pair.url, prefix)
    pool = connection_pool(pair.url, timeout_s=5.0, retries=3, max_connections=2)
    arq = ArqRedis(connection_pool=pool)
    assert await _works(store)
    await store.redis.set(f"{prefix}:kept", "1", ex=600)
    await arq.set(f"{prefix}:by-arq", "1", ex=600)
    await wait_until(lambda: pair.replica_has(f"{prefix}:by-arq"), timeout_s=30, what="the replica has both")

    pair.primary.kill()
    await wait_until(lambda: _works(store), timeout_s=120, poll_s=0.1, what="the replica is found")
    assert await store.redis.get(f"{prefix}:kept") == b"1"
    assert await store.redis.info("server") is not None
    assert (await store.redis.info("server"))["tcp_port"] == pair.ports[1]
    assert await _role(store) == b"master"
    await wait_until(lambda: _arq_works(arq, prefix), timeout_s=30, poll_s=0.1, what="arq finds it, too")

    # Who comes back takes itself for a primary until it is told otherwise, and nobody goes back to it.
    await asyncio.to_thread(pair.primary.start)
    late = connect(pair.url, prefix)
    assert await _works(late)
    assert (await late.redis.info("server"))["tcp_port"] == pair.ports[1]
    for one in (store, late):
        await one.close()
    await arq.aclose(close_connection_pool=True)


async def _arq_works(arq: ArqRedis, prefix: str) -> bool:
    try:
        return await arq.get(f"{prefix}:by-arq") == b"1"
    except TROUBLE:
        return False


async def test_a_primary_that_steps_down_alive_is_left(pair: Pair, prefix: str) -> None:
    """SENTINEL FAILOVER, as for maintenance: nobody dies, and connections to the old primary must not be used on."""
    store = connect(pair.url, prefix)
    assert await _works(store)
    await asyncio.to_thread(pair.sentinel.fail_over)

    async def has_moved() -> bool:
        try:
            return (await store.redis.info("server"))["tcp_port"] == pair.ports[1] and await _role(store) == b"master"
        except TROUBLE:
            return False

    await wait_until(has_moved, timeout_s=60, poll_s=0.1, what="both clients are at the new primary")
    assert await _works(store)
    await store.close()


async def test_sentinels_that_do_not_help(pair: Pair, prefix: str) -> None:
    """The next one is asked; when none helps, the error says what each of them said."""
    dead = free_port()
    behind = connect(pair.url.replace("127.0.0.1:", f"127.0.0.1:{dead},127.0.0.1:"), prefix)
    assert await _works(behind)
    await behind.close()
    wrong = connect(pair.url.replace("/main/", "/other/").replace("//", f"//127.0.0.1:{dead},", 1), prefix)
    with pytest.raises(
        TROUBLE, match=f"no Sentinel tells the primary of 'other': 127.0.0.1:{dead}: .*; .* knows no service"
    ):
        await wrong.pipe.call("PING")
    await wrong.close()


async def test_sentinels_by_tls(tls_redis: TlsRedis, certificates: Certificates, tmp_path: Path, prefix: str) -> None:
    """They ask for a certificate of their clients, as Redis does, and name it by its address."""
    sentinel = Sentinel(tls_redis.binary, tmp_path, tls_redis.port, certificates=certificates)
    try:
        url = with_access(
            f"rediss+sentinel://localhost:{sentinel.port}/main/0",
            tls_ca=certificates.ca,
            tls_cert=certificates.client,
            tls_key=certificates.client_key,
        )
        strict, store = connect(url, prefix), connect(f"{url}&ssl_check_hostname=no", prefix)
        await wait_until(lambda: _works(store), timeout_s=30, poll_s=0.1, what="the server is found")
        with pytest.raises(TROUBLE, match=r"IP address mismatch|certificate is not valid for"):
            await strict.pipe.call("PING")
        for one in (strict, store):
            await one.close()
    finally:
        await asyncio.to_thread(sentinel.close)
