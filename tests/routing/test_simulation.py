"""The routing benchmark's world keeps its own rules, and small runs of it come out the right way round."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from tests.bench.routing import BEGIN, END, SCENARIOS, simulate, summarise, write
from tests.bench.routing_policies import POLICIES, matches
from tests.bench.routing_report import COLOURS, Row, markdown, svg
from tests.bench.routing_world import (
    BYTES_PER_TOKEN,
    CACHE_BLOCKS,
    FLOOD,
    SYSTEM_TOKENS,
    Conversation,
    Fleet,
    Scenario,
    sessions,
)

DOCS = Path(__file__).resolve().parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"
SHORT = Scenario(name="short", load=0.97, minutes=3, warmup_minutes=1)
FLOODED = Scenario(name="flooded", load=0.5, minutes=3, warmup_minutes=1, num_flood=500)


def row(policy: str, scenario: Scenario) -> Row:
    return summarise(scenario, policy, [simulate(scenario, policy, 1)])


def test_sessions_offer_the_load_that_is_asked_for() -> None:
    twice = len(sessions(Scenario(name="", load=1.0), 1)) / len(sessions(Scenario(name="", load=0.5), 1))
    assert twice == pytest.approx(2, rel=0.05)
    assert sessions(SHORT, 1) == sessions(SHORT, 1)
    assert sessions(SHORT, 1) != sessions(SHORT, 2)


def test_a_conversation_has_the_tokens_it_says_and_grows_by_its_beginning() -> None:
    session = sessions(SHORT, 1)[0]
    requests = list(Conversation(session).requests(0))
    assert requests[0].prompt.num_tokens == SYSTEM_TOKENS + session.turns[0].user_tokens
    for request, following in pairwise(requests):
        assert request.whole.num_tokens == request.prompt.num_tokens + request.turn.output_tokens
        assert following.prompt.num_tokens == request.whole.num_tokens + following.turn.user_tokens
        assert following.prompt.chain[: len(request.whole.chain)] == request.whole.chain
        assert following.prompt.blocks[: len(request.whole.blocks)] == request.whole.blocks
        assert following.prompt.chain[-1][1] <= following.prompt.num_tokens
    assert BYTES_PER_TOKEN == 4


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_request_is_served_once_and_every_index_is_true(policy: str) -> None:
    fleet = Fleet(SHORT, 1)
    measured = fleet.run(POLICIES[policy](fleet))
    assert len(measured) > 300
    assert sum(agent.num_claims for agent in fleet.agents) == len(fleet.requests)
    assert all(request.started_s >= request.arrived_s for request in fleet.requests)
    assert all(0 <= request.num_cached < request.prompt.num_tokens for request in fleet.requests)
    for agent in fleet.agents:
        assert agent.num_running == 0
        assert fleet.free[agent.id] == agent.num_slots
        assert len(agent.cache) <= CACHE_BLOCKS
        assert agent.held == {digest for entries in agent.cache.values() for digest in entries}
        assert agent.held == {digest for digest, holders in fleet.holders.items() if agent.id in holders}
    last = fleet.requests[-1]
    assert matches(fleet, last) == {
        agent.number: matched for agent in fleet.agents if (matched := _num_resident(agent.cache, last.prompt.blocks))
    }


def _num_resident(cache: object, blocks: list[int]) -> int:
    assert isinstance(cache, dict)
    return 64 * next((index for index, block in enumerate(blocks) if block not in cache), len(blocks))


def test_the_same_seed_gives_the_same_run() -> None:
    assert simulate(SHORT, "Paddler", 3) == simulate(SHORT, "Paddler", 3)
    assert simulate(SHORT, "Paddler", 3) != simulate(SHORT, "Paddler", 4)


def test_affinity_pays() -> None:
    calm = Scenario(name="calm", load=0.8, minutes=4, warmup_minutes=2)
    ours, least_loaded, blind = (row(policy, calm) for policy in ("Paddler", "least loaded", "blind pull"))
    assert ours.ttft_mean < least_loaded.ttft_mean / 2
    assert ours.ttft_mean < blind.ttft_mean / 2
    assert ours.hit_rate > least_loaded.hit_rate + 0.25


def test_a_flood_of_one_tenant_does_not_starve_the_others() -> None:
    fleet = Fleet(FLOODED, 1)
    measured = fleet.run(POLICIES["Paddler"](fleet))
    flood = [request for request in fleet.requests if request.session.tenant == FLOOD]
    assert len(flood) == FLOODED.num_flood
    last = max(request.started_s for request in flood)
    beside = sorted(request.started_s - request.arrived_s for request in measured if request.arrived_s < last)
    assert last > 60 * FLOODED.warmup_minutes + 60, "the flood lasts"
    assert beside[len(beside) * 95 // 100] < 10


def rows_of(policies: Sequence[str], loads: Sequence[tuple[float, str]]) -> list[Row]:
    return [
        Row(
            scenario=f"load {load} {note}",
            load=load,
            note=note,
            policy=policy,
            num_requests=1,
            ttft_mean=load,
            ttft_p50=1.0,
            ttft_p99=2.0,
            hit_rate=0.5,
            claims={},
        )
        for load, note in loads
        for policy in policies
    ]


def test_the_report_is_markdown_and_svg() -> None:
    rows = rows_of(("a & b", "Paddler"), ((0.5, ""), (1.12, ""), (0.8, "one slow")))
    assert "| a & b | 0.50 | 1.00 | 2.00 | 50.0% |" in markdown(rows)
    drawn = ElementTree.fromstring(svg(rows))
    names = {element.text for element in drawn.iter(f"{SVG}text")}
    assert {"a & b", "Paddler", "load 0.5", "1.12", "0.8", "one slow"} <= names
    assert len([name for name in names if name and "time to first token" in name]) == 3
    assert len(list(drawn.iter(f"{SVG}circle"))) == 4 * len(rows)
    lines = [element for element in drawn.iter(f"{SVG}path") if element.get("stroke") in COLOURS]
    assert len(lines) == 4 * 2 + 2, "loads of the plain fleet are joined, and the legend has a line each"


def test_new_figures_leave_the_text_around_them(tmp_path: Path) -> None:
    page = tmp_path / "routing.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")
    rows = rows_of(("Paddler",), ((0.5, ""),))
    write(tmp_path, rows)
    assert page.read_text() == f"before\n{BEGIN}{markdown(rows)}{END}after\n"


def test_the_documented_figures_are_those_of_one_run() -> None:
    rows = msgspec.json.decode((DOCS / "routing.json").read_bytes(), type=list[Row])
    assert list(dict.fromkeys(row.policy for row in rows)) == list(POLICIES)
    assert list(dict.fromkeys(row.scenario for row in rows)) == [scenario.name for scenario in SCENARIOS]
    assert f"{BEGIN}{markdown(rows)}{END}" in (DOCS / "routing.md").read_text()
    assert svg(rows) == (DOCS / "routing.svg").read_text()
