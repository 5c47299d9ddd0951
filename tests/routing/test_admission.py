"""Who may join the buffer, and what a refused client is told."""

from __future__ import annotations

from typing import Any

import pytest

from paddler.routing.admission import (
    Admission,
    Admitted,
    Limits,
    Load,
    Refusal,
    Refused,
    admit,
    retry_after_s,
    tenant_max,
)


def ask(*, is_batch: bool = False, limits: Limits | None = None, **load: Any) -> Admission:
    facts: dict[str, Any] = {
        "num_waiting": 0,
        "num_waiting_of_tenant": 0,
        "num_free_slots": 0,
        "num_tokens": 500,
        "tokens_per_s": 100.0,
    }
    return admit(Load(**(facts | load)), limits or Limits(max_buffered=10), is_batch=is_batch)


def test_a_free_slot_is_never_refused() -> None:
    limits = Limits(max_buffered=0, tenant_share=0.1, max_wait_ms=1)
    assert ask(num_free_slots=1, limits=limits, num_tokens=10**6) == Admitted(0)
    assert ask(num_free_slots=0, limits=limits) == Refused(Refusal.BUFFER_FULL, 5)


@pytest.mark.parametrize(("num_waiting", "is_admitted"), [(0, True), (9, True), (10, False), (11, False)])
def test_the_count_bounds(num_waiting: int, is_admitted: bool) -> None:
    answer = ask(num_waiting=num_waiting)
    assert isinstance(answer, Admitted) == is_admitted
    if isinstance(answer, Refused):
        assert answer.reason is Refusal.BUFFER_FULL
        assert answer.status == 503


def test_batch_has_its_own_bound_and_no_wait_is_too_long_for_it() -> None:
    limits = Limits(max_buffered=10, max_wait_ms=1_000)
    assert ask(is_batch=True, num_waiting=99_999, limits=limits, num_tokens=10**9) == Admitted(10**10)
    assert ask(is_batch=True, num_waiting=100_000, limits=limits) == Refused(Refusal.BUFFER_FULL, 5)


@pytest.mark.parametrize(("num_tokens", "is_admitted"), [(1_000, True), (1_001, False)])
def test_the_estimated_wait_bounds(num_tokens: int, is_admitted: bool) -> None:
    answer = ask(num_tokens=num_tokens, limits=Limits(max_buffered=10, max_wait_ms=10_000))
    assert answer == (Admitted(10_000) if is_admitted else Refused(Refusal.WAIT_TOO_LONG, 11))


def test_without_agents_only_the_numbers_bound() -> None:
    limits = Limits(max_buffered=10, max_wait_ms=1)
    assert ask(tokens_per_s=0.0, num_tokens=10**9, num_waiting=9, limits=limits) == Admitted(None)
    assert ask(tokens_per_s=0.0, num_waiting=10, limits=limits) == Refused(Refusal.BUFFER_FULL, 10)


@pytest.mark.parametrize(
    ("share", "mine", "refusal"),
    [
        (0.5, 4, None),
        (0.5, 5, Refusal.TENANT_SHARE),
        (0.01, 0, None),
        (0.01, 1, Refusal.TENANT_SHARE),
        (1.0, 9, None),
    ],
)
def test_a_tenant_fills_no_more_than_its_share(share: float, mine: int, refusal: Refusal | None) -> None:
    limits = Limits(max_buffered=10, tenant_share=share)
    answer = ask(num_waiting=9, num_waiting_of_tenant=mine, limits=limits)
    assert (answer.reason if isinstance(answer, Refused) else None) == refusal
    if isinstance(answer, Refused):
        assert answer.status == 429


@pytest.mark.parametrize(
    ("max_waiting", "share", "most"),
    [(10, 0.5, 5), (10, 0.01, 1), (10, 1.0, 0), (1, 0.5, 0), (0, 0.5, 0), (3, 0.99, 2)],
)
def test_a_share_is_at_least_one_and_none_where_it_is_all(max_waiting: int, share: float, most: int) -> None:
    assert tenant_max(max_waiting, share) == most


def test_what_would_not_wait_behind_anybody_needs_a_place_all_the_same() -> None:
    assert ask(num_tokens=0) == Admitted(0)
    assert ask(num_tokens=0, limits=Limits(max_buffered=0)) == Refused(Refusal.BUFFER_FULL, 1)


def test_a_full_buffer_is_the_fleets_state_when_one_tenant_may_fill_it() -> None:
    answer = ask(num_waiting=10, num_waiting_of_tenant=10)
    assert isinstance(answer, Refused)
    assert answer.status == 503


@pytest.mark.parametrize(
    ("wait_ms", "seconds"), [(None, 10), (0, 1), (1, 1), (1_000, 1), (1_001, 2), (119_001, 120), (10**9, 120)]
)
def test_retry_after_is_whole_seconds_from_1_to_120(wait_ms: int | None, seconds: int) -> None:
    assert retry_after_s(wait_ms) == seconds
