"""The tier that a fleet shares, on real servers: full, away, stopped, the queue's own, with TLS."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from lacking import lacks
from secure_servers import Certificates, TlsRedis, make_certificates
from stalled import says
from tier_calls import FINGERPRINT, PACKER, SECRET, tokens_of, write_all

from paddler.clock import SystemClock
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from workers.agent.saved_states import BLOCK
from workers.agent.tiers.contract import TierUnavailable
from workers.agent.tiers.keeper import StateKeeper
from workers.agent.tiers.restoring import RestoreSpeed
from workers.agent.tiers.shared import KEEP_S, SharedTier, key_of

OpenTier = Callable[..., SharedTier]


@pytest.fixture
def open_tier() -> Iterator[OpenTier]:
    tiers: list[SharedTier] = []

    def build(url: str, queue_id: str = "", speed: RestoreSpeed | None = None) -> SharedTier:
        tiers.append(SharedTier(url, SystemClock(), queue_id=queue_id, speed=speed or RestoreSpeed()))
        return tiers[-1]

    yield build
    for tier in tiers:
        tier.close()


def client_of(server: RedisServer) -> Any:
    return redis.Redis.from_url(server.url)  # pyright: ignore[reportUnknownMemberType]


def new_names(num: int) -> list[bytes]:
    return [secrets.token_bytes(16) for _ in range(num)]


read_all = partial(SharedTier.read, peers=(), deadline_s=5.0)


def test_what_is_written_is_read_up_to_the_first_that_is_missing(kv_server: RedisServer, open_tier: OpenTier) -> None:
    speed = RestoreSpeed()
    tier = open_tier(kv_server.url, speed=speed)
    names = new_names(6)
    blocks = [secrets.token_bytes(3 << 20) for _ in names]
    assert read_all(tier, names) == []
    assert speed.tokens_per_s == 0
    for name, block in zip(names, blocks, strict=True):
        tier.write(name, bytearray(block), num_tokens=BLOCK, is_pinned=False)
    assert read_all(tier, names) == blocks, "more than one batch"
    assert speed.tokens_per_s > 0
    client_of(kv_server).delete(key_of(names[4]))
    assert read_all(tier, names) == blocks[:4]
    assert read_all(tier, names[4:]) == []
    client_of(kv_server).flushall()


def test_a_block_is_written_once_and_a_tail_each_time(kv_server: RedisServer, open_tier: OpenTier) -> None:
    tier, (block, tail) = open_tier(kv_server.url), new_names(2)
    client = client_of(kv_server)
    for text in (b"first", b"again"):
        tier.write(block, text, num_tokens=BLOCK, is_pinned=True)
        tier.write(tail, text, num_tokens=BLOCK - 1, is_pinned=False)
        for name in (block, tail):
            assert KEEP_S - 5 <= client.ttl(key_of(name)) <= KEEP_S
            client.expire(key_of(name), 60)
    assert read_all(tier, [block, tail]) == [b"first", b"again"]
    assert client.ttl(key_of(block)) > KEEP_S - 5, "it was of use"


def test_what_does_not_open_makes_room_for_what_does(kv_server: RedisServer, open_tier: OpenTier) -> None:
    tier, (damaged, empty) = open_tier(kv_server.url), new_names(2)
    client = client_of(kv_server)
    client.set(key_of(damaged), b"flipped")
    client.set(key_of(empty), b"")
    tier.drop(damaged)
    for name in (damaged, empty):
        tier.write(name, b"right", num_tokens=BLOCK, is_pinned=False)
    assert read_all(tier, [damaged, empty]) == [b"right", b"right"]
    client.flushall()


@pytest.mark.anyio
async def test_a_block_that_is_not_right_goes_and_the_right_one_comes(
    kv_server: RedisServer, open_tier: OpenTier
) -> None:
    client, tokens = client_of(kv_server), tokens_of(1, BLOCK)
    keeper = StateKeeper([open_tier(kv_server.url)], PACKER, SECRET, lambda: FINGERPRINT, SystemClock())
    [block] = write_all(keeper, tokens)
    key = key_of(block.name)
    right = client.get(key)
    client.setrange(key, 500, bytes([right[500] ^ 1]))

    async def num_found() -> int:
        keeper.fetch("r", "ann", tokens, 0, peers=(), deadline_s=10)
        while (loaded := keeper.fetched("r")) is None:
            await SystemClock().sleep(0.005)
        return len(loaded)

    assert await num_found() == 0
    await wait_until(lambda: not client.exists(key))
    write_all(keeper, tokens)
    assert await num_found() == 1
    keeper.close()


def test_a_store_that_is_full_and_forgets_nothing(open_tier: OpenTier, kv_server: RedisServer) -> None:
    server = RedisServer(kv_server.binary)
    server.arguments = {"maxmemory": "3mb", "maxmemory-policy": "noeviction", "appendonly": "no"}
    server.start()
    try:
        tier = open_tier(server.url)

        def fill() -> None:
            for name in new_names(8):
                tier.write(name, bytes(1 << 20), num_tokens=BLOCK, is_pinned=False)

        with pytest.raises(TierUnavailable, match=r"OOM|used memory"):
            fill()
    finally:
        server.close()


def test_a_store_that_was_killed_is_used_again_once_it_is_back(open_tier: OpenTier, kv_server: RedisServer) -> None:
    server = RedisServer(kv_server.binary)
    server.start()
    try:
        tier, (name,) = open_tier(server.url), new_names(1)
        tier.write(name, b"block", num_tokens=BLOCK, is_pinned=False)
        server.kill()
        with pytest.raises(TierUnavailable):
            read_all(tier, [name])
        with pytest.raises(TierUnavailable):
            tier.write(name, b"block", num_tokens=BLOCK, is_pinned=False)
        server.start()
        tier.write(name, b"block", num_tokens=BLOCK, is_pinned=False)
        assert read_all(tier, [name]) == [b"block"]
    finally:
        server.close()


@pytest.mark.parametrize("said", [b"", b"$6000\r\nrun_id:"])
def test_a_store_that_says_nothing_costs_no_more_than_the_deadline(open_tier: OpenTier, said: bytes) -> None:
    """Its test is that this ends: the server would keep the connection for ever."""
    with says(said) as port:
        tier = open_tier(f"redis://127.0.0.1:{port}")
        with pytest.raises(TierUnavailable, match=r"Timeout|longer"):
            tier.read(new_names(1), peers=(), deadline_s=0.1)


def test_what_came_whole_before_the_deadline_is_of_use(kv_server: RedisServer, open_tier: OpenTier) -> None:
    """By a clock that stands still until the first batch has come."""

    class Clock(SystemClock):
        num_asked = 0

        def monotonic(self) -> float:
            self.num_asked += 1
            return 1000.0 if self.num_asked > 15 else 0.0

    names = new_names(3)
    blocks = [secrets.token_bytes(12 << 20) for _ in names]
    writer = open_tier(kv_server.url)
    for name, block in zip(names, blocks, strict=True):
        writer.write(name, block, num_tokens=BLOCK, is_pinned=False)
    tier = SharedTier(kv_server.url, Clock(), queue_id="", speed=RestoreSpeed())
    found = read_all(tier, names)
    tier.close()
    assert found == blocks[: len(found)]
    assert 1 <= len(found) < 3
    client_of(kv_server).flushall()


def test_the_queues_own_server_is_never_used(kv_server: RedisServer, open_tier: OpenTier) -> None:
    run_id = client_of(kv_server).info("server")["run_id"]
    tier, (name,) = open_tier(kv_server.url, queue_id=run_id), new_names(1)
    assert not tier.look()
    with pytest.raises(TierUnavailable, match="the server of the queue"):
        tier.write(name, b"block", num_tokens=BLOCK, is_pinned=False)
    with pytest.raises(TierUnavailable, match="the server of the queue"):
        read_all(tier, [name])
    assert client_of(kv_server).exists(key_of(name)) == 0
    assert open_tier(kv_server.url, queue_id="another").look()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_by_tls_with_a_certificate_and_a_password_file(
    open_tier: OpenTier, certificates: Certificates, tmp_path: Path
) -> None:
    binary = shutil.which("redis-server")
    if binary is None:
        lacks("redis-server is not installed: apt-get install redis-server")
    server = TlsRedis(binary, certificates)
    server.start()
    try:
        client = client_of(server)
        client.acl_setuser("kv", enabled=True, passwords=["+secret"], commands=["+@all"], keys=["paddler:kv:*"])
        (tmp_path / "password").write_text("secret\n")
        access = f"ssl_certfile={certificates.client}&ssl_keyfile={certificates.client_key}"
        base = f"rediss://kv@localhost:{server.port}/0?password_file={tmp_path / 'password'}&{access}"
        tier, (name,) = open_tier(f"{base}&ssl_ca_certs={certificates.ca}"), new_names(1)
        tier.write(name, b"block", num_tokens=BLOCK, is_pinned=False)
        assert read_all(tier, [name]) == [b"block"]
        with pytest.raises(TierUnavailable, match="certificate"):
            read_all(open_tier(base), [name])
        (tmp_path / "password").write_text("wrong\n")
        with pytest.raises(TierUnavailable, match="password"):
            read_all(open_tier(f"{base}&ssl_ca_certs={certificates.ca}"), [name])
    finally:
        server.close()
