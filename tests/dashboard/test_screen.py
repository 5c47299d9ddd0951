"""The dashboard as its user sees it, on 80 columns and 24 lines, before a real balancer and real agents."""

from __future__ import annotations

import pytest
from dashboard_harness import SIZE, SLOW, WatchedFleet, asking, watching
from story_harness import openai_client

from paddler.dashboard.address import Access
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180), pytest.mark.xdist_group("dashboard")]


async def test_an_agent_comes_is_looked_at_and_goes(fleet: WatchedFleet, access: Access) -> None:
    async with watching(access) as screen:
        await screen.shows("No agent has joined pool default.", "paddler agent --slots 4")
        agent = await fleet.agent("teller", *SLOW)
        await screen.shows("teller", "ready", "Name", without="No agent")
        titles = ("Name", "State", "Issues", "Model", "Last update", "Idle", "Processing")
        assert screen.line("Name").split("  ")[0] == "Name"
        assert all(title in screen.line("Name") for title in titles)
        cells = screen.line("teller").split()
        assert (cells[:4], cells[-2:]) == (["teller", "ready", "none", "scripted"], ["2", "0"])
        await screen.shows("slots 0/2 busy  demand 0", "live")
        assert screen.lines[0].startswith(f"paddler  {fleet.address}  pool default")
        assert screen.lines[0].endswith("live")
        assert screen.lines[1].startswith("slots 0/2 busy")

        await screen.press("enter")
        await screen.shows("Agent teller", "0 of 2 busy", "last update", "version", "desired state")
        assert str(agent.process.pid) in screen.line("process")
        agent.process.terminate()
        await screen.shows("has gone from the pool")
        await screen.press("escape")
        await screen.shows("No agent has joined")
        await screen.press("escape")
        await wait_until(lambda: not screen.app.is_running, what="it has ended")


async def test_drain_and_undrain_when_confirmed(fleet: WatchedFleet, access: Access) -> None:
    await fleet.agent("one", *SLOW)
    await fleet.agent("two", *SLOW)
    async with watching(access) as screen, fleet.queue() as queue:
        await screen.shows("one", "two")
        await screen.press("j", "d")
        await screen.shows("Drain agent two?", "It works on nothing now.")
        await screen.press("n")
        assert await queue.num_free_slots() == 4
        await screen.press("d", "y")
        await screen.shows("drained", "two takes no more requests; 0 of its requests")
        assert screen.line("two  ").split()[-2:] == ["0", "0"]
        assert await queue.num_free_slots() == 2
        await screen.press("k", "down", "u")
        await screen.shows("Undrain agent two?", "on 2 slots")
        await screen.press("enter")
        await screen.shows("two takes requests again.", without="drained")
        assert await queue.num_free_slots() == 4


async def test_requests_are_watched_filtered_and_cancelled(fleet: WatchedFleet, access: Access) -> None:
    await fleet.agent("teller", *SLOW)
    async with watching(access) as screen, asking(fleet, 4) as clients:
        await screen.press("2")
        await screen.shows("running", "waits 1", "waits 2")
        assert screen.text.count("running") == 2
        assert "anonymous" in screen.line("waits 1")
        assert "normal" in screen.line("waits 1")
        assert "teller" in screen.line("running")
        await screen.shows("buffer    2")

        await screen.press("slash")
        await screen.type("state=waiting")
        await screen.press("enter")
        await screen.shows("waits 1", "filter: state=waiting", without="running")
        await screen.press("enter")
        await screen.shows("Request default.", "accepted", "buffered")
        await screen.press("escape", "escape")
        await screen.shows("running", without="filter:")

        await screen.press("end", "c")
        await screen.shows("Cancel request default.", "It waits.")
        await screen.press("escape")
        await screen.press("home", "c")
        await screen.shows("It runs on teller")
        await screen.press("y")
        await screen.shows("Its agent has been told to stop.")
        await screen.shows("waits 1", without="waits 2")
        await wait_until(lambda: sum(one.done() for one in clients) == 1, what="its client is told")


async def test_a_filter_of_agents(fleet: WatchedFleet, access: Access) -> None:
    await fleet.agent("alpha", *SLOW)
    await fleet.agent("beta", *SLOW)
    async with watching(access) as screen:
        await screen.shows("alpha", "beta")
        await screen.press("slash")
        await screen.type("be")
        await screen.shows("filter: be", without="alpha")
        await screen.type("x")
        await screen.shows("No agent has all of 'bex'")
        await screen.press("escape")
        await screen.shows("alpha", "beta", without="filter:")


async def test_the_balancer_dies_and_comes_back(fleet: WatchedFleet, access: Access) -> None:
    """What was known last stays on the screen, marked, and nothing need be pressed."""
    await fleet.agent("teller", *SLOW)
    async with watching(access) as screen:
        await screen.shows("teller", "live")
        fleet.kill_balancer()
        await screen.shows("OFFLINE", f"{fleet.address} cannot be reached: Connection refused", "teller")
        await screen.press("d", "y")
        await screen.shows("Not done")
        await fleet.start_balancer()
        await screen.shows("live", "teller", without="OFFLINE")


async def test_a_real_model(fleet: WatchedFleet, access: Access) -> None:
    await fleet.agent("llama")
    async with watching(access) as screen, openai_client(fleet.inference_url) as client:
        await screen.shows("llama", "ready")
        for _ in range(2):
            await client.completions.create(model="default", prompt="Once upon a time", max_tokens=40)
        await screen.press("enter")
        await screen.shows("Agent llama", "smollm2", ".gguf", "output ", "tok/s", "context", "llama.cpp", "cache")


async def test_keys_and_small_screens(fleet: WatchedFleet, access: Access) -> None:
    await fleet.agent("teller", *SLOW)
    for size in (SIZE, (132, 40), (40, 12)):
        async with watching(access, size=size) as screen:
            await screen.shows("teller", "Name")
            assert ("tok/s" in screen.line("Name")) == (size[0] > 100)
            await screen.press("question_mark")
            await screen.shows("Keys", "Esc")
            await screen.press("q")
            await screen.shows("teller", without="Keys")
            await screen.press("tab")
            await screen.shows("Nothing waits and nothing runs.")
            await screen.press("q")
            await wait_until(lambda screen=screen: not screen.app.is_running, what="it has ended")


async def test_nobody_answers() -> None:
    async with watching(Access("http://127.0.0.1:1")) as screen:
        await screen.shows("no answer", "127.0.0.1:1 cannot be reached: Connection refused.", "asked again")
