"""How far affinity goes under each rule that is not the design's."""

from __future__ import annotations

from typing import Any

import pytest

from paddler.routing.policy import AgentView, Choice, Give, Nothing, Rules, Waiting, Why, choose

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


def claim(*requests: Waiting, rules: Rules, num_free: int = 1, num_claims: int = 0, held: bytes = SYSTEM) -> Choice:
    """By agent a, 1,000 tokens/s, 4 slots."""
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
    return choose(who, requests, oldest, HOLDERS, NOW, rules)


def test_a_match_here_only_shortens_the_wait_for_a_longer_one_elsewhere() -> None:
    assert claim(waits("r"), rules=Rules()) == Give("r", Why.MATCH)
    assert claim(waits("r"), rules=Rules(nets_own_match=True)) == Nothing(401)
    waited = waits("r", accepted_ms=NOW - 401)
    assert claim(waited, rules=Rules(nets_own_match=True)) == Give("r", Why.MATCH)
    assert claim(waits("r"), rules=Rules(nets_own_match=True), held=LAST) == Give("r", Why.MATCH)
    assert claim(waits("r"), rules=Rules(nets_own_match=True), held=b"?") == Nothing(501)


def test_the_oldest_is_not_taken_from_its_holder_too_early() -> None:
    old, cold = waits("1", accepted_ms=NOW - 10), waits("2", chain=())
    rules = Rules(nets_own_match=True, oldest_must_be_due=True)
    assert claim(old, cold, rules=Rules(), num_claims=7) == Give("1", Why.OLDEST)
    assert claim(old, cold, rules=rules, num_claims=7) == Give("2", Why.OLDEST)
    assert claim(old, rules=rules, num_claims=7) == Nothing(391)
    assert claim(waits("1", accepted_ms=NOW - 401), cold, rules=rules, num_claims=7) == Give("1", Why.OLDEST)


@pytest.mark.parametrize(("num_free", "hint_ms"), [(1, 401), (2, 301), (3, 201), (4, 101)])
def test_an_idle_agent_leaves_requests_to_their_holders_for_a_shorter_time(num_free: int, hint_ms: int) -> None:
    rules = Rules(nets_own_match=True, idle_are_impatient=True)
    assert claim(waits("r"), rules=rules, num_free=num_free) == Nothing(hint_ms)


def test_no_match_moves_a_request_before_one_of_a_higher_class() -> None:
    quick = waits("1", request_class="interactive", chain=())
    batch = waits("2", request_class="batch", chain=TALK[:1])
    assert claim(quick, batch, rules=Rules()) == Give("2", Why.MATCH)
    assert claim(quick, batch, rules=Rules(class_by_class=True)) == Give("1", Why.COLD)


def test_a_slot_does_not_stay_empty_for_a_higher_class() -> None:
    """The interactive request is left to its holder; what may run now, runs."""
    quick = waits("1", request_class="interactive")
    batch = waits("2", request_class="batch", chain=())
    assert claim(quick, batch, rules=Rules(class_by_class=True, nets_own_match=True)) == Give("2", Why.COLD)
    assert claim(quick, rules=Rules(class_by_class=True, nets_own_match=True)) == Nothing(401)


@pytest.mark.parametrize(("score", "given"), [(10.0, "many"), (20.0, "many"), (20.1, "single")])
def test_another_tenants_match_overtakes_by_a_bounded_number_of_tokens(score: float, given: str) -> None:
    single = waits("single", tenant="modest", score=10.0, chain=())
    many = waits("many", tenant="greedy", score=score, chain=TALK[:1])
    rules = Rules(tenant_quantum=10.0)
    chosen = claim(single, many, rules=rules)
    assert isinstance(chosen, Give)
    assert chosen.request_id == given
    assert claim(single, many, rules=Rules()) == Give("many", Why.MATCH)


def test_a_tenant_alone_is_not_bounded() -> None:
    first, last = waits("1", chain=(), tenant="t"), waits("2", score=10**6, chain=TALK[:1], tenant="t")
    assert claim(first, last, rules=Rules(tenant_quantum=0.0)) == Give("2", Why.MATCH)


def test_what_stands_too_far_behind_is_still_taken_before_a_slot_stays_empty() -> None:
    single = waits("1", tenant="modest", chain=((LAST, 500),))
    many = waits("2", tenant="greedy", score=10**6, chain=())
    assert claim(single, many, rules=Rules(tenant_quantum=0.0, nets_own_match=True)) == Give("2", Why.COLD)
