"""Which sequences of the KV cache are to stay, and what of them is where."""

from __future__ import annotations

from msgspec import Struct

from paddler.engine import Pinned
from workers.agent.context import Context
from workers.agent.prefix_cache import PrefixCache
from workers.agent.saved_states import SavedStates
from workers.agent.tokens import TokenArray


class Pin(Struct, eq=False):
    """`key` is its sequence, None when that has been evicted. `num_bytes` are those of a whole one."""

    scope: str
    tokens: TokenArray
    key: int | None
    num_bytes: int


class Pins:
    """By request id. `told` may be read from any thread; it is right whenever `look` was called after a change."""

    def __init__(self, context: Context, tree: PrefixCache, saved: SavedStates | None) -> None:
        self._context = context
        self._tree = tree
        self._saved = saved
        self._pins: dict[str, Pin] = {}
        self.told: tuple[Pinned, ...] = ()

    def add(self, request_id: str, key: int) -> None:
        """This sequence, which is parked, is to stay."""
        tokens = self._tree.tokens(key).copy()
        self._pins[request_id] = Pin(self._tree.scope(key), tokens, key, self._context.num_bytes(key))
        self.look()

    def left(self, key: int) -> None:
        """This sequence has left the KV cache; what was saved of a pinned one stays."""
        for pin in self._pins.values():
            if pin.key == key:
                pin.key = None
                self.look()

    def drop(self, request_id: str) -> int | None:
        """It need not stay any more. Returns its sequence, if it has one."""
        pin = self._pins.pop(request_id, None)
        self.look()
        if pin is None or pin.key is None:
            return None
        self._tree.unpin(pin.key)
        return pin.key

    def look(self) -> None:
        """Something may have been saved or evicted."""
        if not self._pins and not self.told:
            return
        if self._saved is not None:
            self._saved.pin((pin.scope, pin.tokens) for pin in self._pins.values())
        self.told = tuple(self._state(request_id, pin) for request_id, pin in self._pins.items())

    def _state(self, request_id: str, pin: Pin) -> Pinned:
        num_resident = 0 if pin.key is None else self._tree.length(pin.key)
        parts = [] if self._saved is None else self._saved.reach(pin.scope, pin.tokens, 0)
        num_bytes = sum(part.block.num_bytes for part in parts)
        if num_resident:
            num_bytes += pin.num_bytes * num_resident // len(pin.tokens)
        return Pinned(request_id, num_resident, parts[-1].end if parts else 0, num_bytes)
