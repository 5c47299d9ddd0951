"""The page `Fleet`: a first visit, agents that come and go, orders, the balancer away."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from panel_harness import PATIENCE_MS, PanelFleet, Screen
from playwright.sync_api import Locator, Page, expect

pytestmark = [pytest.mark.xdist_group("panel"), pytest.mark.timeout(240, method="thread")]

expect.set_options(timeout=PATIENCE_MS)


def row(page: Page, name: str) -> Locator:
    return page.locator(".agent-box", has=page.locator("b", has_text=re.compile(f"^{name}$")))


def test_a_first_visit_shows_the_fleet(screen: Screen) -> None:
    page = screen.open("")
    expect(page).to_have_title("Fleet · Paddler")
    agent = row(page, "agent-1")
    expect(agent).to_contain_text("ready")
    expect(agent).to_contain_text("smollm2-135m")
    expect(agent.get_by_role("img", name="of 2 slots are busy")).to_be_visible()
    expect(agent).to_contain_text(
        re.compile(r"KV cache.*[\d,]+ of [\d,]+ tokens in \d+ sequences?; keeps \d+ ended at most")
    )
    expect(page.get_by_role("navigation").get_by_text("Live")).to_be_visible()
    expect(page.locator(".chart canvas").first).to_be_visible()
    screen.shoot_all("fleet")


def test_an_agent_is_added_by_a_command_to_copy(screen: Screen, fleet: PanelFleet) -> None:
    page = screen.open("fleet")
    page.get_by_role("button", name="Add an agent").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Slots").fill("none")
    expect(dialog.get_by_role("alert")).to_contain_text("1 to 256")
    dialog.get_by_label("Slots").fill("3")
    dialog.get_by_label("Name").fill("added")
    command = dialog.get_by_label("command that adds an agent", exact=True)
    expect(command).to_contain_text("--name added")
    program, *arguments = shlex.split(command.inner_text())
    assert program == "paddler"
    screen.shoot_all("add-agent")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Add an agent")).to_be_focused()
    process = fleet.start(*arguments, "--engine", "scripted", "--scripted-follow")
    expect(row(page, "added")).to_contain_text("ready")
    expect(row(page, "added")).to_contain_text("0/3")
    process.kill()
    expect(row(page, "added")).to_have_count(0)


def test_orders_are_confirmed_and_obeyed(screen: Screen, fleet: PanelFleet) -> None:
    process = fleet.add_agent("spare", "--pool", "spare")
    page = screen.open("fleet")
    agent = row(page, "spare")
    agent.get_by_role("button", name="Drain").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Drain spare?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(agent).to_contain_text("ready")
    agent.get_by_role("button", name="Drain").click()
    dialog.get_by_role("button", name="Drain").click()
    expect(agent).to_contain_text("drained")
    agent.get_by_role("button", name="Undrain").click()
    expect(agent).to_contain_text("ready")
    agent.get_by_role("button", name="Remove").click()
    screen.shoot_all("remove-agent")
    dialog.get_by_role("button", name="Remove").click()
    expect(agent).to_have_count(0)
    assert process.wait(30) == 0


def test_a_killed_agent_goes(screen: Screen, fleet: PanelFleet) -> None:
    process = fleet.add_agent("doomed", "--pool", "spare")
    page = screen.open("fleet")
    expect(row(page, "doomed")).to_contain_text("ready")
    process.kill()
    expect(row(page, "doomed")).to_have_count(0)


def test_a_fleet_without_agents_teaches_how_to_get_one(new_screen: Callable[[str], Screen], tmp_path: Path) -> None:
    """The command is run as it is copied, and serves the model that the desired state names: the starter model."""
    fleet = PanelFleet(tmp_path, "--engine", "llama", "--agents", "0")
    try:
        fleet.wait_ready()
        screen = new_screen(fleet.panel_url)
        page = screen.open("fleet")
        expect(page.get_by_role("heading", name="No agents yet")).to_be_visible()
        command = page.get_by_label("command that adds an agent", exact=True)
        expect(command).to_contain_text("paddler agent --slots 4")
        expect(page.get_by_text("No model is set for this pool")).to_have_count(0)
        screen.shoot_all("fleet-empty")
        card = page.get_by_role("region", name="No agents")
        card.get_by_label("Name").fill("first")
        card.get_by_label("Slots").fill("1")
        expect(command).to_contain_text("--slots 1 --name first")
        program, *arguments = shlex.split(command.inner_text())
        assert program == "paddler"
        fleet.start(*arguments)
        expect(row(page, "first")).to_contain_text("ready", timeout=60_000)
        expect(page.get_by_role("heading", name="No agents yet")).to_have_count(0)
    finally:
        fleet.end()


def test_the_page_says_that_it_is_offline_and_is_right_again_after(screen: Screen, fleet: PanelFleet) -> None:
    page = screen.open("fleet")
    expect(row(page, "agent-1")).to_be_visible()
    fleet.kill_balancer()
    expect(page.get_by_role("status").filter(has_text="Offline")).to_be_visible()
    process = fleet.add_agent("meanwhile", "--pool", "spare")
    expect(page.get_by_role("status").filter(has_text="Offline")).to_be_hidden()
    expect(row(page, "meanwhile")).to_contain_text("ready")
    process.kill()
    expect(row(page, "meanwhile")).to_have_count(0)


def test_it_is_all_done_by_keyboard(screen: Screen) -> None:
    page = screen.open("fleet")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Add an agent")).to_be_focused()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement.closest('dialog') !== null || document.activeElement === document.body"
        )
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
