"""The page Keys: the first key, limits, a new secret, revoking; and what was used with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from panel_calls import CHAT, elsewhere
from panel_harness import NARROW, SHOTS, WIDE, Screen
from playwright.sync_api import Page, expect
from up_harness import Up

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("panel"), pytest.mark.timeout(240, method="thread")]

PATIENCE_MS = 60_000


class KeyedFleet(Up):
    """One of a test's own: with its first key everybody needs one."""

    @property
    def panel_url(self) -> str:
        return self._row("panel")

    def ask(self, key: str) -> int:
        """A chat with a key; its status."""
        body = {"model": "default", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(
            f"{self.inference_url}{CHAT}", json=body, headers=headers, timeout=60, trust_env=False
        ).status_code


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[KeyedFleet]:
    up = KeyedFleet(tmp_path, "--agents", "1", "--slots", "2")
    try:
        elsewhere(up.ready())
        yield up
    finally:
        up.end()


def put_away(page: Page, title: str) -> str:
    """The key that is shown this once."""
    dialog = page.get_by_role("dialog", name=title)
    secret = dialog.get_by_label("API key", exact=True).inner_text()
    # A page may refuse the first Escape alone: at the second the browser closes the dialog, and it comes back.
    dialog.evaluate("(dialog) => dialog.addEventListener('close', () => { dialog.dataset.wasClosed = 'yes'; })")
    for _ in range(3):
        page.keyboard.press("Escape")
    expect(dialog).to_have_attribute("data-was-closed", "yes")
    expect(dialog).to_be_visible()
    assert dialog.get_by_label("API key", exact=True).inner_text() == secret
    dialog.get_by_role("button", name="I have put it away").click()
    expect(dialog).to_be_hidden()
    return secret


def test_keys_are_made_used_limited_rotated_and_revoked(keyed: KeyedFleet, new_screen: Callable[[str], Screen]) -> None:
    screen = new_screen(keyed.panel_url)
    page = screen.open("keys")
    expect(page.get_by_text("There are no keys")).to_be_visible()
    screen.shoot_all("keys-none")
    page.get_by_role("button", name="Create the first key").click()
    expect(page.get_by_label("Management")).to_be_checked()
    expect(page.get_by_label("Management")).to_be_disabled()
    page.get_by_role("button", name="Create key").click()
    operator = put_away(page, "Key operator")
    # It needs a key from now on, and goes on with that one.
    expect(page.get_by_role("row").filter(has_text="operator")).to_contain_text("active")
    assert httpx.get(f"{keyed.management_url}/api/v1/keys", trust_env=False).status_code == 401

    page.get_by_role("button", name="Create a key").click()
    page.get_by_label("Name").fill("no spaces please")
    page.get_by_label("Requests per minute").fill("none")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("alert")).to_have_count(2)
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Tenant").fill("wonderland")
    page.get_by_label("Requests per minute").fill("60")
    page.get_by_label("Expires").select_option("In 30 days")
    page.get_by_label("Highest class").select_option("normal")
    page.get_by_label("Weight").fill("2")
    screen.shoot_all("keys-create")
    page.get_by_role("button", name="Create key").click()
    alice = put_away(page, "Key alice")
    row = page.get_by_role("row").filter(has_text="alice")
    for told in ("wonderland", "60 requests/min", "weight 2", "Expires", "inference"):
        expect(row).to_contain_text(told)
    assert (keyed.ask(alice), keyed.ask(operator), keyed.ask("wrong")) == (200, 200, 401)

    page.get_by_role("button", name="Limits of alice").click()
    page.get_by_label("Requests at once").fill("3")
    page.get_by_role("button", name="Save limits").click()
    expect(row).to_contain_text("3 in flight")
    page.get_by_role("button", name="Rotate alice").click()
    page.get_by_label("The present secret stops working").select_option("At once")
    page.get_by_role("button", name="Make a new secret").click()
    renewed = put_away(page, "New secret of alice")
    assert renewed != alice
    elsewhere(refused(keyed, alice))
    assert keyed.ask(renewed) == 200
    screen.shoot_all("keys")

    page.get_by_role("tab", name="Usage").click()
    used = page.get_by_role("row").filter(has_text="alice")
    expect(used).to_contain_text("wonderland", timeout=PATIENCE_MS)
    expect(used.get_by_role("cell").nth(3)).to_have_text(re.compile(r"^[1-9]\d*$"))
    expect(page.get_by_role("img", name="Tokens a day")).to_be_visible()
    page.get_by_label("Of each", exact=True).select_option("Model")
    page.get_by_label("What", exact=True).select_option("Requests")
    expect(page.locator(".chart-legend")).to_contain_text("scripted")
    screen.shoot_all("usage")
    scrolls_within_its_box(screen)

    page.get_by_role("tab", name="Keys").click()
    page.get_by_role("button", name="Revoke alice").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(row).to_contain_text("active")
    page.get_by_role("button", name="Revoke alice").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke key").click()
    expect(row).to_contain_text("revoked")
    elsewhere(refused(keyed, renewed))
    page.get_by_role("button", name="Forget alice").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget key").click()
    expect(row).to_be_hidden()
    page.get_by_role("button", name="Revoke operator").click()
    expect(page.get_by_role("dialog")).to_contain_text("the last one with the scope management")


def scrolls_within_its_box(screen: Screen) -> None:
    """Seven columns on a narrow screen: it says that there is more, and one always sees whose numbers these are."""
    page = screen.page
    table = page.get_by_role("region", name="Usage of each key and model")
    hint = page.get_by_text("scroll the table sideways")
    expect(hint).to_have_count(0)
    screen.resize(NARROW)
    expect(hint).to_be_visible()
    answers = table.get_by_role("columnheader", name="Answer tokens")
    expect(answers).not_to_be_in_viewport(ratio=1)
    table.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    expect(answers).to_be_in_viewport(ratio=1)
    expect(table.get_by_role("columnheader", name="Key", exact=True)).to_be_in_viewport(ratio=1)
    assert page.evaluate("scrollX") == 0
    page.screenshot(path=SHOTS / "usage-scrolled-390.png")
    screen.check_accessible()
    screen.resize(WIDE)


async def refused(keyed: KeyedFleet, key: str) -> None:
    """Within a second or so all balancers know."""
    await wait_until(lambda: keyed.ask(key) == 401, what="the key is refused")
