"""Which agent a new request is offered to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.routing.policy import Placement, Target, Waiting, choose_agent, freest

A, B, C = b"A", b"B", b"C"


def request(num_tokens: int = 300) -> Waiting:
    chain = ((A, 100), (B, 200), (C, 300))
    return Waiting(id="r", request_class="normal", score=0, accepted_ms=0, chain=chain, num_tokens=num_tokens)


@pytest.mark.parametrize(
    ("holders", "free", "target"),
    [
        ({C: ["x"], A: ["y"]}, {"x": 1, "y": 4, "z": 4}, Target(Placement.HOLDER, "x")),
        ({C: ["x"], A: ["y"]}, {"y": 1, "z": 4}, Target(Placement.HOLDER, "y")),
        ({C: ["x"], A: ["y"]}, {"x": 0, "z": 4}, Target(Placement.HOLDER_IS_BUSY)),
        ({C: ["x", "y", "w"]}, {"w": 1, "x": 2, "y": 2}, Target(Placement.HOLDER, "x")),
        ({}, {"x": 1, "y": 3, "z": 2}, Target(Placement.FREEST, "y")),
        ({}, {"x": 0}, Target(Placement.NO_FREE_SLOT)),
        ({}, {}, Target(Placement.NO_FREE_SLOT)),
        ({C: ["x"]}, {}, Target(Placement.HOLDER_IS_BUSY)),
    ],
)
def test_the_deepest_holder_with_a_free_slot_else_the_freest(
    holders: dict[bytes, list[str]], free: dict[str, int], target: Target
) -> None:
    assert choose_agent(request(), holders, free) == target


def test_less_than_a_tenth_is_cold() -> None:
    assert choose_agent(request(1_000), {A: ["x"]}, {"x": 1, "y": 2}) == Target(Placement.HOLDER, "x")
    assert choose_agent(request(1_001), {A: ["x"]}, {"x": 1, "y": 2}) == Target(Placement.FREEST, "y")
    assert choose_agent(request(1_001), {A: ["x"]}, {}) == Target(Placement.NO_FREE_SLOT)


def test_cold_ties_are_drawn_among_the_freest_in_order_of_id() -> None:
    free = {"z": 2, "x": 2, "y": 1}
    assert [freest(free, draw=draw) for draw in range(4)] == ["x", "z", "x", "z"]
    assert freest({}) is None


def test_a_hint_leads_to_the_same_agent_however_the_fleet_is_listed() -> None:
    agents = [f"agent-{number}" for number in range(8)]
    for hint in ("session-1", "ключ"):
        chosen = {
            choose_agent(request(), {}, dict.fromkeys(order, 4), hint=hint, draw=draw).agent_id
            for order in (agents, agents[::-1])
            for draw in range(3)
        }
        assert len(chosen) == 1
    spread = {freest(dict.fromkeys(agents, 4), hint=f"session-{number}") for number in range(200)}
    assert spread == set(agents)


def test_a_hint_is_pinned_to_what_lua_computes() -> None:
    """`redis.sha1hex(hint .. '\\0' .. agent)`, the highest wins."""
    assert freest({"a": 1, "b": 1, "c": 1}, hint="chat 7") == "c"


@given(st.sets(st.sampled_from("abcdefgh"), min_size=2), st.text(max_size=5))
def test_an_agent_that_leaves_moves_only_its_own_hints(agents: set[str], hint: str) -> None:
    chosen = freest(dict.fromkeys(agents, 1), hint=hint)
    for gone in agents - {chosen}:
        assert freest(dict.fromkeys(agents - {gone}, 1), hint=hint) == chosen


def test_a_hint_only_breaks_ties() -> None:
    hinted = freest({"x": 1, "y": 1}, hint="session")
    other = "y" if hinted == "x" else "x"
    assert choose_agent(request(), {}, {"x": 1, "y": 1, other: 2}, hint="session").agent_id == other
    assert choose_agent(request(), {C: [other]}, {"x": 1, "y": 1}, hint="session").agent_id == other
    assert choose_agent(request(), {C: ["x", "y"]}, {"x": 1, "y": 1}, hint="session").agent_id == hinted
