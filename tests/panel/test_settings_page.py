"""The page `Settings`, and the colours."""

from __future__ import annotations

import pytest
from panel_harness import PATIENCE_MS, PanelFleet, Screen
from playwright.sync_api import expect

pytestmark = [pytest.mark.xdist_group("panel"), pytest.mark.timeout(240, method="thread")]

expect.set_options(timeout=PATIENCE_MS)


def test_settings_show_addresses_limits_versions_and_redis(screen: Screen, fleet: PanelFleet) -> None:
    page = screen.open("settings")
    addresses = page.get_by_role("region", name="Addresses")
    for url in (fleet.panel_url, fleet.management_url, fleet.inference_url, fleet.openai_url):
        expect(addresses).to_contain_text(url)
    limits = page.get_by_role("region", name="Limits")
    expect(limits.locator("div", has=page.get_by_text("--max-buffered-requests"))).to_contain_text("1,000")
    expect(page.get_by_role("region", name="Redis")).to_contain_text("Valkey")
    expect(page.get_by_role("table")).to_contain_text("worker")
    expect(page.get_by_role("region", name="Versions")).to_contain_text("llama.cpp")
    screen.shoot_all("settings")


def test_colours_follow_the_system_until_somebody_chooses(screen: Screen) -> None:
    page = screen.open("settings")
    root = page.locator("html")
    screen.set_theme("dark")
    expect(root).to_have_attribute("data-theme", "dark")
    screen.set_theme("light")
    expect(root).to_have_attribute("data-theme", "light")
    page.get_by_label("Colours", exact=True).select_option("dark")
    expect(root).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(root).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Colours: dark").click()
    expect(root).to_have_attribute("data-theme", "light")
