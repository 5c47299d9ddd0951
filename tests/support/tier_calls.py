"""Blocks as a keeper makes them, and tiers that fail as real ones do."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

import numpy as np
from msgspec import Struct

from paddler.testing.waiting import wait_until
from paddler.tier_stats import TierStats
from workers.agent.saved_states import BLOCK, State
from workers.agent.tiers.contract import Keeper, Loaded, TierUnavailable
from workers.agent.tiers.disk import DiskTier
from workers.agent.tiers.keeper import StateKeeper
from workers.agent.tiers.names import next_name, root_name, tail_name
from workers.agent.tiers.packing import Packer
from workers.agent.tokens import TokenArray

SECRET = bytes(range(32))
PACKER = Packer(SECRET)
FINGERPRINT = "of some model"
SIZE = 2000
"""Bytes of a state."""
MakeKeeper = Callable[..., StateKeeper]


class ManualClock:
    """Time goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps")


class Made(Struct, frozen=True):
    """A block and where it belongs."""

    name: bytes
    above: bytes
    own: bytes
    tokens: TokenArray
    state: State

    def packed(self, packer: Packer = PACKER, *, token_us: int = 1000) -> bytes:
        num = len(self.tokens)
        return packer.pack(self.name, self.state, above=self.above, own=self.own, num_tokens=num, token_us=token_us)


def state_of(seed: int, size: int = SIZE) -> State:
    return np.frombuffer(random.Random(seed).randbytes(size), np.uint8)


def tokens_of(seed: int, num: int) -> TokenArray:
    return np.array(random.Random(seed).choices(range(50_000), k=num), np.int32)


def chain(tokens: TokenArray, *, scope: str = "ann", size: int = SIZE, root: bytes | None = None) -> list[Made]:
    """The full blocks of these tokens, and the tail."""
    above = root_name(SECRET, FINGERPRINT, scope) if root is None else root
    made: list[Made] = []
    for at in range(0, len(tokens), BLOCK):
        some = tokens[at : at + BLOCK]
        own = next_name(SECRET, above, some)
        name = own if len(some) == BLOCK else tail_name(SECRET, above)
        made.append(Made(name, above, own, some, state_of(at + len(some), size)))
        above = own
    return made


def put(tier: DiskTier, block: Made, *, is_pinned: bool = False) -> None:
    tier.write(block.name, block.packed(), num_tokens=len(block.tokens), is_pinned=is_pinned)


def holds(tier: DiskTier, block: Made) -> bool:
    """Whether it is found, and whole; does not count as a use."""
    path = tier._path(block.name)
    return path.exists() and bool((PACKER.unpack(block.name, path.read_bytes()).state == block.state).all())


def files_of(directory: Path) -> list[Path]:
    """Of blocks, whole or not."""
    return [path for path in directory.rglob("*") if path.is_file() and path.parent.name != "kv-1"]


class MemoryTier:
    """A real tier in memory, with the troubles of one far away: it may be down, and may not come back."""

    def __init__(self, name: str = "shared") -> None:
        self.name = name
        self.blocks: dict[bytes, bytes] = {}
        self.asked: list[tuple[bytes, ...]] = []
        self.written: list[bytes] = []
        self.pinned: set[bytes] = set()
        self.peers: list[Sequence[str]] = []
        self.is_down = self.is_closed = False
        self.gate: Event | None = None
        """Reads and writes wait for it."""
        self.on_read: Callable[[], None] = lambda: None

    def read(self, names: Sequence[bytes], *, peers: Sequence[str], deadline_s: float) -> list[bytes]:
        self.asked.append(tuple(names))
        self.peers.append(peers)
        self.on_read()
        if self.gate is not None:
            self.gate.wait(30)
        if self.is_down:
            raise TierUnavailable("it is down")
        found: list[bytes] = []
        for name in names:
            if name not in self.blocks:
                break
            found.append(self.blocks[name])
        return found

    def write(self, name: bytes, packed: bytes, *, num_tokens: int, is_pinned: bool) -> None:
        if self.gate is not None:
            self.gate.wait(30)
        if self.is_down:
            raise TierUnavailable("it is down")
        self.written.append(name)
        self.blocks[name] = packed
        if is_pinned:
            self.pinned.add(name)

    def close(self) -> None:
        self.is_closed = True


def write_all(keeper: StateKeeper, tokens: TokenArray, *, scope: str = "ann", size: int = SIZE) -> list[Made]:
    """As an engine does, block by block; what was written, after it was."""
    blocks = chain(tokens, root=keeper.root(scope), size=size)
    for block in blocks:
        assert keeper.write(block.above, block.tokens, block.state, is_tail=len(block.tokens) < BLOCK)
    assert keeper.flush(10)
    return blocks


async def fetch(
    keeper: Keeper, tokens: TokenArray, start: int = 0, *, scope: str = "ann", peers: tuple[str, ...] = ()
) -> list[Loaded]:
    keeper.fetch("r", scope, tokens, start, peers=peers, deadline_s=10)
    found: list[list[Loaded]] = []

    def has_come() -> bool:
        loaded = keeper.fetched("r")
        if loaded is not None:
            found.append(loaded)
        return loaded is not None

    await wait_until(has_come)
    return found[0]


def check(
    loaded: list[Loaded], tokens: TokenArray, start: int, end: int, *, size: int = SIZE, whole: int | None = None
) -> None:
    """Nothing but the states of exactly these tokens, from here to there; the last may be of a tail that goes on up to
    `whole`."""
    at = start
    for one in loaded:
        assert one.start == at
        at = one.end
        assert (one.state == state_of(whole if whole is not None and at == end else at, size)).all()
    assert at == end


def stats_of(keeper: StateKeeper, tier: str) -> TierStats:
    return next(stats for stats in keeper.stats if stats.tier == tier)
