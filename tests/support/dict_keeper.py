"""A keeper with one tier, a dict that several may share: small, with threads, and true to the contract.

`gate` holds up what is read, until it is set or the deadline is over, `write_gate` what is written."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, wait

from msgspec import Struct

from paddler.tier_stats import TierStats
from workers.agent.background import Background
from workers.agent.saved_states import BLOCK, FIRST, State
from workers.agent.tiers.contract import PUBLIC_SCOPE, Loaded
from workers.agent.tiers.names import next_name, place_of, root_name, tail_name
from workers.agent.tokens import TokenArray, num_common

SECRET = b"of this fleet"


class Entry(Struct, frozen=True):
    tokens: TokenArray
    state: State
    is_pinned: bool


class Call(Struct, frozen=True):
    """What was asked of a keeper."""

    scope: str
    start: int
    peers: tuple[str, ...]
    deadline_s: float


class DictKeeper:
    """Implements `Keeper`. `shelf` is the tier."""

    def __init__(self, shelf: dict[bytes, Entry], *, fingerprint: str = "one", max_pending: int = 1 << 30) -> None:
        self.shelf = shelf
        self.gate, self.write_gate = threading.Event(), threading.Event()
        self.gate.set()
        self.write_gate.set()
        self.is_good = True
        """What `is_worth` says."""
        self.calls: list[Call] = []
        self.hits: list[tuple[str, int, float]] = []
        self.forgotten: list[str] = []
        self.num_written = 0
        self.max_pending = max_pending
        self._fingerprint = fingerprint
        self._known: set[bytes] = set()
        self._readings: dict[str, Future[list[Loaded]]] = {}
        self._writes: list[Future[None]] = []
        self._reader, self._writer = Background("reads"), Background("writes")

    def root(self, scope: str) -> bytes:
        return root_name(SECRET, self._fingerprint, scope)

    def next(self, above: bytes, tokens: TokenArray) -> bytes:
        return next_name(SECRET, above, tokens)

    def is_worth(self, num_tokens: int, num_bytes: int, prefill_token_s: float, *, has_peers: bool = True) -> bool:
        return self.is_good

    def fetch(
        self,
        request_id: str,
        scope: str,
        tokens: TokenArray,
        start: int,
        *,
        peers: Sequence[str],
        deadline_s: float,
        owner: str = "",
    ) -> None:
        assert request_id not in self._readings
        assert start % BLOCK == 0
        self.calls.append(Call(scope, start, tuple(peers), deadline_s))
        tokens = tokens.copy()
        self._readings[request_id] = self._reader.submit(lambda: self._read(scope, tokens, start, deadline_s, owner))

    def fetched(self, request_id: str) -> list[Loaded] | None:
        reading = self._readings.get(request_id)
        if reading is None:
            return []
        if not reading.done():
            return None
        return self._readings.pop(request_id).result()

    def forget(self, request_id: str) -> None:
        self.forgotten.append(request_id)
        self._readings.pop(request_id, None)

    def has(self, name: bytes) -> bool:
        return name in self._known

    def write(self, above: bytes, tokens: TokenArray, state: State, *, is_tail: bool, is_pinned: bool = False) -> bool:
        assert is_tail == (len(tokens) < BLOCK)
        self._writes = [one for one in self._writes if not one.done()]
        if len(self._writes) >= self.max_pending:
            return False
        own = self.next(above, tokens)
        name, entry = tail_name(SECRET, above) if is_tail else own, Entry(tokens, state, is_pinned)
        self._known.add(own)
        self.num_written += 1
        self._writes.append(self._writer.submit(lambda: self._keep(name, entry)))
        return True

    def _keep(self, name: bytes, entry: Entry) -> None:
        self.write_gate.wait()
        self.shelf[name] = entry

    def flush(self, timeout_s: float) -> bool:
        return not wait(self._writes, timeout_s).not_done

    def hit(self, tier: str, num_tokens: int, saved_s: float) -> None:
        self.hits.append((tier, num_tokens, saved_s))

    @property
    def stats(self) -> tuple[TierStats, ...]:
        return (TierStats("disk", num_tokens=sum(num for _, num, _ in self.hits), num_blocks=len(self.shelf)),)

    def close(self) -> None:
        self.gate.set()
        self.write_gate.set()
        self._reader.stop(1.0)
        self._writer.stop(1.0)

    def _read(self, scope: str, tokens: TokenArray, start: int, deadline_s: float, owner: str) -> list[Loaded]:
        loaded: list[Loaded] = []
        if not self.gate.wait(deadline_s):
            return loaded
        above, at = self.root(scope), 0
        while len(own := tokens[at : at + BLOCK]) == BLOCK:
            name = self.next(above, own)
            entry = self.shelf.get(name)
            if at >= start:
                if entry is None:
                    break
                loaded.append(Loaded(at, at + BLOCK, entry.state, "disk"))
                self._known.add(name)
            above, at = name, at + BLOCK
        for place in (self.next(above, place_of(owner)), above):
            tail = self.shelf.get(tail_name(SECRET, place))
            num = 0 if tail is None else num_common(tail.tokens, tokens[at:])
            if tail is not None and num >= FIRST:
                loaded.append(Loaded(at, at + num, tail.state, "disk"))
                break
        return loaded


class PublicIsSlow(DictKeeper):
    """Reads of the public scope wait for `write_gate`, too."""

    def _read(self, scope: str, tokens: TokenArray, start: int, deadline_s: float, owner: str) -> list[Loaded]:
        if scope == PUBLIC_SCOPE:
            self.write_gate.wait()
        return super()._read(scope, tokens, start, deadline_s, owner)
