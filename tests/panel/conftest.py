"""One fleet a test worker, one browser a file of tests, a tab and no cookies for each test.

A test asks for `screen`, and for `fleet` where it does something to that. It ends with the fleet as it was: one agent
`agent-1` of two slots with the starter model in the pool `default`, and no API key.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lacking import lacks
from panel_harness import PROXIED, WIDE, Keys, PanelFleet, Screen
from playwright.sync_api import Browser, BrowserContext, sync_playwright

DIST = Path(__file__).resolve().parents[2] / "api" / "panel" / "dist" / "index.html"


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PanelFleet]:
    if not DIST.exists():
        lacks("the panel is not built: make panel")
    fleet = PanelFleet(tmp_path_factory.mktemp("panel-fleet"))
    try:
        fleet.wait_ready()
        yield fleet
    finally:
        fleet.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for the whole session: while it is there, Playwright's loop counts as running in this thread, and no other
    test of this worker could have one."""
    binary = shutil.which("chromium")
    if binary is None:
        lacks("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        arguments = [f"--host-resolver-rules=MAP {PROXIED} 127.0.0.1"]
        # Chromium's sandbox does not run as root.
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")
        browser = playwright.chromium.launch(executable_path=binary, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def new_screen(browser: Browser) -> Iterator[Callable[[str], Screen]]:
    """Before a panel by its URL, each with cookies of its own. A test fails where one complained on its console."""
    contexts: list[BrowserContext] = []
    screens: list[Screen] = []

    def build(url: str) -> Screen:
        context = browser.new_context(
            viewport={"width": WIDE[0], "height": WIDE[1]}, locale="en-GB", ignore_https_errors=url.startswith("https:")
        )
        contexts.append(context)
        screens.append(Screen(context, url))
        return screens[-1]

    yield build
    for context in contexts:
        context.close()
    assert [problem for screen in screens for problem in screen.problems] == []


@pytest.fixture
def screen(new_screen: Callable[[str], Screen], fleet: PanelFleet) -> Screen:
    return new_screen(fleet.panel_url)


@pytest.fixture
def keys(fleet: PanelFleet) -> Iterator[Keys]:
    keys = Keys(fleet)
    yield keys
    keys.forget()
