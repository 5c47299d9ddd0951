"""Fair queueing: shares follow weights, a flood delays nobody else, the idle save nothing up."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.routing.fairness import advance, charge, correct, cost

COSTS = st.lists(st.integers(1, 1_000), min_size=1, max_size=200)


class Queue:
    """One class of one pool, served one at a time."""

    def __init__(self) -> None:
        self.vtime = 0.0
        self.tags: dict[str, float] = {}
        self.waiting: list[tuple[float, int, str, int, float]] = []
        self.num_submitted = 0

    def submit(self, tenant: str, cost: int, weight: float = 1.0) -> None:
        tags = charge(self.vtime, self.tags.get(tenant, 0.0), cost, weight)
        self.tags[tenant] = tags.finish
        self.num_submitted += 1
        heapq.heappush(self.waiting, (tags.finish, self.num_submitted, tenant, cost, tags.start))

    def serve(self) -> tuple[str, int]:
        _, _, tenant, cost, start = heapq.heappop(self.waiting)
        self.vtime = advance(self.vtime, start)
        return tenant, cost


@pytest.mark.parametrize(
    ("prompt", "cached", "max_tokens", "tokens"),
    [(100, 0, None, 356), (100, 60, 10, 50), (100, 100, 9_999, 512), (100, 150, 0, 0)],
)
def test_a_request_costs_what_must_be_computed(prompt: int, cached: int, max_tokens: int | None, tokens: int) -> None:
    assert cost(prompt, cached, max_tokens) == tokens


@given(COSTS, COSTS, st.sampled_from((0.5, 1.0, 3.0)))
def test_backlogged_tenants_share_by_weight(first: list[int], second: list[int], weight: float) -> None:
    """While both wait, what each was served, by weight, differs by at most one request of each (Goyal, theorem 1)."""
    queue = Queue()
    for tokens in first:
        queue.submit("first", tokens, weight)
    for tokens in second:
        queue.submit("second", tokens)
    left = {"first": len(first), "second": len(second)}
    served = {"first": 0.0, "second": 0.0}
    bound = max(first) / weight + max(second)
    while min(left.values()) > 0:
        tenant, tokens = queue.serve()
        left[tenant] -= 1
        served[tenant] += tokens / (weight if tenant == "first" else 1.0)
        assert abs(served["first"] - served["second"]) <= bound + 1e-6


@pytest.mark.parametrize("num_served", [0, 1, 500, 9_990])
def test_a_flood_delays_a_single_request_by_no_more_than_its_own_cost(num_served: int) -> None:
    queue = Queue()
    for _ in range(10_000):
        queue.submit("flood", 300)
    for _ in range(num_served):
        queue.serve()
    queue.submit("single", 600)
    order = [queue.serve()[0] for _ in range(4)]
    assert "single" in order


def test_who_was_idle_has_saved_nothing_up() -> None:
    queue = Queue()
    for _ in range(100):
        queue.submit("busy", 300)
    for _ in range(50):
        queue.serve()
    for _ in range(50):
        queue.submit("back", 300)
    tenants = [queue.serve()[0] for _ in range(20)]
    assert tenants.count("busy") in (9, 10, 11)


@given(st.floats(0, 1e6), st.integers(0, 5_000), st.integers(0, 5_000), st.sampled_from((0.5, 1.0, 3.0)))
def test_a_correction_puts_the_tenant_where_the_real_cost_does(
    vtime: float, estimated: int, real: int, weight: float
) -> None:
    guessed = charge(vtime, vtime, estimated, weight).finish
    assert correct(guessed, estimated, real, weight) == pytest.approx(charge(vtime, vtime, real, weight).finish)


def test_a_correction_never_goes_below_the_beginning() -> None:
    assert correct(100.0, 900, 10, 1.0) == 0.0


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_weight_is_positive(weight: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        charge(0.0, 0.0, 10, weight)
    with pytest.raises(ValueError, match="positive"):
        correct(0.0, 10, 10, weight)


def test_the_clock_never_goes_back() -> None:
    assert advance(5.0, 3.0) == 5.0
    assert advance(5.0, 7.0) == 7.0
