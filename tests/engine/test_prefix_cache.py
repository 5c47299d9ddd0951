"""The prefix cache as a pure structure: against a naive model that writes down every cell of every sequence."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from msgspec import Struct

from workers.agent.prefix_cache import Charges, Match, Node, PrefixCache
from workers.agent.tiers.contract import PUBLIC_SCOPE
from workers.agent.tokens import TokenArray, num_common

MAX_LENGTH = 24
tokens_of_few_kinds = st.lists(st.integers(0, 1), min_size=1, max_size=MAX_LENGTH)
scopes = st.sampled_from(["", "ann", PUBLIC_SCOPE])


def array(tokens: Iterable[int]) -> TokenArray:
    return np.array(list(tokens), np.int32)


@given(tokens_of_few_kinds, tokens_of_few_kinds)
def test_common_tokens_are_counted(one: list[int], other: list[int]) -> None:
    expected = next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    assert num_common(array(one), array(other)) == expected
    assert num_common(array([]), array(one)) == 0


class Naive(Struct):
    """A sequence as the model writes it down: the number of each of its cells, and the tokens they hold."""

    scope: str
    buffer: list[int]
    cells: list[int]
    is_parked: bool = False

    @property
    def tokens(self) -> list[int]:
        return self.buffer[: len(self.cells)]


class AgainstNaive(RuleBasedStateMachine):
    keys = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.cache = PrefixCache()
        self.naive: dict[int, Naive] = {}
        """Oldest first, which is also the order of parking and use where it matters."""
        self.lru: list[int] = []
        self.num_keys = 0
        self.num_cells_made = 0

    def is_known(self, key: int) -> bool:
        return key in self.naive

    def best(self, scope: str, tokens: list[int]) -> int:
        def common(other: list[int]) -> int:
            return num_common(array(tokens), array(other))

        seen = (one.tokens for one in self.naive.values() if one.scope in (scope, PUBLIC_SCOPE))
        return max(map(common, seen), default=0)

    @rule(target=keys, scope=scopes, buffer=tokens_of_few_kinds, is_reusing=st.booleans())
    def add(self, scope: str, buffer: list[int], is_reusing: bool) -> int:
        key, self.num_keys = self.num_keys, self.num_keys + 1
        tokens = array(buffer)
        match = self.cache.match(scope, tokens[:-1])
        assert match.num_tokens == self.best(scope, buffer[:-1])
        if match.num_tokens:
            source = self.naive[match.key]
            assert source.scope in (scope, PUBLIC_SCOPE)
            assert source.tokens[: match.num_tokens] == buffer[: match.num_tokens]
        if not is_reusing:
            match = Match()
        cells = self.naive[match.key].cells[: match.num_tokens] if match.num_tokens else []
        self.cache.add(key, scope, tokens, match)
        self.naive[key] = Naive(scope, buffer, list(cells))
        if match.key in self.lru:
            self.lru.remove(match.key)
            self.lru.append(match.key)
        return key

    @rule(key=keys, num=st.integers(1, MAX_LENGTH))
    def grow(self, key: int, num: int) -> None:
        if key not in self.naive or self.naive[key].is_parked:
            return
        one = self.naive[key]
        num = min(num, len(one.buffer) - len(one.cells))
        if num:
            self.cache.grow(key, num)
            one.cells += range(self.num_cells_made, self.num_cells_made + num)
            self.num_cells_made += num

    @rule(key=keys)
    def park(self, key: int) -> None:
        if key in self.naive and not self.naive[key].is_parked:
            self.cache.park(key)
            self.naive[key].is_parked = True
            self.lru.append(key)

    @rule(key=keys, num=st.integers(1, MAX_LENGTH))
    def cut(self, key: int, num: int) -> None:
        if key in self.naive and self.naive[key].is_parked:
            self.cache.cut(key, num)
            del self.naive[key].cells[num:]

    @rule(key=consumes(keys))
    def remove(self, key: int) -> None:
        self.cache.remove(key)
        self.naive.pop(key, None)
        if key in self.lru:
            self.lru.remove(key)

    @invariant()
    def a_cell_counts_once(self) -> None:
        assert self.cache.num_cells == len({cell for one in self.naive.values() for cell in one.cells})

    @invariant()
    def lengths_and_own_cells_are_those_of_the_model(self) -> None:
        for key, one in self.naive.items():
            others = {cell for other, two in self.naive.items() if other != key for cell in two.cells}
            assert self.cache.length(key) == len(one.cells)
            assert self.cache.num_own(key) == len(set(one.cells) - others)
            covered = [
                other
                for other in self.lru
                if other != key
                and self.naive[other].scope == one.scope
                and one.tokens[: len(self.naive[other].cells)] == self.naive[other].tokens
            ]
            assert self.cache.covered(key) == covered

    @invariant()
    def the_victim_is_the_least_recently_used_that_costs_cells(self) -> None:
        assert list(self.cache.parked) == self.lru
        costly = [key for key in self.lru if self.cache.num_own(key)]
        assert self.cache.victim() == (costly or self.lru or [None])[0]

    @invariant()
    def who_asks_first_pays(self) -> None:
        charges, paid = Charges(), set[int]()
        for key, one in self.naive.items():
            assert charges.charge(self.cache.leaf(key), len(one.cells)) == len(paid & set(one.cells))
            paid |= set(one.cells)

    @invariant()
    def the_tree_is_small(self) -> None:
        """No more nodes than ends and branches, so a prefix in long use does not fall into ever more of them."""
        roots = list(self.cache._roots.values())
        todo, num_nodes = list[Node](roots), 0
        while todo:
            node = todo.pop()
            todo += node.children
            num_nodes += node.parent is not None
        assert num_nodes <= 2 * len(self.naive)
        assert set(self.cache._roots) == set(self.cache._homes.values())


TestAgainstNaive = AgainstNaive.TestCase
TestAgainstNaive.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_cells_that_will_be_shared_are_charged_before_they_are() -> None:
    """Two newcomers with different parts of one parked sequence: together they pay the longer part."""
    cache = PrefixCache()
    cache.add(0, "", array(range(100)), Match())
    cache.grow(0, 100)
    cache.park(0)
    charges = Charges()
    for num, paid in ((40, 0), (70, 40), (20, 20), (100, 70)):
        match = cache.match("", array(range(num)))
        assert match.num_tokens == num
        assert charges.charge(match.node, num) == paid


def test_running_sequences_are_found_before_parked_ones() -> None:
    """Their cells are in use anyway."""
    cache = PrefixCache()
    for key in range(3):
        cache.add(key, "", array(range(10)), Match())
        cache.grow(key, 10)
    cache.park(0)
    cache.park(2)
    assert cache.match("", array(range(8))).key == 1


def test_use_saves_from_eviction() -> None:
    cache = PrefixCache()
    for key in range(3):
        cache.add(key, "", array([key] * 10), Match())
        cache.grow(key, 10)
        cache.park(key)
    cache.add(3, "", array([0] * 10), cache.match("", array([0] * 5)))
    assert cache.parked == (1, 2, 0)
    assert cache.victim() == 1
