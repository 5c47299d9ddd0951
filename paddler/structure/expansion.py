"""What llama.cpp makes of a grammar, counted instead of made.

A rule is *empty* if it matches nothing too. From the beginning of a rule the matcher goes on into the first item of
each alternative, and behind items that can be empty into the next one: those are its *first* rules. A rule that comes
to itself so is left-recursive and never reads a character.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from paddler.structure.rules import Chars, GrammarError, Group, Item, Ref, Repeat, Rules

MAX_ELEMENTS = 100_000
"""After repetitions are written out."""
MAX_MADE = 2000
"""Rules that one repetition may make: llama.cpp's bound."""
MAX_WAYS = 1000
"""Stacks that one place of the grammar becomes: each is compared with every token of the vocabulary."""
MAX_ALL_WAYS = 200_000
MAX_CHAIN = 500
"""Rules that begin with each other: llama.cpp recurses over them."""


class Expansion(Struct, frozen=True):
    """What is bounded by `MAX_ELEMENTS` and `MAX_ALL_WAYS`."""

    num_elements: int
    num_ways: int


def check_expansion(rules: Rules) -> Expansion:
    """Raises `GrammarError`. Takes time in proportion to the size of the grammar, but for `MAX_ALL_WAYS`."""
    for group in rules.values():
        for item in _walk(group):
            if isinstance(item, Ref) and item.name not in rules:
                raise GrammarError(f"it has no rule `{item.name}`")
    num_elements = sum(map(_size, rules.values()))
    if num_elements > MAX_ELEMENTS:
        raise GrammarError(f"its repetitions make more than {MAX_ELEMENTS} elements of it")
    ways = _Ways(rules, _find_empty(rules))
    expansion = Expansion(num_elements, sum(ways.of_rule(name) for name in ways.in_order()))
    check_sum([expansion])
    return expansion


def check_sum(expansions: Iterable[Expansion]) -> None:
    """Of parts of a grammar that do not refer to each other. Raises `GrammarError`."""
    expansions = list(expansions)
    if sum(one.num_elements for one in expansions) > MAX_ELEMENTS:
        raise GrammarError(f"its repetitions make more than {MAX_ELEMENTS} elements of it")
    if sum(one.num_ways for one in expansions) > MAX_ALL_WAYS:
        raise GrammarError(f"it can be read in too many ways: more than {MAX_ALL_WAYS} in all")


def _walk(item: Item) -> Iterator[Item]:
    yield item
    match item:
        case Group():
            for sequence in item.alternatives:
                for part in sequence:
                    yield from _walk(part)
        case Repeat():
            yield from _walk(item.item)
        case _:
            pass


def _size(item: Item) -> int:
    match item:
        case Chars():
            return item.size
        case Ref():
            return 1
        case Group():
            return 2 + sum(1 + sum(map(_size, sequence)) for sequence in item.alternatives)
        case Repeat():
            copies = max(item.least if item.most is None else item.most, 1)
            if max(_num_made(item.item), 1) * copies > MAX_MADE:
                raise GrammarError(f"its repetitions within each other make more than {MAX_MADE} of something")
            more = 1 if item.most is None else item.most - item.least
            return item.least * _size(item.item) + more * (_size(item.item) + 3) + 1


def _num_made(item: Item) -> int:
    """Rules that llama.cpp makes for an item."""
    match item:
        case Group():
            return 1 + sum(_num_made(part) for sequence in item.alternatives for part in sequence)
        case Repeat():
            return _num_made(item.item) + (1 if item.most is None else item.most - item.least)
        case _:
            return 0


def _find_empty(rules: Rules) -> frozenset[str]:
    """A rule becomes empty when the last of those that one of its alternatives consists of does."""
    empty: set[str] = set()
    users: dict[str, set[str]] = {name: set() for name in rules}
    for name, group in rules.items():
        for item in _walk(group):
            if isinstance(item, Ref):
                users[item.name].add(name)
    waiting = set(rules)
    while waiting:
        name = waiting.pop()
        if name not in empty and _is_empty(rules[name], empty):
            empty.add(name)
            waiting |= users[name]
    return frozenset(empty)


def _is_empty(item: Item, empty: set[str] | frozenset[str]) -> bool:
    match item:
        case Chars():
            return item.size == 0
        case Ref():
            return item.name in empty
        case Group():
            return any(all(_is_empty(part, empty) for part in sequence) for sequence in item.alternatives)
        case Repeat():
            return item.least == 0 or _is_empty(item.item, empty)


class _Ways:
    """How many stacks the beginning of a rule becomes."""

    def __init__(self, rules: Rules, empty: frozenset[str]) -> None:
        self._rules = rules
        self._empty = empty
        self._ways: dict[str, int] = {}

    def of_rule(self, name: str) -> int:
        return self._ways[name]

    def in_order(self) -> Iterator[str]:
        """The rules, each behind all of its first ones. Raises `GrammarError` where that cannot be."""
        depth: dict[str, int] = {}
        for root in self._rules:
            path = {root: self._firsts(self._rules[root])} if root not in depth else {}
            while path:
                name, firsts = next(reversed(path.items()))
                first = next(firsts, None)
                if first is None:
                    del path[name]
                    depth[name] = 1 + max((depth[one] for one in self._firsts(self._rules[name])), default=0)
                    self._ways[name] = ways = self._of(self._rules[name])
                    if ways > MAX_WAYS:
                        raise GrammarError(f"rule `{name}` can begin in more than {MAX_WAYS} ways")
                    if depth[name] > MAX_CHAIN:
                        raise GrammarError(f"more than {MAX_CHAIN} rules begin with each other, up to `{name}`")
                    yield name
                elif first in path:
                    raise GrammarError(f"rule `{first}` is left-recursive: it begins with itself")
                elif first not in depth:
                    path[first] = self._firsts(self._rules[first])

    def _firsts(self, item: Item) -> Iterator[str]:
        match item:
            case Chars():
                return
            case Ref():
                yield item.name
            case Group():
                for sequence in item.alternatives:
                    for part in sequence:
                        yield from self._firsts(part)
                        if not _is_empty(part, self._empty):
                            break
            case Repeat():
                yield from self._firsts(item.item)

    def _of(self, item: Item) -> int:
        match item:
            case Chars():
                return 1
            case Ref():
                return self._ways[item.name]
            case Group():
                return sum(map(self._of_sequence, item.alternatives))
            case Repeat():
                # As many as there are copies of it, if the matcher can pass each.
                copies = max(item.least, item.most or 1) if _is_empty(item.item, self._empty) else 1
                return self._of(item.item) * copies + 1

    def _of_sequence(self, sequence: tuple[Item, ...]) -> int:
        ways = 1
        for part in sequence:
            ways += self._of(part)
            if not _is_empty(part, self._empty):
                break
        return ways
