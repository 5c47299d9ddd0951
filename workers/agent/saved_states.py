"""The tier behind the KV cache: states of tokens that have left it, in host memory. Pure bookkeeping.

Blocks of `BLOCK` tokens in a trie, so that what several conversations begin with is kept once. A block is found by the
very tokens that lead to it, within one scope: two prompts never meet by a hash. The state of a block holds for its
tokens behind exactly those before them, at those positions. Least recently used goes first, and of one conversation the
end before the beginning, because a block without those before it is worth nothing.

As llama.cpp's server keeps whole prompts in host memory; here in blocks, as vLLM and LMCache keep theirs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from workers.agent.tokens import TokenArray, num_common

State = NDArray[np.uint8]
"""Opaque bytes of llama.cpp."""

BLOCK = 256
"""Tokens. A block is taken back whole, so it costs the room of one at most; one of SmolLM2 is 5.9 MB."""
FIRST = 16
"""Blocks are told apart by so many tokens first; fewer are not kept."""


class Block(Struct, eq=False):
    """Positions from `start` to `end`; at most `BLOCK` of them, fewer where a conversation ended. `state` None: only
    the way to others, its cells were in the KV cache when those were saved. `owners`: requests whose saved tokens end
    here, and how many tokens each had in all."""

    tokens: TokenArray
    start: int
    parent: Block | None
    children: dict[bytes, list[Block]]
    owners: dict[str, int]
    state: State | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def num_bytes(self) -> int:
        return 0 if self.state is None else self.state.nbytes


class Part(Struct, frozen=True):
    """The tokens of a block up to position `end` are wanted."""

    block: Block
    end: int


class Kept(Struct, frozen=True):
    """Of a request so many first tokens, of `num_total`, are saved now; 0: none."""

    request_id: str
    num_tokens: int
    num_total: int


class SavedStates:
    """At most `max_bytes` of states."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = self.num_tokens = 0
        self._roots: dict[str, Block] = {}
        self._ends: dict[str, Block] = {}
        """Of each request the block that it owns."""
        self._used: OrderedDict[int, tuple[str, Block]] = OrderedDict()
        """By identity, the least recently used first; a block is always behind those that need it."""
        self._pinned: set[int] = set()
        """Blocks, by identity, that go after all others."""

    def pin(self, wanted: Iterable[tuple[str, TokenArray]]) -> None:
        """Of all blocks those go last, from now on, that these tokens of a scope lead to. To be said again when some of
        them were saved."""
        self._pinned.clear()
        for scope, tokens in wanted:
            block = self._roots.get(scope)
            while block is not None and block.end < len(tokens):
                child, num = _best(block, tokens[block.end :])
                if child is not None:
                    self._pinned.add(id(child))
                block = child if child is not None and num == len(child.tokens) else None

    def reach(self, scope: str, tokens: TokenArray, start: int) -> list[Part]:
        """What leads on from position `start`, whose tokens before it are at hand: parts in order, without a gap. Empty
        when there is nothing."""
        parts: list[Part] = []
        block = self._roots.get(scope)
        while block is not None and block.end < len(tokens):
            child, num = _best(block, tokens[block.end :])
            if child is None:
                break
            end = child.start + num
            if end > start:
                if child.state is None:
                    break
                parts.append(Part(child, end))
            if end < child.end:
                break
            block = child
        return parts

    def put(
        self,
        scope: str,
        tokens: TokenArray,
        start: int,
        request_id: str,
        num_total: int,
        read: Callable[[int, int], State | None],
    ) -> list[Kept]:
        """Save the states of the positions from `start` on; `read` gives that of a range, None when it cannot. What is
        saved already is not read again. Tells of the request, unless nothing of it is saved, and of all others of which
        less is there than before."""
        path, told = self._path(scope, tokens, start, read)
        while path and path[-1].state is None:
            path.pop()
        end = self._ends.get(request_id)
        if path and (end is None or path[-1] not in _line(end)):
            self._own(request_id, num_total, path[-1])
        for block in path:
            # Of what goes on here the longer one tells.
            for other, total in list(block.owners.items()):
                if other != request_id:
                    self._own(other, total, None)
                    told.append(Kept(other, 0, total))
        self.touch(scope, path)
        told += self._shrink()
        if scope in self._roots and not self._roots[scope].children:
            del self._roots[scope]
        if (end := self._ends.get(request_id)) is not None:
            told.append(Kept(request_id, end.end, end.owners[request_id]))
        return told

    def touch(self, scope: str, path: list[Block]) -> None:
        """These blocks, from the first on, were of use."""
        for block in reversed(path):
            self._used[id(block)] = scope, block
            self._used.move_to_end(id(block))

    def used(self, scope: str, parts: list[Part]) -> None:
        """These parts have been taken back."""
        if not parts:
            return
        self.touch(scope, _line(parts[-1].block)[::-1])

    def drop(self, scope: str, block: Block) -> list[Kept]:
        """Its state was refused: it goes, and all behind it. Nothing if it has gone already."""
        line = [block] if id(block) in self._used else []
        for one in line:
            line += [child for some in one.children.values() for child in some]
        return [told for one in reversed(line) for told in self._remove(scope, one)]

    def _path(
        self, scope: str, tokens: TokenArray, start: int, read: Callable[[int, int], State | None]
    ) -> tuple[list[Block], list[Kept]]:
        """The blocks of these tokens, as far as they are kept, and what had to go for them: never more than one block
        above the bound."""
        above = self._roots.setdefault(scope, Block(np.empty(0, np.int32), 0, None, {}, {}))
        path: list[Block] = []
        told: list[Kept] = []
        while len(own := tokens[above.end : above.end + BLOCK]) >= FIRST:
            block = _alike(above, own)
            if block is None:
                block = Block(own.copy(), above.end, above, {}, {})
                above.children.setdefault(own[:FIRST].tobytes(), []).append(block)
            elif len(block.tokens) < len(own):
                self._forget(block)
                block.tokens = own.copy()
            is_longer = len(block.tokens) > len(own)
            if block.state is None and not is_longer and block.end > start:
                block.state = read(block.start, block.end)
                if block.state is None:
                    break
                self.num_bytes += block.num_bytes
                self.num_tokens += len(own)
            path.append(block)
            self._used.setdefault(id(block), (scope, block))
            if self.num_bytes > self.max_bytes:
                self.touch(scope, path)
                told += self._shrink()
                if id(block) not in self._used:
                    path = [one for one in path if id(one) in self._used]
                    break
            if is_longer:
                break
            above = block
        return path, told

    def _own(self, request_id: str, num_total: int, block: Block | None) -> None:
        if (before := self._ends.pop(request_id, None)) is not None:
            del before.owners[request_id]
        if block is not None:
            self._ends[request_id] = block
            block.owners[request_id] = num_total

    def _forget(self, block: Block) -> None:
        if block.state is not None:
            self.num_bytes -= block.num_bytes
            self.num_tokens -= len(block.tokens)
            block.state = None

    def _shrink(self) -> list[Kept]:
        told: list[Kept] = []
        while self._used:
            scope, block = self._next()
            if self.num_bytes <= self.max_bytes and (block.state is not None or block.children):
                break
            told += self.drop(scope, block)
        return told

    def _next(self) -> tuple[str, Block]:
        """Who goes first."""
        loose = (one for one in self._used.values() if id(one[1]) not in self._pinned)
        return next(loose, None) or next(iter(self._used.values()))

    def _remove(self, scope: str, block: Block) -> list[Kept]:
        above = block.parent
        assert above is not None
        self._forget(block)
        self._used.pop(id(block), None)
        self._pinned.discard(id(block))
        key = block.tokens[:FIRST].tobytes()
        above.children[key].remove(block)
        if not above.children[key]:
            del above.children[key]
        if above.parent is None and not above.children:
            self._roots.pop(scope, None)
        is_saved = above.parent is not None and above.state is not None
        told = [Kept(owner, above.end if is_saved else 0, total) for owner, total in block.owners.items()]
        for owner in told:
            self._own(owner.request_id, owner.num_total, above if is_saved else None)
        return told


def _line(block: Block) -> list[Block]:
    """The block and all that it needs, up to the first."""
    line = [block]
    while (above := line[-1].parent) is not None and above.parent is not None:
        line.append(above)
    return line


def _best(block: Block, tokens: TokenArray) -> tuple[Block | None, int]:
    """The child that has most of the next tokens, and how many."""
    best, most = None, 0
    for child in block.children.get(tokens[:FIRST].tobytes(), ()):
        if (num := num_common(child.tokens, tokens)) > most:
            best, most = child, num
    return best, most


def _alike(block: Block, tokens: TokenArray) -> Block | None:
    """The child that has these tokens, or begins with them, or is their beginning and has nothing behind it."""
    for child in block.children.get(tokens[:FIRST].tobytes(), ()):
        num = num_common(child.tokens, tokens)
        if num == len(tokens) or (num == len(child.tokens) and not child.children):
            return child
    return None
