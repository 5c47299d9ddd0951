"""Whether reading is worth it, and when what fails is tried again: over time that the test gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.agent.tiers.breaker import MAX_S, Breaker
from workers.agent.tiers.costs import RETRY_S, Cost


def test_a_tier_that_nobody_has_measured_is_tried() -> None:
    cost = Cost()
    assert not cost.is_measured
    assert cost.is_worth(10**12, 1e-6, 0.0)


def test_latency_and_bandwidth_are_told_apart() -> None:
    cost = Cost()
    for _ in range(30):
        cost.missed(0.1, 0.0)
        cost.read(1000, 1.1, 0.0)
    assert cost.latency_s == pytest.approx(0.1)
    assert cost.bytes_per_s == pytest.approx(1000, rel=0.01)
    assert cost.read_s(2000) == pytest.approx(2.1, rel=0.01)
    assert not cost.is_worth(2000, 2.0, 0.0)
    assert cost.is_worth(2000, 2.2, 0.0)
    assert cost.is_worth(2000, 2.0, RETRY_S)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**9), st.floats(0, 100)), max_size=20))
def test_no_measurement_breaks_it(measured: list[tuple[bool, int, float]]) -> None:
    cost = Cost()
    for is_miss, num_bytes, seconds in measured:
        if is_miss:
            cost.missed(seconds, 0.0)
        elif num_bytes:
            cost.read(num_bytes, seconds, 0.0)
    assert cost.read_s(10**6) >= 0


def test_failures_one_after_the_other_open_it_for_longer() -> None:
    breaker, now, waits = Breaker(), 0.0, list[float]()
    for _ in range(8):
        breaker.failed(now)
        breaker.failed(now)
        opened = now
        while not breaker.is_closed(now):
            now += 0.5
        waits.append(now - opened)
    assert waits == [1, 2, 4, 8, 16, 32, MAX_S, MAX_S]
    breaker.succeeded()
    breaker.failed(now)
    assert breaker.is_closed(now + 1)


def test_it_stays_open_as_long_as_a_call_has_not_come_back() -> None:
    breaker = Breaker()
    breaker.is_late(0.0)
    breaker.is_late(0.0)
    assert not breaker.is_closed(1000.0)
    breaker.came_back()
    assert not breaker.is_closed(1000.0)
    breaker.came_back()
    assert breaker.is_closed(1000.0)
