"""How far affinity goes: each of `Rules`, beside what would be without it."""

from __future__ import annotations

from typing import Any

import pytest

from paddler.routing.policy import RULES, AgentView, Choice, Give, Nothing, Rules, Waiting, Why, choose

NOW = 1_000_000
SYSTEM, TURN, LAST = b"S", b"T", b"L"
TALK = ((SYSTEM, 100), (TURN, 300), (LAST, 500))
HOLDERS = {LAST: ["b"], TURN: ["b"], SYSTEM: ["a", "b"]}


def waits(request_id: str, **fields: Any) -> Waiting:
    facts: dict[str, Any] = {
        "request_class": "normal",
        "score": 0.0,
        "accepted_ms": NOW,
        "chain": TALK,
        "num_tokens": 500,
    }
    return Waiting(id=request_id, **(facts | fields))


def claim(
    *requests: Waiting,
    rules: Rules = RULES,
    num_free: int = 1,
    num_claims: int = 0,
    held: bytes = SYSTEM,
    now_ms: int = NOW,
) -> Choice:
    """By agent a, 1,000 tokens/s, 4 slots of which all others are busy."""
    who = AgentView(
        id="a",
        num_free=num_free,
        held={held},
        prefill_tokens_per_s=1_000.0,
        num_claims=num_claims,
        lane_is_empty=False,
        num_slots=4,
    )
    oldest = sorted(requests, key=lambda one: (one.accepted_ms, one.id))
    return choose(who, requests, oldest, HOLDERS, now_ms, rules)


def test_a_match_here_only_shortens_the_wait_for_a_longer_one_elsewhere() -> None:
    assert claim(waits("r"), rules=Rules(nets_own_match=False)) == Give("r", Why.MATCH)
    assert claim(waits("r")) == Nothing(401)
    assert claim(waits("r", accepted_ms=NOW - 401)) == Give("r", Why.MATCH)
    assert claim(waits("r"), held=LAST) == Give("r", Why.MATCH)
    assert claim(waits("r"), held=b"?") == Nothing(501)


def test_a_shorter_match_that_is_due_comes_before_a_longer_one_that_is_not() -> None:
    assert claim(waits("1"), waits("2", chain=TALK[:1])) == Give("2", Why.MATCH)
    longer = waits("1", chain=((TURN, 300), (LAST, 500)))
    assert claim(longer, waits("2", chain=((b"?", 100),)), held=TURN) == Give("2", Why.COLD)
    assert claim(longer, held=TURN) == Nothing(201)


def test_the_oldest_is_not_taken_from_its_holder_too_early() -> None:
    old, cold = waits("1", accepted_ms=NOW - 10), waits("2", chain=())
    assert claim(old, cold, rules=Rules(oldest_must_be_due=False), num_claims=7) == Give("1", Why.OLDEST)
    assert claim(old, cold, num_claims=7) == Give("2", Why.OLDEST)
    assert claim(old, num_claims=7) == Nothing(391)
    assert claim(waits("1", accepted_ms=NOW - 401), cold, num_claims=7) == Give("1", Why.OLDEST)


@pytest.mark.parametrize(("num_free", "hint_ms"), [(1, 401), (2, 301), (3, 201), (4, 101)])
def test_an_idle_agent_leaves_requests_to_their_holders_for_a_shorter_time(num_free: int, hint_ms: int) -> None:
    assert claim(waits("r"), num_free=num_free) == Nothing(hint_ms)
    assert claim(waits("r"), num_free=num_free, rules=Rules(idle_are_impatient=False)) == Nothing(401)


def test_no_match_moves_a_request_before_one_of_a_higher_class() -> None:
    quick = waits("1", request_class="interactive", chain=())
    batch = waits("2", request_class="batch", chain=TALK[:1])
    assert claim(quick, batch, rules=Rules(class_by_class=False)) == Give("2", Why.MATCH)
    assert claim(quick, batch) == Give("1", Why.COLD)


def test_a_slot_does_not_stay_empty_for_a_higher_class() -> None:
    """The interactive request is left to its holder; what may run now, runs."""
    quick = waits("1", request_class="interactive")
    batch = waits("2", request_class="batch", chain=())
    assert claim(quick, batch) == Give("2", Why.COLD)
    assert claim(quick) == Nothing(401)


def test_the_hint_is_the_least_of_all_classes() -> None:
    quick, batch = waits("1", request_class="interactive"), waits("2", request_class="batch", chain=TALK[1:2])
    assert claim(quick, batch, held=b"?") == claim(batch, quick, held=b"?") == Nothing(301)


@pytest.mark.parametrize(("score", "given"), [(1_034.0, "many"), (1_034.1, "single")])
def test_another_tenants_match_overtakes_by_a_bounded_number_of_tokens(score: float, given: str) -> None:
    single = waits("single", tenant="modest", score=10.0, chain=())
    many = waits("many", tenant="greedy", score=score, chain=TALK[:1])
    chosen = claim(single, many)
    assert isinstance(chosen, Give)
    assert chosen.request_id == given
    assert claim(single, many, rules=Rules(tenant_quantum=None)) == Give("many", Why.MATCH)


def test_the_first_ones_tenant_is_measured_by_the_first_of_another() -> None:
    """Its later requests may not overtake that, however long their match."""
    first, later = waits("1", chain=(), tenant="t"), waits("2", score=2_000.0, chain=TALK[:1], tenant="t")
    other = waits("3", score=975.0, chain=(), tenant="u")
    assert claim(first, other, later) == Give("1", Why.COLD)
    assert claim(first, waits("3", score=976.0, chain=(), tenant="u"), later) == Give("2", Why.MATCH)


def test_a_tenant_alone_is_not_bounded() -> None:
    first, last = waits("1", chain=(), tenant="t"), waits("2", score=10**6, chain=TALK[:1], tenant="t")
    assert claim(first, last) == Give("2", Why.MATCH)


def test_what_stands_too_far_behind_is_still_taken_before_a_slot_stays_empty() -> None:
    single = waits("1", tenant="modest", chain=((LAST, 500),))
    many = waits("2", tenant="greedy", score=10**6, chain=())
    assert claim(single, many) == Give("2", Why.COLD)
