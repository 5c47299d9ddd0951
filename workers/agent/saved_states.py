"""The tier behind the KV cache: states of tokens that have left it, in host memory. Pure bookkeeping.

Blocks of `BLOCK` tokens in a trie, so that what several conversations begin with is kept once. A block is found by the
very tokens that lead to it, within one scope: two prompts never meet by a hash. The state of a block holds for its
tokens behind exactly those before them, at those positions. What saves the fewest tokens for its bytes and was of use
the least goes first (`tiers/worth.py`), and of one conversation the end before the beginning, because a block without
those before it is worth nothing.

As llama.cpp's server keeps whole prompts in host memory; here in blocks, as vLLM and LMCache keep theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from workers.agent.named_states import Named, NamedStates, Namer
from workers.agent.tiers.worth import Item, Worth
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
    name: bytes = b""
    """Of one that has `BLOCK` tokens, where somebody gives names."""

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
    """At most `max_bytes` of states. With a `namer` their full blocks are found by name, too."""

    def __init__(self, max_bytes: int, namer: Namer | None = None) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = self.num_tokens = self.num_blocks = 0
        """Of blocks that have a state."""
        self._roots: dict[str, Block] = {}
        self._ends: dict[str, Block] = {}
        """Of each request the block that it owns."""
        self._blocks: dict[int, tuple[str, Block]] = {}
        """By identity, with their scopes."""
        self._worth = Worth[int]()
        self._pinned: set[int] = set()
        """Blocks, by identity, that go after all others."""
        self._named = None if namer is None else NamedStates(namer, BLOCK)

    def state_of(self, name: bytes) -> Named | None:
        """The full block of this name, if it is here. From any thread."""
        return None if self._named is None else self._named.get(name)

    def pin(self, wanted: Iterable[tuple[str, TokenArray]]) -> None:
        """Of all blocks those go last, from now on, that these tokens of a scope lead to. To be said again when some of
        them were saved."""
        before, self._pinned = self._pinned, set()
        for scope, tokens in wanted:
            block = self._roots.get(scope)
            while block is not None and block.end < len(tokens):
                child, num = _best(block, tokens[block.end :])
                if child is not None:
                    self._pinned.add(id(child))
                block = child if child is not None and num == len(child.tokens) else None
        for key in before ^ self._pinned:
            if key in self._blocks:
                self._count(self._blocks[key][1])

    def is_pinned(self, block: Block) -> bool:
        return id(block) in self._pinned

    def reach(self, scope: str, tokens: TokenArray, start: int) -> list[Part]:
        """What leads on from position `start`, whose tokens before it are at hand: parts in order, without a gap. Empty
        when there is nothing."""
        parts: list[Part] = []
        block = self._roots.get(scope)
        while block is not None and block.end < len(tokens):
            child, num = _best(block, tokens[block.end :])
            if child is not None and child.state is None and child.start + num > start:
                # Beside the way to others there may be an end.
                child, num = _best(block, tokens[block.end :], is_saved=True)
            if child is None:
                break
            end = child.start + num
            if end > start:
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
        path, _, told = self._path(scope, tokens, start, read)
        end = self._ends.get(request_id)
        if path and (end is None or path[-1] not in _line(end)):
            self._own(request_id, num_total, path[-1])
        # Of what goes on here the longer one tells.
        told += [one for block in path for one in self._disown(block, request_id)]
        told += self._shrink()
        if (end := self._ends.get(request_id)) is not None:
            told.append(Kept(request_id, end.end, end.owners[request_id]))
        return told

    def add(self, scope: str, tokens: TokenArray, start: int, read: Callable[[int, int], State | None]) -> list[Kept]:
        """As `put`, of no request: nobody is told that it is here. Whose end grows into a block is told of no more."""
        _, grown, told = self._path(scope, tokens, start, read)
        told += [one for block in grown for one in self._disown(block)]
        return told + self._shrink()

    def used(self, block: Block) -> None:
        """This block has been taken back; nothing if it has gone already."""
        for one in _line(block):
            if id(one) in self._blocks:
                self._worth.use(id(one))

    def drop(self, scope: str, block: Block) -> list[Kept]:
        """Its state was refused: it goes, and all behind it. Nothing if it has gone already."""
        line = [block] if id(block) in self._blocks else []
        for one in line:
            line += [child for some in one.children.values() for child in some]
        told = [told for one in reversed(line) for told in self._remove(scope, one)]
        return told + (self._prune(scope, block.parent) if line and block.parent is not None else [])

    def _path(
        self, scope: str, tokens: TokenArray, start: int, read: Callable[[int, int], State | None]
    ) -> tuple[list[Block], list[Block], list[Kept]]:
        """The blocks of these tokens up to the last that has a state, those of them that have more tokens than before,
        and what had to go for them: never more than one block above the bound."""
        above = self._roots.setdefault(scope, Block(np.empty(0, np.int32), 0, None, {}, {}))
        path: list[Block] = []
        grown: list[Block] = []
        told: list[Kept] = []
        while len(own := tokens[above.end : above.end + BLOCK]) >= FIRST:
            block = _alike(above, own)
            if block is not None and len(block.tokens) < len(own) and above.end + len(own) <= start:
                block = None  # nothing would replace its state
            is_new = block is None
            if block is None:
                block = Block(own.copy(), above.end, above, {}, {})
                above.children.setdefault(own[:FIRST].tobytes(), []).append(block)
                self._blocks[id(block)] = scope, block
            elif len(block.tokens) < len(own):
                self._forget(block)
                block.tokens, is_new = own.copy(), True
                grown.append(block)
            is_longer = len(block.tokens) > len(own)
            if block.state is None and not is_longer and block.end > start:
                block.state, is_new = read(block.start, block.end), True
                if block.state is not None:
                    self.num_bytes += block.num_bytes
                    self.num_tokens += len(own)
                    self.num_blocks += 1
                if self._named is not None:
                    self._named.add(scope, block)
            if is_new:
                self._count(block)
            else:
                self._worth.use(id(block))
            path.append(block)
            if block.state is None and block.end > start and not is_longer:
                break
            if self.num_bytes > self.max_bytes:
                told += self._shrink()
                if id(block) not in self._blocks:
                    path = [one for one in path if id(one) in self._blocks]
                    break
            if is_longer:
                break
            above = block
        while path and path[-1].state is None:
            told += self._prune(scope, path.pop())
        if scope in self._roots and not self._roots[scope].children:
            del self._roots[scope]
        return path, grown, told

    def _count(self, block: Block) -> None:
        """Its size, or whether it is pinned, is another now."""
        above = None if block.parent is None or block.parent.parent is None else id(block.parent)
        saves = 0 if block.state is None else len(block.tokens)
        self._worth.add(Item(id(block), above, block.num_bytes, saves, id(block) in self._pinned))

    def _disown(self, block: Block, but: str | None = None) -> list[Kept]:
        told = [Kept(other, 0, total) for other, total in block.owners.items() if other != but]
        for one in told:
            self._own(one.request_id, one.num_total, None)
        return told

    def _own(self, request_id: str, num_total: int, block: Block | None) -> None:
        if (before := self._ends.pop(request_id, None)) is not None:
            del before.owners[request_id]
        if block is not None:
            self._ends[request_id] = block
            block.owners[request_id] = num_total

    def _forget(self, block: Block) -> None:
        if self._named is not None:
            self._named.remove(block)
        if block.state is not None:
            self.num_bytes -= block.num_bytes
            self.num_tokens -= len(block.tokens)
            self.num_blocks -= 1
            block.state = None

    def _shrink(self) -> list[Kept]:
        told: list[Kept] = []
        while self.num_bytes > self.max_bytes and self._blocks:
            # The bound holds in any case, so that in the end what is pinned goes, too.
            victim = self._worth.evict()
            scope, block = self._blocks[next(reversed(self._blocks)) if victim is None else victim]
            told += self.drop(scope, block)
        return told

    def _prune(self, scope: str, block: Block) -> list[Kept]:
        """It, and what led to it alone, is of no use if it has no state and leads nowhere."""
        told: list[Kept] = []
        while (above := block.parent) is not None and block.state is None and not block.children:
            told += self._remove(scope, block)
            block = above
        return told

    def _remove(self, scope: str, block: Block) -> list[Kept]:
        above = block.parent
        assert above is not None
        self._forget(block)
        self._blocks.pop(id(block), None)
        self._pinned.discard(id(block))
        if id(block) in self._worth:
            self._worth.remove(id(block))
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


def _best(block: Block, tokens: TokenArray, *, is_saved: bool = False) -> tuple[Block | None, int]:
    """The child that has most of the next tokens, and how many; with `is_saved` of those that have a state."""
    best, most = None, 0
    for child in block.children.get(tokens[:FIRST].tobytes(), ()):
        if is_saved and child.state is None:
            continue
        if (num := num_common(child.tokens, tokens)) > most:
            best, most = child, num
    return best, most


def _alike(block: Block, tokens: TokenArray) -> Block | None:
    """The child that has these tokens, or begins with them; else one that is their beginning and has nothing behind
    it."""
    shorter: Block | None = None
    for child in block.children.get(tokens[:FIRST].tobytes(), ()):
        num = num_common(child.tokens, tokens)
        if num == len(tokens):
            return child
        if num == len(child.tokens) and not child.children:
            shorter = child
    return shorter
