"""What the dashboard is made of, without a terminal or a balancer."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from paddler.dashboard import text
from paddler.dashboard.columns import AGENTS, REQUESTS, fitted, state_of
from paddler.dashboard.details import agent_details
from paddler.dashboard.filtering import AgentFilter, RequestFilter
from paddler.dashboard.objects import Agent, Pool, Request, Tier
from paddler.dashboard.picture import Picture
from paddler.dashboard.samples import Samples
from paddler.dashboard.words import summary


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        (-5, "0.0 s"),
        (840, "0.8 s"),
        (9_960, "10 s"),
        (59_499, "59 s"),
        (59_600, "1m00s"),
        (245_000, "4m05s"),
        (11_520_000, "3h12m"),
        (359_990_000, "99h59m"),
        (360_000_000, "4 d"),
        (1_036_800_000, "12 d"),
    ],
)
def test_durations_are_short(ms: float, told: str) -> None:
    assert text.short(ms) == told
    assert len(told) <= 6


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0"),
        (7.44, "7.4"),
        (9.96, "10"),
        (124.4, "124"),
        (9999, "9999"),
        (12_345, "12k"),
        (3.2e6, "3M"),
        (2e9, "2G"),
    ],
)
def test_amounts_are_short(value: float, told: str) -> None:
    assert text.amount(value) == told


@pytest.mark.parametrize("name", ["short", "rather-long-name", "模型模型模型", "a\x1b[31mb", "a\nb", ""])
def test_text_fits_its_cells(name: str) -> None:
    for width in range(12):
        for right in (False, True):
            fitting = text.fit(name, width, right=right)
            assert (cell_len(fitting), fitting.isprintable()) == (width, True)


def test_a_sparkline() -> None:
    assert text.sparkline([0, 1, 4, 8], 6) == "  ▁▂▅█"
    assert text.sparkline([1, None, 1], 2) == " █"
    assert text.sparkline([0.001, 100], 2) == "▂█"
    assert text.sparkline([], 3) == "   "
    assert text.sparkline([0, 0], 2) == "▁▁"
    assert text.sparkline([5], 1, top=10) == "▅"


def test_samples_keep_their_seconds() -> None:
    samples = Samples(kept=5)
    samples.take(1, 10.1)
    samples.take(2, 10.9)
    assert samples.values == [2]
    samples.take(3, 13.0)
    assert samples.values == [2, None, None, 3]
    samples.take(4, 1e6)
    assert samples.values == [None, None, None, None, 4]


@pytest.mark.parametrize("width", [20, 40, 79, 80, 99, 100, 132, 250])
def test_columns_fill_the_width_and_no_more(width: int) -> None:
    agents, requests = fitted(AGENTS, width), fitted(REQUESTS, width)
    for rooms in ([room for _, room in agents], [room for _, room in requests]):
        used = sum(rooms) + 2 * (len(rooms) - 1)
        assert used <= max(width, 79)
        assert used >= min(width, 72)


def test_states_tell_how_far_they_are() -> None:
    def told(**fields: object) -> str:
        return state_of(Agent(id="a", **fields)).text  # pyright: ignore[reportArgumentType]

    assert told(state="ready") == "ready"
    assert told(state="loading", phase="weights", progress=0.42) == "weights 42%"
    assert told(state="loading") == "loading"
    assert told(state="waiting") == "waiting"
    downloading = {"state": "waiting", "download_filename": "m", "download_current": 5_000_000}
    assert told(**downloading, download_total=10_000_000) == "download 50%"
    assert told(**downloading) == "download 5MB"


def test_an_agent_shows_what_its_cache_holds() -> None:
    def told(**fields: Any) -> str:
        console = Console(width=120)
        with console.capture() as shown:
            console.print(agent_details(Agent(id="a", **fields), None))
        return " ".join(shown.get().split())

    held = {"slots_total": 2, "context_size": 8192, "held_tokens": 4096, "held_sequences": 3, "max_parked": 64}
    saved = {"saved_tokens": 500, "saved_bytes": 20_000_000, "restored_tokens": 70}
    assert "4,096 of 8,192 tokens in 3 sequences, 64 of them ended at most" in told(**held)
    assert "500 tokens saved in 20 MB, 70 came back" in told(**held, **saved)
    assert "host memory" not in told(**held)
    disk = Tier(tier="disk", hits=3, misses=1, tokens=768, saved_ms=2500, bytes=17_700_000, blocks=3)
    assert "tier disk 3 blocks in 18 MB, 3 of 4 blocks found, 768 tokens came back (2.5 s saved)" in told(tiers=[disk])
    assert "held" not in told(slots_total=0, context_size=8192)


def test_filters() -> None:
    agent = Agent(id="agent-1", name="Berlin", model="SmolLM2", state="ready")
    for typed, passes in (("", True), ("ber smol", True), ("READY", True), ("ber qwen", False), ("agent-1", True)):
        assert AgentFilter.parse(typed).passes(agent) == passes
    parsed = RequestFilter.parse("tenant=Acme STATE=waiting agent=Berlin chat nonsense=", [agent])
    assert dict(parsed.asked) == {"tenant": "Acme", "state": "waiting", "agent": "agent-1"}
    assert parsed.words == ("chat", "nonsense=")
    assert RequestFilter.parse("acme", []).passes(Request(id="default.x", state="running", tenant="Acme"))
    assert not RequestFilter.parse("acme", []).passes(Request(id="default.x", state="running"))


def test_a_picture_knows_when_each_agent_was_heard_of() -> None:
    picture = Picture("default")
    one, two = Agent(id="1"), Agent(id="2")
    picture.agents_told([one, two], 10.0)
    assert picture.updated_s(one, 11.0) is None
    aged = Agent(id="1", since_renewal_ms=500)
    picture.agents_told([aged, two], 20.0)
    assert picture.updated_s(one, 20.0) == 0.5
    picture.agents_told([one, two], 21.0)
    assert picture.updated_s(one, 21.0) == 1.5
    picture.agents_told([Agent(id="1", slots_processing=1), two], 22.0)
    assert picture.updated_s(one, 22.0) == 0.0
    picture.agents_told([two], 23.0)
    picture.agents_told([one, two], 24.0)
    assert picture.updated_s(one, 24.0) == 0.0


def test_the_heading_has_the_slots_of_the_table() -> None:
    """An agent is told at once, the pool's numbers are a second old."""
    picture = Picture("default")
    picture.pool_told(Pool(name="default", demand=3))
    assert summary(picture) == "slots 0/0 busy  demand 3"
    picture.agents_told([Agent(id="1", slots_total=2, slots_processing=1), Agent(id="2", slots_total=4)], 1.0)
    assert summary(picture) == "slots 1/6 busy  demand 3"


def test_a_picture_is_in_trouble_while_any_source_is() -> None:
    picture = Picture("default")
    picture.heard("agents", 1.0)
    picture.waiting_told(3)
    picture.sample(1.0)
    assert (picture.trouble, picture.buffer.latest) == (None, 3)
    picture.silent("pool", "away", 2.0)
    picture.silent("agents", "gone", 3.0)
    picture.silent("pool", "still away", 4.0)
    assert picture.trouble is not None
    assert (picture.trouble.words, picture.trouble.since) == ("still away", 2.0)
    picture.sample(4.0)
    assert picture.buffer.latest is None
    version = picture.version
    picture.heard("pool", 5.0)
    assert picture.trouble.words == "gone"
    picture.heard("agents", 5.0)
    assert (picture.trouble, picture.version) == (None, version + 2)
    picture.heard("agents", 6.0)
    assert picture.version == version + 2
