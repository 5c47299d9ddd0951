"""What an agent takes, rule by rule, and as a property against the rules written down naively."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.routing.policy import (
    CLASSES,
    UNMEASURED_PREFILL_TOKENS_PER_S,
    WINDOW,
    AgentView,
    Choice,
    Give,
    Nothing,
    RequestClass,
    Reserve,
    Rules,
    Waiting,
    Why,
    choose,
    match,
    prefill_ms,
    promotions,
    steal_after_ms,
    window,
)

NOW = 1_000_000
A, B, C, D = b"A", b"B", b"C", b"D"
LADDER = ((A, 100), (B, 200), (C, 300), (D, 400))


def waits(request_id: str, **fields: Any) -> Waiting:
    facts: dict[str, Any] = {
        "request_class": "normal",
        "score": 0.0,
        "accepted_ms": NOW,
        "chain": (),
        "num_tokens": 400,
    }
    return Waiting(id=request_id, **(facts | fields))


def agent(**fields: Any) -> AgentView:
    facts: dict[str, Any] = {
        "id": "a",
        "num_free": 1,
        "held": frozenset[bytes](),
        "prefill_tokens_per_s": 100.0,
        "num_claims": 0,
        "lane_is_empty": False,
        "num_slots": 1,
    }
    return AgentView(**(facts | fields))


def claim(
    who: AgentView,
    *requests: Waiting,
    holders: Mapping[bytes, Sequence[str]] | None = None,
    now_ms: int = NOW,
    rules: Rules | None = None,
) -> Choice:
    """One claim with these waiting."""
    in_order = sorted(requests, key=lambda one: (CLASSES.index(one.request_class), one.score, one.id))
    oldest = sorted(requests, key=lambda one: (one.accepted_ms, one.id))
    return choose(who, in_order[:WINDOW], oldest, holders or {}, now_ms, rules or Rules())


@pytest.mark.parametrize(
    ("held", "num_tokens", "matched"),
    [
        ({D}, 400, 400),
        ({B}, 400, 200),
        ({A, C}, 400, 300),
        (set[bytes](), 400, 0),
        ({A}, 1_000, 100),
        ({A}, 1_001, 0),
        ({b"?"}, 400, 0),
    ],
)
def test_a_match_is_the_deepest_entry_held_and_a_tenth_of_the_prompt(
    held: set[bytes], num_tokens: int, matched: int
) -> None:
    request = waits("r", chain=LADDER, num_tokens=num_tokens)
    assert match(request, held) == matched
    assert match(request, {digest: ["x"] for digest in held}) == matched


def test_an_entry_of_no_tokens_matches_nothing() -> None:
    assert match(waits("r", chain=((A, 0),), num_tokens=0), {A}) == 0


def test_nothing_waits_nothing_is_given() -> None:
    assert claim(agent()) == Nothing(None)
    assert claim(agent(num_free=0), waits("r")) == Nothing(None)


def test_the_longest_match_comes_first_then_cold_then_stolen() -> None:
    short = waits("1", score=1, chain=LADDER[:1])
    cold = waits("2", score=2)
    long = waits("3", score=3, chain=LADDER)
    foreign = waits("4", score=0, chain=((b"x", 400),), accepted_ms=NOW - 60_000)
    holders = {b"x": ["b"]}
    mine = agent(held={A, B})
    assert claim(mine, short, cold, long, foreign, holders=holders) == Give("3", Why.MATCH)
    assert claim(mine, short, cold, foreign, holders=holders) == Give("1", Why.MATCH)
    assert claim(mine, cold, foreign, holders=holders) == Give("2", Why.COLD)
    assert claim(mine, foreign, holders=holders) == Give("4", Why.STOLEN)


def test_equal_matches_go_by_class_then_score_then_id() -> None:
    requests = [
        waits("1", chain=LADDER, request_class="batch", score=0),
        waits("3", chain=LADDER, score=5),
        waits("2", chain=LADDER, score=5),
        waits("4", chain=LADDER, request_class="interactive", score=9),
    ]
    mine = agent(held={A})
    assert claim(mine, *requests) == Give("4", Why.MATCH)
    assert claim(mine, *requests[:3]) == Give("2", Why.MATCH)
    assert claim(mine, *requests[:1]) == Give("1", Why.MATCH)


@pytest.mark.parametrize(
    ("waited_ms", "choice"),
    [
        (0, Nothing(4_001)),
        (3_999, Nothing(2)),
        (4_000, Nothing(1)),
        (4_001, Give("r", Why.STOLEN)),
    ],
)
def test_a_request_is_left_to_its_holder_for_as_long_as_computing_it_takes(waited_ms: int, choice: Choice) -> None:
    request = waits("r", chain=LADDER, accepted_ms=NOW - waited_ms)
    assert claim(agent(), request, holders={D: ["b"], A: ["b", "c"]}) == choice


@pytest.mark.parametrize(
    ("near", "restore_tokens_per_s", "left_ms"),
    [
        ({D}, 10_000.0, 41),
        ({C}, 10_000.0, 1_031),
        ({C}, 50.0, 4_001),  # slower than computing
        (set[bytes](), 10_000.0, 4_001),
    ],
)
def test_what_can_be_restored_sooner_is(near: set[bytes], restore_tokens_per_s: float, left_ms: int) -> None:
    asking = agent(near=near, restore_tokens_per_s=restore_tokens_per_s)
    assert claim(asking, waits("r", chain=LADDER), holders={D: ["b"]}) == Nothing(left_ms)


def test_the_hint_is_the_first_to_become_stealable() -> None:
    later = waits("1", chain=LADDER)
    sooner = waits("2", chain=LADDER[:1], num_tokens=200, score=9)
    assert claim(agent(), later, sooner, holders={D: ["b"], A: ["b"]}) == Nothing(1_001)


def test_an_unmeasured_speed_is_no_reason_to_wait_for_ever() -> None:
    speeds = (0.0, UNMEASURED_PREFILL_TOKENS_PER_S)
    assert [steal_after_ms(prefill_ms(400, 0, 0, speed, 0.0)) for speed in speeds] == [801, 801]


def test_a_request_whose_holders_are_gone_is_cold() -> None:
    assert claim(agent(), waits("r", chain=LADDER), holders={}) == Give("r", Why.COLD)


@pytest.mark.parametrize(("num_claims", "given"), [(6, "2"), (7, "1"), (8, "2"), (15, "1")])
def test_every_eighth_claim_takes_the_oldest_of_all(num_claims: int, given: str) -> None:
    many = [waits(f"x{number:03}", score=number) for number in range(WINDOW)]
    old = waits("1", request_class="batch", score=9, accepted_ms=NOW - 1_001, chain=LADDER)
    best = waits("2", chain=((b"mine", 400),))
    chosen = claim(agent(num_claims=num_claims, held={b"mine"}), *many, old, best, holders={A: ["b"]})
    assert isinstance(chosen, Give)
    assert chosen.request_id == given


def test_the_window_is_64_with_classes_in_order() -> None:
    orders: dict[RequestClass, list[Waiting]] = {
        "batch": [waits(f"b{number}", request_class="batch") for number in range(3)],
        "interactive": [waits(f"i{number}", request_class="interactive") for number in range(2)],
        "normal": [waits(f"n{number}") for number in range(61)],
    }
    ids = [request.id for request in window(orders)]
    assert len(ids) == WINDOW
    assert ids[:3] == ["i0", "i1", "n0"]
    assert ids[-2:] == ["n60", "b0"]
    assert window({}) == []


def test_a_suspect_gets_a_lane_of_its_own() -> None:
    fragile, sound = waits("1", is_suspect=True), waits("2", score=1)
    assert claim(agent(), fragile, sound) == Reserve("1")
    assert claim(agent(lane_is_empty=True), fragile, sound) == Give("1", Why.COLD)
    holding = agent(reserved="1", held={A})
    assert claim(holding, fragile, waits("3", chain=LADDER)) == Reserve("1")
    empty = agent(reserved="1", held={A}, lane_is_empty=True)
    assert claim(empty, fragile, waits("3", chain=LADDER)) == Give("1", Why.RESERVED)


@pytest.mark.parametrize("num_claims", [0, 7])
def test_what_another_has_reserved_or_this_one_gave_up_is_passed_over(num_claims: int) -> None:
    taken = waits("1", is_suspect=True, suitor="b", accepted_ms=NOW - 9)
    given_up = waits("2", avoid="a", accepted_ms=NOW - 8)
    who = agent(num_claims=num_claims)
    assert claim(who, taken, given_up) == Nothing(None)
    chosen = claim(who, taken, given_up, waits("3"))
    assert isinstance(chosen, Give)
    assert chosen.request_id == "3"


def old(request_id: str, **fields: Any) -> Waiting:
    return waits(request_id, **{"accepted_ms": NOW - 10**6, "tenant": request_id, **fields})


def promote(
    *requests: Waiting, promoted: dict[tuple[RequestClass, str], str] | None = None
) -> list[tuple[str, RequestClass]]:
    """With these waiting, each class in the order given."""
    names: tuple[RequestClass, ...] = CLASSES
    orders: dict[RequestClass, list[Waiting]] = {
        name: [one for one in requests if one.request_class == name] for name in names
    }
    return [(one.request_id, one.request_class) for one in promotions(orders, promoted or {}, NOW)]


def test_promotion_is_by_the_time_in_the_class_one_class_at_a_time() -> None:
    assert promote(
        old("i", request_class="interactive"),
        old("n", accepted_ms=NOW - 30_000),
        old("n2", accepted_ms=NOW - 29_999),
        old("b", request_class="batch", accepted_ms=NOW - 120_000),
        old("b2", request_class="batch", accepted_ms=NOW - 119_999),
    ) == [("n", "interactive"), ("b", "normal")]
    assert promote(old("b", since_ms=NOW - 29_999)) == []
    assert promote(old("b", since_ms=NOW - 30_000)) == [("b", "interactive")]


def test_promotion_follows_the_order_of_the_class_to_the_first_that_is_not_due() -> None:
    """Whoever stands behind a newcomer by fair queueing does not get before it by age."""
    assert promote(old("1"), waits("2", tenant="new"), old("3")) == [("1", "interactive")]
    assert len(promote(*(old(f"{number}") for number in range(20)))) == 16


def test_a_tenant_has_one_promoted_request_at_a_time_in_a_class() -> None:
    many = [old(f"{number}", tenant="t") for number in range(3)]
    assert promote(*many, old("other")) == [("0", "interactive"), ("other", "interactive")]
    assert promote(*many, promoted={("interactive", "t"): "x"}) == []
    moving, waiting = old("moving", tenant="t"), old("waiting", tenant="t", request_class="batch")
    place: dict[tuple[RequestClass, str], str] = {("normal", "t"): "moving"}
    assert promote(moving, waiting, promoted=place) == [("moving", "interactive"), ("waiting", "normal")]
    assert promote(waiting, promoted=place) == []


HASHES = st.sampled_from((A, B, C, D, b"x", b"y"))
CHAINS = st.lists(st.tuples(HASHES, st.integers(0, 120)), max_size=4).map(
    lambda entries: tuple(sorted(dict(entries).items(), key=lambda entry: entry[1]))
)
REQUESTS = st.lists(
    st.builds(
        Waiting,
        id=st.uuids().map(str),
        request_class=st.sampled_from(CLASSES),
        score=st.integers(0, 9).map(lambda number: number * 256.0),
        accepted_ms=st.integers(NOW - 3_000, NOW),
        chain=CHAINS,
        num_tokens=st.integers(0, 800),
        is_suspect=st.sampled_from((False, False, False, True)),
        suitor=st.sampled_from((None, None, None, "a", "b")),
        avoid=st.sampled_from((None, None, None, "a", "b")),
        tenant=st.sampled_from("xyz"),
    ),
    max_size=12,
    unique_by=lambda request: request.id,
)
HOLDERS = st.dictionaries(HASHES, st.lists(st.sampled_from("bcd"), min_size=1, max_size=3))
AGENTS = st.builds(
    AgentView,
    id=st.just("a"),
    num_free=st.integers(1, 4),
    held=st.frozensets(HASHES),
    prefill_tokens_per_s=st.sampled_from((0.0, 33.3, 500.0)),
    num_claims=st.integers(0, 16),
    lane_is_empty=st.booleans(),
    num_slots=st.just(4),
)
RULES = st.builds(
    Rules,
    nets_own_match=st.booleans(),
    oldest_must_be_due=st.booleans(),
    idle_are_impatient=st.booleans(),
    class_by_class=st.booleans(),
    tenant_quantum=st.sampled_from((None, 0.0, 10.0)),
)


def naive(who: AgentView, requests: list[Waiting], holders: Mapping[bytes, Sequence[str]]) -> Choice:
    """The rules word for word."""

    def longest(request: Waiting, held: Mapping[bytes, object] | frozenset[bytes]) -> int:
        ends = [end for digest, end in request.chain if digest in held and end * 10 >= request.num_tokens]
        return max(ends, default=0)

    def place(request: Waiting) -> tuple[int, float, str]:
        return CLASSES.index(request.request_class), request.score, request.id

    assert isinstance(who.held, frozenset)
    speed = who.prefill_tokens_per_s or UNMEASURED_PREFILL_TOKENS_PER_S
    mine = sorted((one for one in requests if one.suitor in (None, who.id) and one.avoid != who.id), key=place)
    own = {one.id: longest(one, who.held) for one in mine}
    most = {one.id: max(own[one.id], longest(one, holders)) for one in mine}
    part_busy = (who.num_slots - who.num_free + 1) / who.num_slots
    left: dict[str, float] = {}
    for one in mine:
        saved = most[one.id] - own[one.id]
        left[one.id] = one.accepted_ms + saved * 1000 / speed * part_busy - NOW if saved else -1.0
    due = [one for one in mine if left[one.id] < 0]

    def is_far(request: Waiting) -> bool:
        others = [
            one.score for one in mine if one.request_class == request.request_class and one.tenant != request.tenant
        ]
        return bool(others) and request.score > min(others) + 1024

    def preference(request: Waiting) -> tuple[object, ...]:
        why = reason(request)
        ranks = [Why.MATCH, Why.COLD, Why.STOLEN].index(why), -own[request.id]
        return CLASSES.index(request.request_class), is_far(request), *ranks, place(request)

    def reason(request: Waiting) -> Why:
        if own[request.id]:
            return Why.MATCH
        return Why.STOLEN if most[request.id] else Why.COLD

    if not due:
        return Nothing(int(min(left.values())) + 1 if left else None)
    if who.num_claims % 8 == 7:
        request, why = min(due, key=lambda one: (one.accepted_ms, one.id)), Why.OLDEST
    else:
        request = min(due, key=preference)
        why = reason(request)
    return Reserve(request.id) if request.is_suspect and not who.lane_is_empty else Give(request.id, why)


@given(AGENTS, REQUESTS, HOLDERS)
def test_the_choice_is_that_of_the_rules_word_for_word(
    who: AgentView, requests: list[Waiting], holders: dict[bytes, list[str]]
) -> None:
    assert claim(who, *requests, holders=holders) == naive(who, requests, holders)


@given(AGENTS, REQUESTS, HOLDERS, RULES)
def test_nobody_idles_longer_than_the_hint(
    who: AgentView, requests: list[Waiting], holders: dict[bytes, list[str]], rules: Rules
) -> None:
    """Under any rules: what may be taken is taken, now or when the hint says, and not a millisecond earlier."""
    chosen = claim(who, *requests, holders=holders, rules=rules)
    mine = [one for one in requests if one.suitor in (None, "a") and one.avoid != "a"]
    if not isinstance(chosen, Nothing):
        assert chosen.request_id in {one.id for one in mine}
    elif not mine:
        assert chosen == Nothing(None)
    else:
        assert chosen.hint_ms is not None
        assert chosen.hint_ms >= 1
        assert all(match(one, holders) > 0 for one in mine), "a cold request is left to nobody"
        later = claim(who, *requests, holders=holders, now_ms=NOW + chosen.hint_ms, rules=rules)
        assert not isinstance(later, Nothing)
        sooner = claim(who, *requests, holders=holders, now_ms=NOW + chosen.hint_ms - 1, rules=rules)
        assert sooner == Nothing(1)
