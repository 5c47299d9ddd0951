"""Blocks of host memory by the names that the fleet calls them by, for who asks from another thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from workers.agent.tokens import TokenArray

if TYPE_CHECKING:
    from workers.agent.saved_states import Block, State


class Namer(Protocol):
    """What of a `tiers.contract.Keeper` makes names."""

    def root(self, scope: str) -> bytes: ...

    def next(self, above: bytes, tokens: TokenArray) -> bytes: ...


class Named(Struct, frozen=True):
    """A full block: `state` of `tokens` behind the block `above`. Nobody changes either array."""

    name: bytes
    above: bytes
    tokens: TokenArray
    state: State


class NamedStates:
    """All methods but `get` belong to one thread. Blocks of `size` tokens have names; while the namer knows none yet
    (an empty root), they are found later."""

    def __init__(self, namer: Namer, size: int) -> None:
        self._namer = namer
        self._size = size
        self._by_name: dict[bytes, Named] = {}
        self._unnamed: dict[int, tuple[str, Block]] = {}
        """By identity, with their scopes."""

    def get(self, name: bytes) -> Named | None:
        # One look into a dict, whose values never change: it is there as a whole or not.
        return self._by_name.get(name)

    def add(self, scope: str, block: Block) -> None:
        """It has a state now."""
        if len(block.tokens) == self._size and block.state is not None:
            self._unnamed[id(block)] = scope, block
        for key, (its_scope, one) in list(self._unnamed.items()):
            above = self._name(its_scope, one.parent)
            if not above:
                break
            del self._unnamed[key]
            one.name = one.name or self._namer.next(above, one.tokens)
            if one.state is not None:
                self._by_name[one.name] = Named(one.name, above, one.tokens, one.state)

    def remove(self, block: Block) -> None:
        """It has no state any more."""
        self._unnamed.pop(id(block), None)
        self._by_name.pop(block.name, None)

    def _name(self, scope: str, block: Block | None) -> bytes:
        """Of a block with others behind it, which is full, and so are all that lead to it; the first one's is of no
        tokens."""
        line: list[Block] = []
        while block is not None and not block.name and block.parent is not None:
            line.append(block)
            block = block.parent
        name = (block.name if block is not None else b"") or self._namer.root(scope)
        for one in reversed(line):
            if not name:
                break
            name = one.name = self._namer.next(name, one.tokens)
        return name
