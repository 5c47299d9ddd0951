"""Which tokens lie in the KV cache, and how many cells they take: a radix tree over all sequences. Pure.

As in SGLang's RadixAttention (Zheng et al., 2023), but a sequence shares the cells it was *given*, not those that
happen to hold the same tokens: siblings may begin alike, where two sequences have computed the same tokens, because
those are two sets of cells. So the number of tokens in the tree is the number of cells in use.

Sequences have integer keys. One is *running* from `add` to `park` and *parked* from then on to `remove`. Sequences of
different scopes never meet, but all may begin with what is in `PUBLIC_SCOPE`: then they hang in its tree, and what they
add there is their scope's alone. Every node is resident; what was saved when it left is in `saved_states.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from workers.agent.tiers.contract import PUBLIC_SCOPE
from workers.agent.tokens import TokenArray, num_common


class Node(Struct, eq=False):
    """A run of cells: the positions from `start` to `end` of every sequence in `holders`, all of which go through
    here. `tokens` is the buffer of one of them, from position 0."""

    tokens: TokenArray
    start: int
    end: int
    parent: Node | None
    children: list[Node]
    holders: set[int]


class Match(Struct, frozen=True):
    """The sequence `key` holds the first `num_tokens`; `node` is where they end."""

    node: Node | None = None
    key: int = -1
    num_tokens: int = 0


class Charges:
    """Who pays for which cells: a cell that several sequences hold is paid for by the first that asks."""

    def __init__(self) -> None:
        self._paid: dict[Node, int] = {}

    def charge(self, node: Node | None, num_tokens: int) -> int:
        """Charge the first `num_tokens` positions of the path to `node`; returns how many were paid for already."""
        while node is not None and node not in self._paid:
            self._paid[node] = min(node.end, num_tokens)
            node = node.parent
        if node is None:
            return 0
        num_paid = min(self._paid[node], num_tokens)
        self._paid[node] = max(self._paid[node], min(node.end, num_tokens))
        return num_paid


class PrefixCache:
    """The tree. `num_cells` is the number of cells in use."""

    def __init__(self) -> None:
        self.num_cells = 0
        self._roots: dict[str, Node] = {}
        self._leaves: dict[int, Node] = {}
        self._buffers: dict[int, TokenArray] = {}
        self._scopes: dict[int, str] = {}
        self._homes: dict[int, str] = {}
        """By key, whose tree it hangs in: its scope's or that of `PUBLIC_SCOPE`."""
        self._parked: dict[int, None] = {}
        """The least recently used first."""
        self._pinned: set[int] = set()

    @property
    def parked(self) -> tuple[int, ...]:
        """Keys of parked sequences, the least recently used first."""
        return tuple(self._parked)

    def leaf(self, key: int) -> Node | None:
        """Where the sequence ends; None when it is not here."""
        return self._leaves.get(key)

    def tokens(self, key: int) -> TokenArray:
        """What the sequence holds; a view."""
        return self._buffers[key][: self.length(key)] if key in self._leaves else np.empty(0, np.int32)

    def scope(self, key: int) -> str:
        return self._scopes[key]

    def length(self, key: int) -> int:
        return self._leaves[key].end if key in self._leaves else 0

    def match(self, scope: str, tokens: TokenArray) -> Match:
        """The longest beginning of `tokens` that a sequence of this scope holds, or one of `PUBLIC_SCOPE`; of several
        its own scope's before that, and running before parked."""
        best, best_rank = Match(), (0, False, False)
        for home in dict.fromkeys((scope, PUBLIC_SCOPE)):
            todo = [self._roots[home]] if home in self._roots else []
            while todo:
                for child in todo.pop().children:
                    end = min(child.end, len(tokens))
                    # In the tree of `PUBLIC_SCOPE` others, too, have what follows it.
                    holders = [key for key in child.holders if self._scopes[key] in (scope, PUBLIC_SCOPE)]
                    if child.start >= end or not holders:
                        continue
                    at = child.start + num_common(child.tokens[child.start : end], tokens[child.start : end])
                    rank = at, home == scope, any(key not in self._parked for key in holders)
                    if at > child.start and rank > best_rank:
                        best, best_rank = Match(child, holders[0], at), rank
                    if at == child.end:
                        todo.append(child)
        return best

    def add(self, key: int, scope: str, tokens: TokenArray, match: Match) -> None:
        """A new sequence that holds what `match` found. `tokens` is its buffer: it may be filled up later, but what
        was there before `grow` counted it does not change. A parked sequence that was found is in use now."""
        if match.key in self._parked:
            self._parked[match.key] = self._parked.pop(match.key)
        home = self._homes[match.key] if match.num_tokens else scope
        if home not in self._roots:
            self._roots[home] = Node(tokens, 0, 0, None, [], set())
        node = self._cut_at(match.key, match.num_tokens) if match.num_tokens else self._roots[home]
        self._leaves[key], self._buffers[key], self._scopes[key], self._homes[key] = node, tokens, scope, home
        for above in _path(node):
            above.holders.add(key)

    def grow(self, key: int, num_tokens: int) -> None:
        """The next tokens of the sequence's buffer have got cells of their own."""
        leaf, tokens = self._leaves[key], self._buffers[key]
        if leaf.parent is None or len(leaf.holders) > 1:
            leaf = Node(tokens, leaf.end, leaf.end, leaf, [], {key})
            self._leaves[key] = leaf
            assert leaf.parent is not None
            leaf.parent.children.append(leaf)
        leaf.tokens = tokens  # of one that has gone: its buffer went on differently
        leaf.end += num_tokens
        self.num_cells += num_tokens

    def park(self, key: int, *, is_pinned: bool = False) -> None:
        """`is_pinned`: it goes after all others."""
        self._parked[key] = None
        if is_pinned:
            self._pinned.add(key)

    def unpin(self, key: int) -> None:
        self._pinned.discard(key)

    def covered(self, key: int) -> list[int]:
        """Parked sequences that this one begins with or repeats, and that are not pinned."""
        num, tokens, scope = self.length(key), self._buffers[key], self._scopes[key]

        def is_covered(other: int) -> bool:
            n = self.length(other)
            return n <= num and num_common(self._buffers[other][:n], tokens[:n]) == n

        others = [other for other in self._parked if other != key and other not in self._pinned]
        return [other for other in others if self._scopes[other] == scope and is_covered(other)]

    def victim(self) -> int | None:
        """The parked sequence to evict next: the least recently used one that has cells of its own, because the
        others cost nothing. None when none is parked."""
        going = self._going()
        return next((key for key in going if self.num_own(key)), next(iter(going), None))

    @property
    def oldest(self) -> int:
        """The parked sequence that goes first when there are too many, whatever it costs."""
        return self._going()[0]

    def _going(self) -> list[int]:
        """Parked sequences, who goes first first."""
        return sorted(self._parked, key=lambda key: key in self._pinned) if self._pinned else list(self._parked)

    def num_own(self, key: int) -> int:
        """Cells that nobody else holds: what removing the sequence frees."""
        return sum(node.end - node.start for node in _path(self._leaves[key]) if len(node.holders) == 1)

    def cut(self, key: int, num_tokens: int) -> None:
        """The sequence gives up its cells from position `num_tokens` on, which is more than 0."""
        if num_tokens >= self.length(key):
            return
        end, leaf = self._cut_at(key, num_tokens), self._leaves[key]
        self._leaves[key] = end
        for node in list(_path(leaf)):
            if node is end:
                break
            self._leave(node, key)

    def sharers(self, key: int, start: int) -> set[int]:
        """Who else holds cells of the sequence from position `start` on."""
        others: set[int] = set()
        for node in _path(self._leaves.get(key)):
            if node.end > start:
                others |= node.holders - {key}
        return others

    def shift(self, key: int, kept: int, discarded: int, tokens: TokenArray) -> None:
        """The sequence has given up `discarded` positions behind the first `kept`, and what followed has moved up. It
        goes on in another buffer, `tokens`. Nobody shares what was moved."""
        num_moved = self.length(key) - kept - discarded
        if kept:
            self.cut(key, kept)
        else:
            scope = self._scopes[key]
            self.remove(key)
            self.add(key, scope, tokens, Match())
        self._buffers[key] = tokens
        if num_moved > 0:
            self.grow(key, num_moved)

    def remove(self, key: int) -> None:
        """The sequence gives up all its cells. Unknown keys are ignored."""
        leaf = self._leaves.pop(key, None)
        if leaf is None:
            return
        home = self._homes.pop(key)
        del self._buffers[key], self._scopes[key]
        self._parked.pop(key, None)
        self._pinned.discard(key)
        for node in list(_path(leaf)):
            self._leave(node, key)
        if not self._roots[home].holders:
            del self._roots[home]

    def _cut_at(self, key: int, at: int) -> Node:
        """The node of the sequence's path that ends at position `at`; splits one if need be."""
        node = next(node for node in _path(self._leaves[key]) if node.start < at)
        if node.end == at:
            return node
        assert node.parent is not None
        upper = Node(node.tokens, node.start, at, node.parent, [node], set(node.holders))
        _replace(node.parent.children, node, upper)
        node.start, node.parent = at, upper
        return upper

    def _leave(self, node: Node, key: int) -> None:
        node.holders.discard(key)
        if node.parent is None:
            return
        if not node.holders:
            self.num_cells -= node.end - node.start
            _replace(node.parent.children, node, None)
        elif len(node.children) == 1 and len(node.children[0].holders) == len(node.holders):
            # Nobody ends or branches off here any more: else a prefix in long use would fall into ever more nodes.
            child = node.children[0]
            child.start, child.parent = node.start, node.parent
            _replace(node.parent.children, node, child)


def _path(node: Node | None) -> Iterator[Node]:
    """From a node up to the root."""
    while node is not None:
        yield node
        node = node.parent


def _replace(nodes: list[Node], old: Node, new: Node | None) -> None:
    at = next(index for index, node in enumerate(nodes) if node is old)
    nodes[at : at + 1] = [] if new is None else [new]
