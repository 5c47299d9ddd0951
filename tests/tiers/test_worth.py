"""What goes first: against the rule of the algorithm, written down without a heap."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from workers.agent.tiers.worth import Item, Worth

KEYS = st.integers(0, 12)
"""One follows another of a smaller number, so that chains and trees come about."""


def item(
    key: int, *, above: int | None = None, size: int = 10, saves: float = 10, is_pinned: bool = False
) -> Item[int]:
    return Item(key, above, size, saves, is_pinned)


class AgainstTheRule(RuleBasedStateMachine):
    """Every rank is its own value, or that of the most valuable of what follows; what goes has the least of all."""

    def __init__(self) -> None:
        super().__init__()
        self.worth: Worth[int] = Worth()
        self.items: dict[int, Item[int]] = {}
        self.uses: dict[int, int] = {}

    @rule(key=KEYS, gap=st.integers(0, 3), size=st.integers(1, 5), saves=st.integers(0, 5), pin=st.booleans())
    def add(self, key: int, gap: int, size: int, saves: int, pin: bool) -> None:
        above = key - gap if gap and key >= gap else None
        self.items[key] = Item(key, above, size, saves, pin and saves == 5)
        self.worth.add(self.items[key])

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.items)))
        before = self.worth.rank(key)
        self.worth.use(key)
        assert self.worth.rank(key) >= before

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.items)))
        self.worth.remove(key)
        del self.items[key]

    @rule()
    def evict(self) -> None:
        ranks = {key: self.worth.rank(key) for key in self.items}
        key = self.worth.evict()
        if key is None:
            assert all(rank == math.inf for rank in ranks.values())
            return
        assert ranks[key] == min(ranks.values())
        assert not any(one.above == key for one in self.items.values()), "what follows it is worth nothing without it"
        assert not self.items.pop(key).is_pinned

    @invariant()
    def books_agree(self) -> None:
        assert set(self.worth) == set(self.items)
        assert len(self.worth) == len(self.items)
        assert self.worth.num_bytes == sum(one.num_bytes for one in self.items.values())
        assert len(self.worth._heap) <= 2 * len(self.items) + 65

    @invariant()
    def none_ranks_below_what_follows(self) -> None:
        for one in self.items.values():
            if one.above in self.items:
                assert self.worth.rank(one.above) >= self.worth.rank(one.key)

    @invariant()
    def only_what_is_pinned_and_what_that_follows_never_goes(self) -> None:
        stays: set[int] = set()
        for one in self.items.values():
            at: int | None = one.key if one.is_pinned else None
            while at is not None and at in self.items:
                stays.add(at)
                at = self.items[at].above
        assert {key for key in self.items if self.worth.rank(key) == math.inf} == stays


TestWorth = AgainstTheRule.TestCase


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_of_those_that_are_alike_the_least_recently_used_goes_first(added: list[int]) -> None:
    """As long as each is used once between two evictions of itself: that is the first order of the algorithm."""
    worth: Worth[int] = Worth()
    order: list[int] = []
    for key in added:
        if key in order:
            continue
        if len(order) == 3:
            assert worth.evict() == order.pop(0)
        worth.add(item(key))
        order.append(key)


def test_what_saves_more_for_its_bytes_stays_longer() -> None:
    worth: Worth[int] = Worth()
    worth.add(item(1, saves=30))
    worth.add(item(2, size=5))
    worth.add(item(3))
    assert [worth.evict() for _ in range(4)] == [3, 2, 1, None]


def test_what_is_used_often_stays_longer_but_not_for_ever() -> None:
    worth: Worth[int] = Worth()
    worth.add(item(0))
    for _ in range(5):
        worth.use(0)
    went: list[int | None] = []
    for key in range(1, 20):
        worth.add(item(key))
        worth.use(key)
        if len(worth) > 3:
            went.append(worth.evict())
    assert 0 not in went[:4]
    assert 0 in went, "its uses are long ago"


def test_a_conversation_goes_from_its_end() -> None:
    worth: Worth[int] = Worth()
    for key in range(5):
        worth.add(item(key, above=key - 1 if key else None, saves=key))
    worth.use(4)
    assert [worth.evict() for _ in range(5)] == [4, 3, 2, 1, 0]


def test_what_comes_after_what_follows_it_is_worth_as_much() -> None:
    worth: Worth[int] = Worth()
    worth.add(item(2, above=1, saves=100))
    worth.add(item(1, saves=1))
    worth.add(item(3))
    assert worth.evict() == 3


def test_what_was_here_before_goes_by_its_last_use() -> None:
    worth: Worth[int] = Worth()
    worth.restore([item(key) for key in (5, 3, 8, 1)])
    worth.add(item(9))
    assert [worth.evict() for _ in range(5)] == [5, 3, 8, 1, 9]


def test_who_follows_himself_ends_no_walk() -> None:
    worth: Worth[int] = Worth()
    worth.add(item(1, above=2))
    worth.add(item(2, above=1))
    worth.add(item(3, above=3))
    assert {worth.evict() for _ in range(3)} == {1, 2, 3}
    worth.add(item(1, above=2, is_pinned=True))
    worth.add(item(2, above=1))
    worth.remove(1)
    assert worth.evict() == 2
