"""The page `Playground` while the fleet changes: no agent yet, an agent that dies, models that can something else."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from minilm import minilm_path
from panel_harness import PATIENCE_MS, PanelFleet, Screen
from playground_harness import Playground, words
from playwright.sync_api import FilePayload, expect
from tiny_vision import picture, write_projector

from paddler.up.starter import find_starter

pytestmark = [pytest.mark.xdist_group("panel"), pytest.mark.timeout(240, method="thread")]

expect.set_options(timeout=PATIENCE_MS)
REAL = ("--model", str(find_starter()), "--slots", "1", "--threads", "1", "--context-size", "2048")


def test_an_agent_dies_in_the_middle_and_the_answer_goes_on(screen: Screen, fleet: PanelFleet) -> None:
    agents = {
        name: fleet.start("agent", "--name", name, "--pool", "pair", "--redis-url", fleet.redis_url, *REAL)
        for name in ("left", "right")
    }
    try:
        screen.open("fleet")
        for name in agents:
            expect(screen.page.locator(".agent-box", has_text=name)).to_contain_text("ready")
        playground = Playground(screen, fleet, "pair")
        playground.set_up(max_tokens="200", ignore_eos="true")
        playground.send("Tell me a long story about the sea.")
        answer = playground.begun()
        name = answer.locator("dd", has_text=re.compile("^(left|right)$")).inner_text()
        agents[name].kill()
        expect(playground.over()).to_contain_text("Handed over")
        expect(playground.answer).to_contain_text(f"from {name}")
        other = "left" if name == "right" else "right"
        expect(answer.locator("dd", has_text=re.compile(f"^{other}$"))).to_be_visible()
        expect(answer).to_contain_text("200 tokens")
        assert words(playground.text.inner_text()) == words(playground.said())
        screen.shoot_all("playground-handed-over")
    finally:
        for process in agents.values():
            process.kill()


def test_without_an_agent_it_says_where_it_waits(screen: Screen, fleet: PanelFleet) -> None:
    first = fleet.add_agent("passing", "--pool", "later")
    playground = Playground(screen, fleet, "later")
    first.kill()
    page = screen.open("fleet")
    expect(page.locator(".agent-box", has_text="passing")).to_have_count(0)
    page = screen.open("playground")
    playground.send("First of all.")
    expect(playground.answer).to_contain_text("Next in the queue")
    page.get_by_role("button", name="New conversation").click()
    playground.send("And then this.")
    expect(playground.answer).to_contain_text("Waiting behind 1 request")
    screen.shoot_all("playground-waiting")
    later = fleet.add_agent("late", "--pool", "later")
    try:
        playground.over()
        expect(playground.answer).to_contain_text("late")
    finally:
        later.kill()


def test_a_request_that_waits_is_stopped(screen: Screen, fleet: PanelFleet) -> None:
    first = fleet.add_agent("passing", "--pool", "never")
    playground = Playground(screen, fleet, "never")
    first.kill()
    page = screen.open("fleet")
    expect(page.locator(".agent-box", has_text="passing")).to_have_count(0)
    page = screen.open("playground")
    playground.send("Anybody?")
    expect(playground.answer).to_contain_text("Next in the queue")
    page.get_by_role("button", name="Stop").click()
    expect(playground.over()).to_contain_text("Stopped.")
    left = httpx.get(f"{fleet.management_url}/api/v1/pools/never/requests", trust_env=False, timeout=30)
    assert left.json()["requests"] == []


def test_images_go_to_models_that_see(screen: Screen, fleet: PanelFleet, tmp_path: Path) -> None:
    playground = Playground(screen, fleet)
    attach = playground.page.get_by_role("button", name="Attach images")
    expect(attach).to_be_disabled()
    expect(playground.page.get_by_text("start one with --multimodal-projection")).to_be_visible()
    projection = write_projector(tmp_path / "eyes.gguf", "janus_pro")
    seeing = fleet.start(
        "agent",
        "--name",
        "seeing",
        "--pool",
        "seers",
        "--redis-url",
        fleet.redis_url,
        *REAL,
        "--multimodal-projection",
        str(projection),
    )
    try:
        page = screen.open("fleet")
        expect(page.locator(".agent-box", has_text="seeing")).to_contain_text("ready")
        playground = Playground(screen, fleet, "seers")
        playground.set_up(max_tokens="5", ignore_eos="true")
        expect(attach).to_be_enabled()
        image: FilePayload = {"name": "tiles.png", "mimeType": "image/png", "buffer": picture()}
        playground.page.locator("input[type=file]").set_input_files(image)
        expect(playground.page.get_by_role("list", name="Attached images")).to_be_visible()
        playground.send("What is it?")
        expect(playground.over()).to_contain_text("5 tokens")
        expect(playground.page.locator(".pg-user img")).to_have_attribute("alt", "tiles.png")
        assert playground.known()["state"] == "done"
    finally:
        seeing.kill()


def test_texts_become_vectors_and_a_matrix(screen: Screen, fleet: PanelFleet) -> None:
    flags = ("--name", "library-1", "--pool", "library", "--slots", "2", "--threads", "1")
    library = fleet.start("agent", "--model", str(minilm_path()), *flags, "--redis-url", fleet.redis_url)
    try:
        page = screen.open("fleet")
        expect(page.locator(".agent-box", has_text="library-1")).to_contain_text("ready")
        page = screen.open("playground/embeddings")
        page.get_by_label("Model").select_option("library")
        screen.shoot_all("embeddings-empty")
        page.get_by_role("button", name="Embed 4 texts").click()
        expect(page.get_by_text("4 vectors of 384 numbers")).to_contain_text("by library-1")
        table = page.get_by_role("table", name="Cosine similarity")
        cats, stocks = (
            float(table.locator("tbody tr").nth(row).locator("td").nth(row + 1).inner_text()) for row in (0, 2)
        )
        apart = float(table.locator("tbody tr").nth(0).locator("td").nth(2).inner_text())
        assert min(cats, stocks) > apart + 0.2, "what means alike is alike"
        page.get_by_text("The most alike", exact=True).click()
        page.get_by_text("Vectors", exact=True).click()
        screen.shoot_all("embeddings")
        with page.expect_download() as download:
            page.get_by_role("button", name="Vectors as CSV").click()
        lines = download.value.path().read_text().splitlines()
        assert (len(lines), len(lines[1].split(","))) == (5, 385)
        page.get_by_label("Model").select_option("default")
        page.get_by_label("Texts, one in each line").fill("one\ntwo")
        page.get_by_role("button", name="Embed 2 texts").click()
        expect(page.get_by_text("2 vectors of 576 numbers")).to_contain_text("by agent-1")
    finally:
        library.kill()
