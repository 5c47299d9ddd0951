"""Two tabs of one browser: what is done in one is seen in the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from panel_harness import PATIENCE_MS, Keys, PanelFleet, Screen
from playground_harness import Playground, words
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.xdist_group("panel"), pytest.mark.timeout(240, method="thread")]

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def other(screen: Screen) -> Iterator[Screen]:
    """A second tab, with the cookies of the first."""
    other = Screen(screen.page.context, screen.url)
    yield other
    assert other.problems == []


def log_in(page: Page, secret: str) -> None:
    page.get_by_label("API key").fill(secret)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("navigation")).to_contain_text("Live as panel")


def test_who_logs_in_or_out_does_so_in_all_tabs(screen: Screen, other: Screen, keys: Keys) -> None:
    secret = keys.create("--scope", "management")
    first, second = screen.page, other.page
    for page in (first, second):
        page.goto(f"{screen.url}/#/settings")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    log_in(first, secret)
    expect(second.get_by_role("heading", name="Settings")).to_be_visible()
    expect(second.get_by_role("navigation")).to_contain_text("Live as panel")
    second.get_by_role("navigation").get_by_role("button", name="Log out").click()
    for page in (second, first):
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
    log_in(second, secret)
    expect(first.get_by_role("heading", name="Settings")).to_be_visible()


def test_colours_are_those_of_the_browser(screen: Screen, other: Screen) -> None:
    first, second = screen.open("settings"), other.open("fleet")
    first.get_by_role("navigation").get_by_role("button", name="Colours: as the system").click()
    first.get_by_role("navigation").get_by_role("button", name="Colours: light").click()
    expect(second.locator("html")).to_have_attribute("data-theme", "dark")
    expect(second.get_by_role("navigation").get_by_role("button", name="Colours: dark")).to_be_visible()


def test_a_conversation_is_one_in_all_tabs(screen: Screen, other: Screen, fleet: PanelFleet) -> None:
    here = Playground(screen, fleet)
    there = Playground(other, fleet)
    here.set_up(max_tokens="1000", ignore_eos="true")
    here.send("Tell me a long story about a whale.")
    here.begun()
    there.page.locator(".pg-open", has_text="Tell me a long story about a whale.").click()
    there.begun()
    there.page.get_by_role("button", name="Stop").click()
    expect(here.over()).to_contain_text("Stopped.")
    expect(there.over()).to_contain_text("Stopped.")
    assert words(there.text.inner_text()) == words(here.text.inner_text())

    there.page.get_by_role("button", name="Rename Tell me").click()
    there.page.get_by_label("Name", exact=True).fill("Whales")
    there.page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(here.page.get_by_role("heading", name="Whales")).to_be_visible()
    here.page.get_by_role("button", name="Delete Whales").click()
    here.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(there.page.get_by_role("button", name="Whales", exact=True)).to_have_count(0)


def test_an_answer_goes_on_in_the_tab_that_is_left(screen: Screen, other: Screen, fleet: PanelFleet) -> None:
    here = Playground(screen, fleet)
    there = Playground(other, fleet)
    here.set_up(max_tokens="300", ignore_eos="true")
    here.send("Tell me about the moon.")
    here.begun()
    there.page.locator(".pg-open", has_text="Tell me about the moon.").click()
    there.begun()
    here.page.close()
    expect(there.over()).to_contain_text("300 tokens")
    assert words(there.text.inner_text()) == words(there.said())
