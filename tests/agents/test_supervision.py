"""A loop that ends by a bug ends its process, loudly; a message of a newer version ends nothing."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from fleet_harness import Fleet
from structlog.testing import capture_logs

from api import serve
from paddler.jobs.gateway import GatewaySettings
from paddler.jobs.inbox import Inbox
from paddler.settings import Address
from paddler.store.client import Store
from paddler.store.keys import inbox_channel
from paddler.testing.waiting import wait_until
from paddler.wire.agent import CancelRequest, Generate, encode_control
from paddler.wire.balancer import Finished, FinishReason

pytestmark = pytest.mark.anyio

ANYWHERE = Address("127.0.0.1", 0)


async def test_a_failed_loop_ends_the_balancer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in review: the task ended and nobody looked; streams had no more repairs and timeouts, or no frames."""

    async def broken(_: Inbox) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Inbox, "run_sweep_once", broken)
    monkeypatch.setattr(serve, "_shorten_gc_pauses", lambda: None)
    settings = serve.BalancerSettings(
        inference_addr=ANYWHERE,
        management_addr=ANYWHERE,
        compat_openai_addr=None,
        max_body=1000,
        redis_url=store.url,
        redis_prefix=store.prefix,
        gateway=GatewaySettings(),
        file_store="redis",
        max_file=1000,
        max_stored=1000,
    )
    with capture_logs() as logged:
        async with asyncio.timeout(20):
            assert await serve.serve(settings) == 1
    (told,) = [entry for entry in logged if entry["log_level"] == "error"]
    assert str(told["exc_info"]) == "a bug"


async def test_control_messages_of_a_newer_version_are_skipped(fleet: Fleet) -> None:
    agent = await fleet.agent(slots=1, step_s=0.02)
    gateway = await fleet.gateway()
    reply = await gateway.submit("default", Generate(prompt="long [[tokens=100000]]", max_tokens=100_000))
    assert await reply.wait_opened(20)
    redis, channel = fleet.store.redis, fleet.pool.keys.control(agent.loop.agent_id)
    await wait_until(lambda: redis.pubsub_numsub(channel), what="it listens")
    with capture_logs() as logged:
        assert await redis.publish(channel, msgspec.msgpack.encode(["sing", "a song"]))
        await redis.publish(channel, b"\xc1 no MessagePack at all")
        await redis.publish(channel, encode_control(CancelRequest(reply.request_id)))
        ends = [frame async for frame in reply if isinstance(frame, Finished)]
    assert [end.reason for end in ends] == [FinishReason.CANCELLED]
    assert agent.is_running
    assert len([entry for entry in logged if "control message" in entry["event"]]) == 2


async def test_deliveries_of_a_newer_version_are_skipped(fleet: Fleet) -> None:
    gateway = await fleet.gateway()
    await wait_until(gateway.health)
    channel = inbox_channel(fleet.prefix, gateway.balancer_id)
    with capture_logs() as logged:
        for data in (b"", b"\xff\xff short", b"\x00\x02\xff\xff" + bytes(8)):
            assert await fleet.store.redis.publish(channel, data) == 1
        await wait_until(lambda: len([entry for entry in logged if "delivery" in entry["event"]]) == 3)
    assert not gateway.failed.is_set()
    assert await gateway.health()
