"""Logging in and out, and that a revoked key ends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from panel_harness import PATIENCE_MS, PROXIED, Keys, PanelFleet, Screen
from playwright.sync_api import expect
from tls_relay import tls_relay

pytestmark = [pytest.mark.xdist_group("panel"), pytest.mark.timeout(240, method="thread")]

expect.set_options(timeout=PATIENCE_MS)


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


def test_a_feed_that_is_refused_says_why_and_what_to_do(
    new_screen: Callable[[str], Screen], fleet: PanelFleet, keys: Keys
) -> None:
    """The name was good while there were keys; the last one goes while the balancer cannot tell the page."""
    secret = keys.create("--scope", "management")
    screen = new_screen(fleet.panel_url.replace("127.0.0.1", PROXIED))
    page = screen.page
    page.goto(screen.url)
    page.get_by_label("API key").fill(secret)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("navigation")).to_contain_text("Live as panel")
    with fleet.frozen_balancer():
        keys.forget()
    banner = page.get_by_role("status").filter(has_text="Refused")
    expect(banner).to_contain_text(f"not known as '{PROXIED}:")
    expect(banner).to_contain_text("--allowed-host")
    expect(page.get_by_role("navigation")).to_contain_text("Refused")
    screen.check_accessible()


def test_behind_a_proxy_that_ends_tls_the_cookie_is_for_tls_alone(
    new_screen: Callable[[str], Screen], fleet: PanelFleet, keys: Keys, tmp_path: Path
) -> None:
    secret = keys.create("--scope", "management")
    with tls_relay(int(fleet.panel_url.rpartition(":")[2]), tmp_path) as port:
        screen = new_screen(f"https://{PROXIED}:{port}")
        page = screen.page
        page.goto(screen.url)
        page.get_by_label("API key").fill(secret)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("navigation")).to_contain_text("Live as panel")
        (cookie,) = page.context.cookies()
        assert cookie.get("secure") is True
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        assert page.context.cookies() == []
