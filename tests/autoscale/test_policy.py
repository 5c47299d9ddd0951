"""How many agents a demand needs, and the most within a time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddler.autoscale.policy import Policy, Window


@pytest.mark.parametrize(
    ("demand", "foreign", "target", "need"),
    [
        (0, 0, 1.0, 0),
        (1, 0, 1.0, 1),
        (4, 0, 1.0, 1),
        (5, 0, 1.0, 2),
        (100, 0, 1.0, 3),  # the most
        (9, 0, 2.0, 2),
        (8, 0, 2.0, 1),
        (4, 4, 1.0, 0),
        (5, 4, 1.0, 1),
        (1, 0, 0.5, 1),
        (3, 0, 0.5, 2),
    ],
)
def test_what_a_demand_needs(demand: int, foreign: int, target: float, need: int) -> None:
    assert Policy(least=0, most=3, slots=4, target=target).need(demand, foreign) == need


def test_the_least_is_always_needed() -> None:
    assert Policy(least=2, most=3, slots=4).need(0, 100) == 2


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 5), st.integers(0, 4)), min_size=1, max_size=40),
    st.floats(0, 10),
    st.floats(0, 5),
)
def test_the_most_is_that_of_the_window(steps: list[tuple[float, int]], length_s: float, later: float) -> None:
    """A need stands until the next look."""
    window, now, seen = Window(length_s), 0.0, list[tuple[float, int]]()
    for after, need in steps:
        now += after
        window.add(need, now)
        seen.append((now, need))
    now += later
    ends = [at for at, _ in seen[1:]] + [now + 1]
    within = [need for (_, need), end in zip(seen, ends, strict=True) if end > now - length_s]
    assert window.most(now) == (max(within) if seen[0][0] <= now - length_s else None)


def test_after_a_gap_everything_may_have_been_needed() -> None:
    window = Window(10)
    window.add(0, 0)
    assert window.most(10) == 0
    window.forget()
    assert window.most(20) is None
    window.add(0, 20)
    assert window.most(29.9) is None
    assert window.most(30) == 0
