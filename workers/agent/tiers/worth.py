"""What is given up first where not everything has room: what saves the least for its bytes and was of use the least.

GreedyDual-Size-Frequency (L. Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching
Policy", HP Laboratories 1998): the rank of a thing is a clock, plus how often it was of use, times what it saves for
each byte. The clock is the rank of what went last, so that what is not of use any more is overtaken by what is. Of
equal sizes and savings, each used once, the least recently used goes first.

Beside it: a block is worth nothing without the one it follows, so that one never ranks lower, and goes after it. Pure;
time is not asked for.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from msgspec import Struct

K = TypeVar("K", bound=Hashable)


class Item(Struct, Generic[K], frozen=True):
    """`above` is the key of what it is worth nothing without, whether that is here or not. `saves` is in any unit, the
    same for all. What is pinned never goes, nor what that follows."""

    key: K
    above: K | None
    num_bytes: int
    saves: float
    is_pinned: bool = False


class _Held(Struct, Generic[K], eq=False):
    item: Item[K]
    num_uses: int
    own: float
    """Its rank were nothing behind it."""
    rank: float


class Worth(Generic[K]):
    """Of what is held, by key. Every call takes time with the logarithm of their number, and with the length of the
    chain above."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._held: dict[K, _Held[K]] = {}
        self._behind: dict[K, set[K]] = {}
        self._heap: list[tuple[float, int, K]] = []
        """With entries of ranks that hold no more, which are passed over."""
        self._clock = 0.0
        self._number = 0

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[K]:
        return iter(self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __getitem__(self, key: K) -> Item[K]:
        return self._held[key].item

    def rank(self, key: K) -> float:
        """What goes first has the lowest; infinite: it never goes."""
        return self._held[key].rank

    def add(self, item: Item[K]) -> None:
        """It is here now, and of use; in place of what had its key."""
        before = self._held.get(item.key)
        if before is not None:
            self.remove(item.key)
        self._held[item.key] = held = _Held(item, 0 if before is None else before.num_uses, 0.0, 0.0)
        self.num_bytes += item.num_bytes
        if item.above is not None:
            self._behind.setdefault(item.above, set()).add(item.key)
        held.rank = max((self._held[key].rank for key in self._behind.get(item.key, ())), default=0.0)
        self.use(item.key)

    def restore(self, items: Iterable[Item[K]]) -> None:
        """As `add`, of things that were used before now, the least recently used first: the clock goes on between them
        by what the most valuable is worth in all, so that the last of those that are alike goes last."""
        rest = list(items)
        most = max(map(_density, rest), default=0.0)
        for item in rest:
            self.add(item)
            self._clock += most / len(rest)

    def use(self, key: K) -> None:
        held = self._held[key]
        held.num_uses += 1
        held.own = math.inf if held.item.is_pinned else self._clock + held.num_uses * _density(held.item)
        self._raise(key, held.own)

    def remove(self, key: K) -> None:
        """It is gone."""
        held = self._held.pop(key)
        item = held.item
        self.num_bytes -= item.num_bytes
        if item.above is None:
            return
        behind = self._behind[item.above]
        behind.remove(key)
        if not behind:
            del self._behind[item.above]
        if held.rank == math.inf:
            self._recount(item.above)

    def victim(self) -> K | None:
        """What goes first, which nothing here follows; None if nothing may go."""
        while self._heap:
            rank, _, key = self._heap[0]
            held = self._held.get(key)
            if held is None or held.rank != rank:
                heapq.heappop(self._heap)
                continue
            # Those behind it rank no higher, and nothing ranks lower: they are its equals. Who says of himself that he
            # follows himself ends the walk, not this process.
            for _ in self._held:
                if not (behind := self._behind.get(key)):
                    break
                key = next(iter(behind))
            return key
        return None

    def evict(self) -> K | None:
        """The same, and it is gone."""
        key = self.victim()
        if key is not None:
            self._clock = max(self._clock, self._held[key].rank)
            self.remove(key)
        return key

    def _raise(self, key: K, rank: float) -> None:
        """Of this and all that it follows no rank is lower than `rank` now."""
        at: K | None = key
        is_first = True
        while at is not None and (held := self._held.get(at)) is not None and (is_first or held.rank < rank):
            rank = held.rank = max(held.rank, rank)
            self._push(at, rank)
            at, is_first = held.item.above, False

    def _recount(self, above: K) -> None:
        """Something pinned, or that something pinned follows, is gone from behind it: it may go again, and so may what
        it follows."""
        at: K | None = above
        while at is not None and (held := self._held.get(at)) is not None:
            rank = max([held.own, *(self._held[key].rank for key in self._behind.get(at, ()))])
            if rank == held.rank:
                break
            held.rank = rank
            self._push(at, rank)
            at = held.item.above

    def _push(self, key: K, rank: float) -> None:
        if rank == math.inf:
            return
        self._number += 1
        heapq.heappush(self._heap, (rank, self._number, key))
        if len(self._heap) > 2 * len(self._held) + 64:
            ranks = ((key, held.rank) for key, held in self._held.items() if held.rank != math.inf)
            self._heap = [(rank, number, key) for number, (key, rank) in enumerate(ranks)]
            heapq.heapify(self._heap)


def _density(item: Item[K]) -> float:
    return item.saves / max(item.num_bytes, 1)
