"""Logging in and out, and that a revoked key ends it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from panel_harness import PATIENCE_MS, PanelFleet, Screen
from playwright.sync_api import expect

pytestmark = [pytest.mark.xdist_group("panel"), pytest.mark.timeout(240, method="thread")]

expect.set_options(timeout=PATIENCE_MS)


class Keys:
    """Those of a test; none is left after it."""

    def __init__(self, fleet: PanelFleet) -> None:
        self._fleet = fleet
        self.ids: list[str] = []

    def create(self, *flags: str) -> str:
        told = json.loads(self._fleet.run("keys", "create", "panel", *flags, "--json"))
        self.ids.append(told["id"])
        return told["secret"]

    def revoke(self) -> None:
        for key_id in self.ids:
            self._fleet.run("keys", "revoke", key_id)

    def forget(self) -> None:
        self.revoke()
        for key_id in self.ids:
            self._fleet.run("keys", "forget", key_id)


@pytest.fixture
def keys(fleet: PanelFleet) -> Iterator[Keys]:
    keys = Keys(fleet)
    yield keys
    keys.forget()


def test_login_is_refused_and_accepted(screen: Screen, keys: Keys) -> None:
    secret = keys.create("--scope", "management")
    other = keys.create("--scope", "inference")
    page = screen.page
    page.goto(screen.url)
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    field = page.get_by_label("API key")
    expect(field).to_be_focused()
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not known")
    field.fill(other)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("management")
    screen.shoot_all("login")
    field.fill(secret)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator(".agent-box")).to_contain_text("agent-1")
    expect(page.get_by_role("navigation")).to_contain_text("Live as panel")
    (cookie,) = page.context.cookies()
    assert cookie.get("httpOnly") is True
    assert cookie.get("sameSite") == "Strict"

    page.reload()
    expect(page.locator(".agent-box")).to_contain_text("agent-1")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_a_revoked_key_ends_the_session_in_sight(screen: Screen, keys: Keys) -> None:
    secret = keys.create("--scope", "management")
    page = screen.page
    page.goto(f"{screen.url}/#/settings")
    page.get_by_label("API key").fill(secret)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    keys.revoke()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
