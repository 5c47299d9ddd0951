"""The scripts of limits, each with time as an argument: what they let through, and what becomes of a reservation."""

from __future__ import annotations

from typing import Any

import pytest

from paddler.store.client import Store
from paddler.store.scripts_tenants import End, Reserved, Verdict
from paddler.store.tenant_keys import TenantKeys

pytestmark = pytest.mark.anyio

DAY = 86_400_000
NOON = 20_788 * DAY + DAY // 2
MINUTE = 60_000


class Tenant:
    """One tenant's key, moved by hand."""

    def __init__(self, store: Store, name: str = "alice", **limits: int) -> None:
        self.keys = TenantKeys(store.prefix, name)
        self.redis = store.redis
        self._name = name
        self._scripts = store.tenant_scripts
        none = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "max_in_flight", "daily_tokens"), 0)
        self._limits = none | limits

    async def reserve(self, request_id: str, tokens: int = 1, *, now: float = NOON, **how: Any) -> Reserved:
        known: dict[str, Any] = {"num_parts": 1, "hold_ms": 30_000}
        return await self._scripts.reserve(
            self._name, "k", request_id, tokens=tokens, now_ms=now, **(known | self._limits | how)
        )

    async def verdict(self, request_id: str, tokens: int = 1, **how: Any) -> Verdict:
        return (await self.reserve(request_id, tokens, **how)).verdict

    async def adjust(self, request_id: str, what: str, number: int, *, now: float = NOON) -> bool:
        per_minute = self._limits["requests_per_minute"]
        return await self._scripts.adjust(
            self._name, "k", request_id, what, number, requests_per_minute=per_minute, now_ms=now
        )

    async def account(self, *ends: End, now: float = NOON) -> int:
        return await self._scripts.account(self._name, "default", ends, now_ms=now)

    async def usage(self, day: int = NOON // DAY) -> dict[str, int]:
        return {name.decode(): int(number) for name, number in (await self.redis.hgetall(self.keys.usage(day))).items()}

    async def of_today(self) -> tuple[int, int]:
        used, held = await self.redis.hmget(self.keys.limits("k"), "used", "held")
        return int(used or 0), int(held or 0)


def end(number: int, request_id: str, prompt: int = 10, cached: int = 4, output: int = 5, at: int = NOON) -> End:
    return End(f"{at}-{number}", "k", request_id, "tiny", prompt, cached, output, is_first=True)


async def test_requests_of_a_minute_may_come_at_once_and_then_at_their_rate(any_store: Store) -> None:
    alice = Tenant(any_store, requests_per_minute=3)
    left = [(await alice.reserve(f"r{number}")).requests_left for number in range(3)]
    assert left == [2, 1, 0]
    refused = await alice.reserve("r3")
    assert (refused.verdict, refused.wait_ms, refused.requests_reset_ms) == (Verdict.REQUESTS, 20_000, MINUTE)
    assert await alice.verdict("r3", now=NOON + 19_999) is Verdict.REQUESTS
    assert await alice.verdict("r3", now=NOON + 20_000) is Verdict.OK
    assert await alice.verdict("r4", now=NOON + 20_000) is Verdict.REQUESTS


async def test_what_another_key_or_tenant_does_costs_nothing(store: Store) -> None:
    alice, bob = (Tenant(store, name, requests_per_minute=1) for name in ("alice", "bob"))
    assert [await one.verdict("r") for one in (alice, bob)] == [Verdict.OK] * 2
    assert [await one.verdict("s") for one in (alice, bob)] == [Verdict.REQUESTS] * 2


async def test_tokens_are_reserved_by_estimate_and_corrected_at_the_end(any_store: Store) -> None:
    alice = Tenant(any_store, tokens_per_minute=600)
    assert (await alice.reserve("a", 500)).tokens_left == 100
    refused = await alice.reserve("b", 200)
    assert (refused.verdict, refused.wait_ms, refused.tokens_left) == (Verdict.TOKENS, 10_000, 100)
    assert await alice.adjust("a", "ended", 20)
    assert (await alice.reserve("b", 200)).tokens_left == 380, "only what was used counts"
    await alice.adjust("b", "ended", 700)
    refused = await alice.reserve("c", 1)
    assert (refused.verdict, refused.tokens_left) == (Verdict.TOKENS, 0), "what was more than reserved is owed"


async def test_more_than_a_minute_has_passes_once_all_of_it_is_there(store: Store) -> None:
    alice = Tenant(store, tokens_per_minute=100)
    assert await alice.verdict("a", 1) is Verdict.OK
    assert await alice.verdict("big", 250) is Verdict.TOKENS
    assert await alice.verdict("big", 250, now=NOON + 600) is Verdict.OK
    assert await alice.verdict("b", 1, now=NOON + 600 + MINUTE) is Verdict.TOKENS, "it is paid off first"
    assert await alice.verdict("b", 1, now=NOON + 600 + 2 * MINUTE) is Verdict.OK


async def test_places_in_flight_are_given_back_at_the_end(any_store: Store) -> None:
    alice = Tenant(any_store, max_in_flight=2)
    assert [await alice.verdict(name) for name in "abc"] == [Verdict.OK, Verdict.OK, Verdict.IN_FLIGHT]
    assert await alice.adjust("a", "ended", -1), "with tokens that nobody knows yet"
    assert not await alice.adjust("a", "ended", -1)
    assert [await alice.verdict(name) for name in "cd"] == [Verdict.OK, Verdict.IN_FLIGHT]


async def test_the_budget_of_a_day_counts_what_runs_and_begins_anew_at_midnight(any_store: Store) -> None:
    alice = Tenant(any_store, daily_tokens=100)
    assert await alice.verdict("a", 60) is Verdict.OK
    refused = await alice.reserve("b", 60)
    assert (refused.verdict, refused.wait_ms) == (Verdict.BUDGET, DAY // 2)
    await alice.adjust("a", "ended", 30)
    assert await alice.of_today() == (0, 30), "held until it is accounted"
    assert await alice.verdict("b", 60) is Verdict.OK
    assert await alice.account(end(1, "a", prompt=20, output=10), end(2, "b", prompt=40, output=25)) == 2
    assert await alice.of_today() == (95, 0)
    assert await alice.verdict("c", 6) is Verdict.BUDGET
    assert await alice.verdict("c", 100, now=NOON + DAY // 2) is Verdict.OK, "a new day"


async def test_a_reservation_whose_balancer_died_before_it_submitted_is_given_up(any_store: Store) -> None:
    alice = Tenant(any_store, max_in_flight=1, daily_tokens=100)
    assert await alice.verdict("a", 90) is Verdict.OK
    assert await alice.verdict("b", 90, now=NOON + 29_999) is Verdict.IN_FLIGHT
    assert await alice.verdict("b", 90, now=NOON + 30_000) is Verdict.OK
    assert await alice.of_today() == (0, 90)


async def test_a_request_that_was_submitted_is_held_until_it_ends(store: Store) -> None:
    alice = Tenant(store, max_in_flight=1)
    await alice.reserve("a")
    assert await alice.adjust("a", "submitted", DAY)
    assert await alice.verdict("b", now=NOON + DAY - 1) is Verdict.IN_FLIGHT
    await alice.account(end(1, "a"), now=NOON + DAY - 1)
    assert await alice.verdict("b", now=NOON + DAY - 1) is Verdict.OK, "who accounts its end frees it, too"


async def test_what_the_queue_refuses_costs_nothing(any_store: Store) -> None:
    alice = Tenant(any_store, requests_per_minute=1, tokens_per_minute=100, max_in_flight=1, daily_tokens=100)
    before = await alice.reserve("a", 100)
    assert (before.requests_left, before.tokens_left) == (0, 0)
    assert await alice.adjust("a", "refused", 1)
    assert not await alice.adjust("a", "refused", 1), "once"
    after = await alice.reserve("b", 100)
    assert (after.verdict, after.requests_left, after.tokens_left) == (Verdict.OK, 0, 0)


async def test_the_same_reservation_again_changes_nothing(any_store: Store) -> None:
    """Its answer was lost with a connection."""
    alice = Tenant(any_store, requests_per_minute=2, max_in_flight=2)
    assert await alice.verdict("a", 10) is Verdict.OK
    assert await alice.verdict("a", 10) is Verdict.KNOWN
    assert (await alice.reserve("b", 10)).requests_left == 0
    assert await alice.of_today() == (0, 20)


async def test_the_first_request_of_a_call_answers_for_all_and_the_others_only_cost(store: Store) -> None:
    alice = Tenant(store, requests_per_minute=3, tokens_per_minute=101, max_in_flight=3)
    await alice.reserve("before", 1)
    await alice.adjust("before", "ended", 1)
    assert await alice.verdict("a", 30, num_parts=4) is Verdict.TOKENS
    first = await alice.reserve("a", 30, num_parts=3)
    assert (first.verdict, first.requests_left, first.tokens_left) == (Verdict.OK, 1, 70)
    second = await alice.reserve("b", 30, num_parts=0)
    third = await alice.reserve("c", 50, num_parts=0)
    assert (second.requests_left, second.tokens_left, third.tokens_left) == (1, 40, 0)
    assert await alice.verdict("d", 1, num_parts=0) is Verdict.IN_FLIGHT


async def test_an_end_counts_once_whoever_accounts_it_and_however_often(any_store: Store) -> None:
    alice = Tenant(any_store)
    ends = [end(number, f"r{number}") for number in range(1, 4)]
    assert await alice.account(*ends[:2]) == 2
    assert await alice.account(*ends) == 1, "another process had read one more"
    assert await alice.account(*ends[:1]) == 0, "and one is late"
    expected = {"k|requests|tiny": 3, "k|prompt|tiny": 30, "k|cached|tiny": 12, "k|output|tiny": 15}
    assert await alice.usage() == expected
    assert (await alice.of_today())[0] == 45


async def test_the_second_end_of_a_dead_letter_is_no_second_request(store: Store) -> None:
    alice = Tenant(store)
    again = End(f"{NOON}-2", "k", "a", "tiny", 10, 0, 5, is_first=False)
    await alice.account(End(f"{NOON}-1", "k", "a", "", 0, 0, 0, is_first=True), again)
    assert await alice.usage() == {"k|requests|": 1, "k|prompt|tiny": 10, "k|output|tiny": 5}


async def test_usage_is_of_the_day_on_which_it_ended(store: Store) -> None:
    alice = Tenant(store)
    await alice.account(end(1, "a", at=NOON), end(1, "b", at=NOON + DAY), now=NOON + DAY)
    today = NOON // DAY
    assert [(await alice.usage(day))["k|requests|tiny"] for day in (today, today + 1)] == [1, 1]
    assert (await alice.of_today())[0] == 15
