"""StatsD gets the fleet's numbers from one of its processes, and from another one when that is killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from story_harness import Command
from udp_sink import udp_sink

from paddler.store.client import Store
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ELECTED = "sends the fleet's gauges to StatsD"


async def test_the_gauges_go_on_when_their_sender_is_killed(store: Store, tmp_path: Path) -> None:
    async with udp_sink() as sink:
        where = ("--redis-url", store.url, "--redis-prefix", store.prefix)
        reporting = ("--statsd-addr", f"localhost:{sink.port}", "--statsd-reporting-interval", "100")
        anywhere = ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0")
        processes = [
            Command(tmp_path / "balancer-1.log", "balancer", *anywhere, *reporting, *where),
            Command(tmp_path / "balancer-2.log", "balancer", *anywhere, *reporting, *where),
            Command(tmp_path / "worker.log", "worker", *reporting, *where),
        ]
        agent = Command(tmp_path / "agent.log", "agent", "--engine", "scripted", "--slots", "3", *where)
        try:
            for process in processes[:2]:
                await process.logged("listening", service="inference")
            await agent.logged("registered")

            def elected() -> list[Command]:
                return [one for one in processes if one.is_running and ELECTED in one.text]

            await wait_until(lambda: sink.gauges.get("paddler.slots_total") == 3, timeout_s=40, what="reports come")
            (sender,) = elected()
            sender.kill()
            (heir,) = await wait_until(elected, timeout_s=30, what="another one is elected")
            num_before = len(sink.reports)
            await wait_until(lambda: len(sink.reports) > num_before + 1, timeout_s=30, what="reports come again")
            assert sink.reports[-1]["paddler.slots_idle"] == 3
            assert heir is not sender
        finally:
            for process in (*processes, agent):
                if process.is_running:
                    process.process.terminate()
            for process in (*processes, agent):
                process.process.wait(20)
