"""The page Requests: what waits and runs, stopping it, its time line, and dead letters."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager

import httpx
import pytest
from panel_calls import chatting, elsewhere
from panel_harness import PanelFleet, Screen
from playwright.sync_api import Locator, Page, expect

from paddler.ids import new_process_id, new_request_id
from paddler.jobs.endings import CANCELLED_FRAME, DEAD_FRAME
from paddler.store.client import connect
from paddler.store.results import Submission
from paddler.wire.agent import Generate, encode_payload
from paddler.wire.balancer import Opened, encode_frame

pytestmark = [pytest.mark.xdist_group("panel"), pytest.mark.timeout(240, method="thread")]

PATIENCE_MS = 60_000
LETTERS = "letters"


def rows(page: Page) -> Locator:
    return page.get_by_role("list", name="Requests that have not ended").get_by_role("listitem")


@contextmanager
def drained_agent(fleet: PanelFleet) -> Generator[Callable[[], None]]:
    """Nobody takes requests until it is called, or the context ends."""
    with httpx.Client(base_url=fleet.management_url, timeout=20, trust_env=False) as http:
        (agent,) = http.get("/api/v1/agents").json()["agents"]

        def undrain() -> None:
            http.post(f"/api/v1/agent/{agent['id']}/undrain").raise_for_status()

        http.post(f"/api/v1/agent/{agent['id']}/drain").raise_for_status()
        try:
            yield undrain
        finally:
            undrain()


def test_a_request_waits_runs_and_ends_before_the_eyes_of_who_looks(screen: Screen, fleet: PanelFleet) -> None:
    page = screen.open("requests")
    expect(page.get_by_text("Nothing waits and nothing runs")).to_be_visible()
    with drained_agent(fleet) as undrain, chatting(fleet.inference_url, tokens=250) as (_, told):
        row = rows(page).first
        expect(row).to_contain_text("waiting", timeout=PATIENCE_MS)
        expect(row).to_contain_text("#0")
        expect(row).to_contain_text("anonymous")
        name = row.get_by_role("link").inner_text()
        row.get_by_role("link").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Buffered: no slot was free")
        expect(dialog).to_contain_text("next in line")
        undrain()
        expect(dialog.get_by_text("running")).to_be_visible(timeout=PATIENCE_MS)
        expect(dialog).to_contain_text("agent-1")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(row).to_contain_text("running")
        expect(row).to_contain_text(re.compile(r"→ \d+"), timeout=PATIENCE_MS)
        assert "[DONE]" in told.result(PATIENCE_MS / 1000)
    page.get_by_role("tab", name="Just ended").click()
    ended = page.get_by_role("row").filter(has_text=name)
    expect(ended).to_contain_text("done", timeout=PATIENCE_MS)
    expect(ended).to_contain_text("250")
    ended.get_by_role("link").click()
    dialog = page.get_by_role("dialog")
    for event in ("Accepted", "Given to an agent", "Begun by the agent", "First token", "Ended"):
        expect(dialog.get_by_role("row").filter(has_text=event)).to_be_visible()
    expect(dialog.get_by_role("img")).to_have_accessible_name(re.compile(r"Waited .*, Prompt .*, Answer "))
    screen.shoot_all("requests-time-line")


def test_cancelling_ends_the_stream_of_the_client(screen: Screen, fleet: PanelFleet) -> None:
    page = screen.open("requests")
    with chatting(fleet.inference_url, tokens=1500) as (_, told):
        row = rows(page).first
        expect(row).to_contain_text("running", timeout=PATIENCE_MS)
        name = row.get_by_role("link").inner_text()
        # By keyboard alone, from the list on; the first answer to the question is no.
        row.get_by_role("button", name=f"Cancel request {name}").focus()
        page.keyboard.press("Enter")
        question = page.get_by_role("dialog", name="Cancel this request?")
        expect(question).to_be_visible()
        page.keyboard.press("Escape")
        expect(question).to_be_hidden()
        expect(row).to_contain_text("running")
        page.keyboard.press("Enter")
        question.get_by_role("button", name="Cancel request").press("Enter")
        assert "data: " in told.result(PATIENCE_MS / 1000)
    expect(rows(page)).to_have_count(0, timeout=PATIENCE_MS)
    page.get_by_role("tab", name="Just ended").click()
    expect(page.get_by_role("row").filter(has_text=name)).to_contain_text("cancelled", timeout=PATIENCE_MS)


def test_search_and_filters(screen: Screen, fleet: PanelFleet) -> None:
    with drained_agent(fleet), chatting(fleet.inference_url, tokens=1), chatting(fleet.inference_url, tokens=1):
        page = screen.open("requests")
        expect(rows(page)).to_have_count(2, timeout=PATIENCE_MS)
        screen.shoot_all("requests")
        names = [link.inner_text() for link in rows(page).get_by_role("link").all()]
        search = page.get_by_label("Search")
        search.fill(names[1])
        expect(rows(page)).to_have_count(1)
        expect(rows(page)).to_contain_text("#1")
        expect(page.get_by_text("1 of 2 requests")).to_be_visible()
        search.fill("nobody's")
        expect(page.get_by_text("No such request")).to_be_visible()
        search.fill("default." + "x" * 22)
        page.get_by_role("button", name="Open its time line").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("is known")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Show all requests").click()
        page.get_by_label("State").select_option("Running")
        expect(page.get_by_text("No such request")).to_be_visible()
        page.get_by_label("State").select_option("Waiting")
        expect(rows(page)).to_have_count(2)
        for name in names:
            page.get_by_role("button", name=f"Cancel request {name}").click()
            page.get_by_role("dialog").get_by_role("button", name="Cancel request").click()
        expect(page.get_by_text("Nothing waits and nothing runs")).to_be_hidden()


async def make_dead_letters(redis_url: str, number: int) -> list[str]:
    """Requests that have lost three agents each, in a pool of their own."""
    store = connect(redis_url, "paddler")
    await store.add_pool(LETTERS)
    pool = store.pool(LETTERS)
    payload = encode_payload(Generate(prompt="kill"))
    ids: list[str] = []
    for _ in range(number):
        ids.append(new_request_id(LETTERS))
        await pool.submit(
            Submission(
                request_id=ids[-1],
                request_class="normal",
                tenant="alice",
                payload=payload,
                inbox="nobody",
                start_timeout_ms=0,
                max_waiting=100,
            )
        )
        for _ in range(3):
            agent = new_process_id("agent")
            snapshot = {"slots": 1, "state": "ready", "name": "victim"}
            await pool.register(agent, lease_ms=60_000, model="m", seen_s=1, snapshot=snapshot)
            found = await pool.redis.xreadgroup("agent", agent, {pool.keys.lane(agent): ">"})
            ((_, ((_, fields),)),) = found
            attempt = int(fields[b"attempt"])
            await pool.open(agent, ids[-1], attempt, encode_frame(Opened("victim", attempt)))
            await pool.redis.zadd(pool.keys.agents(), {agent: 1})
            await pool.reap(agent, max_deaths=3, dead_frame=DEAD_FRAME, cancel_frame=CANCELLED_FRAME)
    await store.close()
    return ids


def test_dead_letters_are_requeued_and_dropped(screen: Screen, fleet: PanelFleet) -> None:
    first, second = elsewhere(make_dead_letters(fleet.redis_url, 2))
    page = screen.open("requests")
    page.get_by_label("Pool").select_option(LETTERS)
    page.get_by_role("tab", name="Dead letters 2").click()
    screen.shoot_all("requests-dead-letters")
    expect(page.get_by_role("row").filter(has_text=first)).to_contain_text("alice")
    page.get_by_role("link", name=first).click()
    expect(page.get_by_role("dialog")).to_contain_text("agents_lost")
    page.keyboard.press("Escape")
    page.get_by_role("button", name=f"Requeue {first}").click()
    page.get_by_role("dialog").get_by_role("button", name="Requeue").click()
    expect(page.get_by_role("row").filter(has_text=first)).to_be_hidden()
    page.get_by_role("button", name=f"Drop {second}").click()
    page.get_by_role("dialog").get_by_role("button", name="Drop").click()
    expect(page.get_by_text("No dead letters")).to_be_visible()
    page.get_by_role("tab", name="Live").click()
    expect(rows(page)).to_have_count(1, timeout=PATIENCE_MS)
    expect(rows(page)).to_contain_text("waiting")
    page.get_by_role("button", name=f"Cancel request {first}").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel request").click()
    expect(page.get_by_text("Nothing waits and nothing runs")).to_be_visible()
