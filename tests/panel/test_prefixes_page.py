"""The page Prefixes: what is pinned, which agents have it, and how often it was of use."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from panel_harness import PATIENCE_MS, PanelFleet, Screen
from playwright.sync_api import expect

pytestmark = [pytest.mark.xdist_group("panel"), pytest.mark.timeout(240, method="thread")]

expect.set_options(timeout=PATIENCE_MS)

RULES = "You sell tickets for trains, and for nothing else. " * 6


@pytest.fixture
def nothing_pinned(fleet: PanelFleet) -> Iterator[None]:
    yield
    with httpx.Client(base_url=fleet.management_url, trust_env=False, timeout=20) as http:
        for one in http.get("/api/v1/prefixes").json()["prefixes"]:
            http.delete(f"/api/v1/prefixes/{one['name']}")


def ask(fleet: PanelFleet, text: str) -> int:
    """A chat that begins so; how many of its tokens were cached."""
    messages = [{"role": "system", "content": RULES}, {"role": "user", "content": text}]
    body = {"model": "default", "messages": messages, "max_tokens": 4}
    answer = httpx.post(f"{fleet.inference_url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
    return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.usefixtures("nothing_pinned")
def test_a_prefix_is_pinned_used_and_unpinned(screen: Screen, fleet: PanelFleet) -> None:
    page = screen.open("prefixes")
    expect(page.get_by_text("Nothing is pinned in this pool")).to_be_visible()
    screen.shoot_all("prefixes-none")
    page.get_by_role("button", name="Pin a prefix").click()
    dialog = page.get_by_role("dialog", name="Pin a prefix")
    dialog.get_by_label("Name").fill("no spaces please")
    dialog.get_by_label("What it is").select_option("Messages, as JSON")
    dialog.get_by_label("Text").fill("{")
    dialog.get_by_role("button", name="Pin", exact=True).click()
    expect(dialog.get_by_role("alert")).to_have_count(2)
    dialog.get_by_label("Text").fill('[{"role": "king", "content": "x"}]')
    dialog.get_by_label("Name").fill("rules")
    dialog.get_by_role("button", name="Pin", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("messages[0].role")
    dialog.get_by_label("What it is").select_option("A system message")
    dialog.get_by_label("Text").fill(RULES)
    # Without keys everybody is this tenant.
    dialog.get_by_label("Tenant").fill("anonymous")
    screen.shoot_all("prefixes-pin")
    dialog.get_by_role("button", name="Pin", exact=True).click()
    expect(dialog).to_be_hidden()
    row = page.get_by_role("row").filter(has_text="rules")
    expect(row).to_contain_text("For anonymous")
    expect(row.get_by_text("resident")).to_be_visible()
    expect(row).to_contain_text("agent-1")
    assert ask(fleet, "Who?") > 60, "nobody has asked that before"
    expect(row.get_by_role("cell").nth(2)).to_have_text("1")
    screen.shoot_all("prefixes")

    row.get_by_role("button", name="Unpin rules").click()
    sure = page.get_by_role("dialog", name="Unpin rules?")
    expect(sure).to_contain_text("1 agent gives up")
    sure.get_by_role("button", name="Unpin").click()
    expect(page.get_by_text("Nothing is pinned in this pool")).to_be_visible()
