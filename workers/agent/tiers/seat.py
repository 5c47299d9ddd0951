"""A tier as the keeper knows it: what it costs, whether it is left out for now, and what has come of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import Protocol, runtime_checkable

from paddler.clock import Clock
from paddler.logs import get_logger
from workers.agent.background import Background
from workers.agent.tiers.breaker import Breaker
from workers.agent.tiers.contract import Tier, TierStats, TierUnavailable
from workers.agent.tiers.costs import Cost

PEER = "peer"
"""The tier that has nothing but what other agents have: it is read where some are named, and never written."""

log = get_logger(__name__)


@runtime_checkable
class Sized(Protocol):
    """A tier that knows what it holds."""

    @property
    def num_bytes(self) -> int: ...

    @property
    def num_blocks(self) -> int: ...


@runtime_checkable
class Indexed(Protocol):
    """A tier that has to look at what it holds before it takes more, and never raises for it."""

    def index(self) -> None: ...


@runtime_checkable
class Mendable(Protocol):
    """A tier that can get rid of what it should not hold."""

    def drop(self, name: bytes) -> None:
        """Raises `TierUnavailable`."""
        ...


class Seat:
    """Any thread. Nothing that a tier does comes out of it."""

    def __init__(self, tier: Tier, clock: Clock) -> None:
        self.tier = tier
        self.name = tier.name
        self.asks_peers = tier.name == PEER
        self.writer = None if self.asks_peers else Background(f"kv-write-{tier.name}")
        self._clock = clock
        self._lock = Lock()
        self._cost = Cost()
        self._reads, self._writes = Breaker(), Breaker()
        """A disk that is full can be read."""
        self._num_hits = self._num_misses = self._num_tokens = self._num_refused = self._num_failures = 0
        self._saved_s = 0.0
        if self.writer is not None and isinstance(tier, Indexed):
            # Thousands of files, perhaps on a disk that hangs: nobody waits for it before he reads.
            self.writer.submit(tier.index)

    @property
    def is_written(self) -> bool:
        return self.writer is not None

    @property
    def may_read(self) -> bool:
        with self._lock:
            return self._reads.is_closed(self._clock.monotonic())

    @property
    def may_write(self) -> bool:
        with self._lock:
            return self.is_written and self._writes.is_closed(self._clock.monotonic())

    def read_s(self, num_bytes: int) -> float | None:
        """None: nobody knows yet."""
        with self._lock:
            return self._cost.read_s(num_bytes) if self._cost.is_measured else None

    def is_worth(self, num_bytes: int, compute_s: float) -> bool:
        with self._lock:
            return self._cost.is_worth(num_bytes, compute_s, self._clock.monotonic())

    def read(self, names: Sequence[bytes], peers: Sequence[str], deadline_s: float) -> list[bytes] | None:
        """None: it failed."""
        try:
            found = self.tier.read(names, peers=peers, deadline_s=deadline_s)
        except Exception as error:
            self._failed(self._reads, "reading", error)
            return None
        with self._lock:
            self._reads.succeeded()
        return found[: len(names)]

    def write(self, name: bytes, packed: bytes, *, num_tokens: int, is_pinned: bool) -> bool:
        """Whether it is kept."""
        if not self.may_write:
            return False
        try:
            self.tier.write(name, packed, num_tokens=num_tokens, is_pinned=is_pinned)
        except Exception as error:
            self._failed(self._writes, "writing", error)
            return False
        with self._lock:
            self._writes.succeeded()
        return True

    def found(self, num_blocks: int, num_bytes: int = 0, seconds: float = 0.0) -> None:
        """So many blocks came; of so many bytes of states in so many seconds, if that is of interest."""
        with self._lock:
            self._num_hits += num_blocks
            if num_bytes:
                self._cost.read(num_bytes, seconds, self._clock.monotonic())

    def measured(self, num_bytes: int, seconds: float) -> None:
        """It took so long to get so many bytes, which came too late to be of use."""
        with self._lock:
            if num_bytes:
                self._cost.read(num_bytes, seconds, self._clock.monotonic())
            else:
                self._cost.missed(seconds, self._clock.monotonic())

    def missed(self, seconds: float | None) -> None:
        """A block is not here; if nothing else was here either, it took so long to learn it."""
        with self._lock:
            self._num_misses += 1
            if seconds is not None:
                self._cost.missed(seconds, self._clock.monotonic())

    def refused(self, name: bytes, reason: str) -> None:
        """What was here is not what it should be. It goes, so that what is right can come."""
        log.warning("a saved state was refused: its tokens are computed", tier=self.name, reason=reason)
        with self._lock:
            self._num_refused += 1
        self.let_go([name])

    def let_go(self, names: Sequence[bytes]) -> None:
        """These go, if they are here."""
        if self.writer is not None and isinstance(self.tier, Mendable):
            # In its turn among the writes: the right one may be on its way already.
            for name in names:
                self.writer.submit(partial(self._drop, self.tier, name))

    def hit(self, num_tokens: int, saved_s: float) -> None:
        with self._lock:
            self._num_tokens += num_tokens
            self._saved_s += saved_s

    def is_late(self) -> None:
        """A read has not come back by its deadline."""
        with self._lock:
            self._num_failures += 1
            self._reads.is_late(self._clock.monotonic())
        log.warning("a tier is slower than its deadline: it is left out for a while", tier=self.name)

    def came_back(self) -> None:
        """One of those."""
        with self._lock:
            self._reads.came_back()

    @property
    def stats(self) -> TierStats:
        held = self.tier if isinstance(self.tier, Sized) else None
        with self._lock:
            return TierStats(
                self.name,
                num_hits=self._num_hits,
                num_misses=self._num_misses,
                num_tokens=self._num_tokens,
                saved_s=self._saved_s,
                num_refused=self._num_refused,
                num_failures=self._num_failures,
                num_bytes=0 if held is None else held.num_bytes,
                num_blocks=0 if held is None else held.num_blocks,
                bytes_per_s=self._cost.bytes_per_s or 0.0,
            )

    def close(self) -> None:
        if self.writer is not None:
            self.writer.stop(1.0)
        try:
            self.tier.close()
        except Exception as error:
            self._failed(self._writes, "closing", error)

    def _drop(self, tier: Mendable, name: bytes) -> None:
        try:
            tier.drop(name)
        except Exception as error:
            self._failed(self._writes, "removing", error)

    def _failed(self, breaker: Breaker, what: str, error: Exception) -> None:
        now = self._clock.monotonic()
        with self._lock:
            self._num_failures += 1
            is_first = breaker.is_closed(now)
            breaker.failed(now)
        if not isinstance(error, TierUnavailable):
            log.error("a tier failed as it should not", tier=self.name, doing=what, exc_info=error)
        elif is_first:
            log.warning("a tier fails: it is left out for a while", tier=self.name, doing=what, reason=str(error))
