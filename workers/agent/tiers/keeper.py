"""The keeper: between an engine, which never waits, and tiers, which take their time.

    fetch  -> one of NUM_READERS threads (`reading.py`): read, decrypt, check; `fetched` gives what came
    write  -> the packing thread (`packing.py`) -> a writing thread of each tier

So a slow store holds up neither the disk nor what is read. What is on its way to each tier is bounded by bytes: more is
dropped there, and offered again by the engine in one of its next steps where no other tier has taken it.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from paddler.clock import Clock
from paddler.logs import get_logger
from workers.agent.background import Background
from workers.agent.saved_states import BLOCK, State
from workers.agent.tiers.contract import PUBLIC_SCOPE, Loaded, Tier, TierStats
from workers.agent.tiers.names import next_name, root_name, tail_name
from workers.agent.tiers.packing import Packer, Unpacked, with_tokens
from workers.agent.tiers.reading import Reading, Wanted
from workers.agent.tiers.seat import Seat
from workers.agent.tokens import TokenArray

NUM_READERS = 4
"""Beside those that hang: a tier that does not come back is asked no more, so that at most so many hang in each."""
MAX_PENDING_BYTES = 256 << 20
"""Of states on their way to one tier, with what is packed of them up to twice as much; a larger one goes alone."""
MAX_KNOWN = 65_536
"""Names of blocks that are known to be kept; a forgotten one is offered once more."""
NO_NAME = b""
"""As long as the fingerprint is not known, nothing has a name: nothing is found or kept."""
LEND_S = 1.0

log = get_logger(__name__)


class _Near(Struct, frozen=True):
    """A block whose state somebody holds in this process, as long as he does."""

    above: bytes
    own: bytes
    num_tokens: int
    tokens: TokenArray | None
    """Of a tail: its name does not tell them."""
    state: Callable[[], State | None]


class _Write(Struct, eq=False):
    """On its way to `num_left` tiers."""

    own: bytes
    num_bytes: int
    num_left: int
    is_kept: bool = False


class StateKeeper:
    """Implements `contract.Keeper`. `tiers` in the order in which they are asked as long as none was measured; all but
    `peer` are written. `secret` is the fleet's, for names; `fingerprint` gives None as long as it is not known. A state
    that was given to `write`, or came from `fetched`, is not changed any more by anybody."""

    def __init__(
        self,
        tiers: Sequence[Tier],
        packer: Packer,
        secret: bytes,
        fingerprint: Callable[[], str | None],
        clock: Clock,
        *,
        max_pending_bytes: int = MAX_PENDING_BYTES,
    ) -> None:
        self._seats = [Seat(tier, clock) for tier in tiers]
        self._nearest = next((seat for seat in self._seats if seat.is_written), None)
        self._packer, self._secret, self._fingerprint, self._clock = packer, secret, fingerprint, clock
        self._max_pending_bytes = max_pending_bytes
        self._readers = Background("kv-read", NUM_READERS)
        self._packing = Background("kv-pack")
        self._changed = threading.Condition()
        """Guards what follows."""
        self._pending_bytes = dict.fromkeys(self._seats, 0)
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        """By the chained name, the least recently used first; whether it was kept as pinned."""
        self._readings: dict[str, Reading] = {}
        self._forgotten: list[Reading] = []
        """Nobody waits for them, but they are still under way."""
        self._near: dict[bytes, _Near] = {}
        self._block_bytes = 0
        self._token_us = 0
        self.num_dropped = 0
        """Blocks that had no room on their way."""

    def root(self, scope: str) -> bytes:
        """`NO_NAME` as long as the fingerprint is not known."""
        fingerprint = self._fingerprint()
        if fingerprint is None:
            return NO_NAME
        # States under another key could not be read: they have other names.
        return root_name(self._secret, fingerprint + self._packer.key_id.hex(), scope)

    def next(self, above: bytes, tokens: TokenArray) -> bytes:
        return next_name(self._secret, above, tokens) if above else NO_NAME

    def is_worth(self, num_tokens: int, num_bytes: int, prefill_token_s: float, *, has_peers: bool = True) -> bool:
        self._token_us = round(prefill_token_s * 1e6)
        self._watch()
        if self._fingerprint() is None:
            return False
        compute_s = num_tokens * prefill_token_s
        seats = [seat for seat in self._seats if has_peers or not seat.asks_peers]
        return any(seat.may_read and seat.is_worth(num_bytes, compute_s) for seat in seats)

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
        self.forget(request_id)
        root = self.root(scope)
        if not root or start > len(tokens):
            return
        names = [root]
        for at in range(0, len(tokens) - BLOCK + 1, BLOCK):
            names.append(self.next(names[-1], tokens[at : at + BLOCK]))
        num_before = start // BLOCK
        reading = Reading(
            Wanted(
                start, names[num_before], tuple(names[num_before + 1 :]), tokens[start:].copy(), tuple(peers), owner
            ),
            self._seats,
            self._packer,
            self._secret,
            self._clock,
            end_at=self._clock.monotonic() + deadline_s,
            block_bytes=self._block_bytes,
            token_s=self._token_us / 1e6,
            on_block=partial(self._came, scope == PUBLIC_SCOPE),
            on_miss=self._forget_names,
        )
        self._readings[request_id] = reading
        self._readers.submit(partial(self._run, partial(self._read, reading)))

    def fetched(self, request_id: str) -> list[Loaded] | None:
        reading = self._readings.get(request_id)
        if reading is None:
            return []
        if not reading.is_done:
            if self._clock.monotonic() < reading.end_at:
                return None
            self._give_up_late(reading)
        del self._readings[request_id]
        return reading.loaded

    def forget(self, request_id: str) -> None:
        reading = self._readings.pop(request_id, None)
        if reading is not None and not reading.is_done:
            reading.give_up()
            self._forgotten.append(reading)

    def has(self, name: bytes) -> bool:
        """One that a tier was too broken to take counts as kept where another has taken it."""
        with self._changed:
            if name not in self._known:
                return False
            self._known.move_to_end(name)
            # Where no tier is written to, it is kept as long as it is in host memory.
            return name in self._near or any(seat.is_written for seat in self._seats)

    def write(self, above: bytes, tokens: TokenArray, state: State, *, is_tail: bool, is_pinned: bool = False) -> bool:
        if is_tail == (len(tokens) == BLOCK) or not 0 < len(tokens) <= BLOCK:
            raise ValueError(f"a block has {BLOCK} tokens and a tail fewer, not {len(tokens)}")
        if not above:
            return False
        own = self.next(above, tokens)
        name = tail_name(self._secret, above) if is_tail else own
        near = self._hold(name, above, own, len(tokens), state, tokens if is_tail else None)
        if not is_tail:
            self._block_bytes = state.nbytes
        with self._changed:
            if self._known.get(own, False) or (own in self._known and not is_pinned):
                return True
            seats = [seat for seat in self._seats if seat.is_written]
            if seats:
                seats = [seat for seat in seats if seat.may_write and self._has_room(seat, state.nbytes)]
                if not seats:
                    self.num_dropped += 1
                    return False
                for seat in seats:
                    self._pending_bytes[seat] += state.nbytes
            self._know(own, is_pinned=is_pinned)
        if seats:
            self._packing.submit(partial(self._run, partial(self._pack, seats, name, near, state, is_pinned=is_pinned)))
        return True

    def flush(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not any(self._pending_bytes.values()), timeout_s)

    def hit(self, tier: str, num_tokens: int, saved_s: float) -> None:
        for seat in self._seats:
            if seat.name == tier:
                seat.hit(num_tokens, saved_s)

    def lend(self, name: bytes) -> bytes | None:
        """The packed block of this name for another agent, from the disk or host memory; None: it is not here. May
        wait for the disk: from a thread of whoever serves, never the engine's."""
        for seat in self._seats:
            if seat.name == "disk" and seat.may_read:
                found = seat.read([name], (), LEND_S)
                if found:
                    return found[0]
        near = self._near.get(name)
        state = None if near is None else near.state()
        return None if near is None or state is None else self._packed(name, near, state)

    def packed(self, names: Sequence[bytes]) -> list[bytes]:
        """The same of several, up to the first that is not here."""
        found: list[bytes] = []
        for name in names:
            one = self.lend(name)
            if one is None:
                break
            found.append(one)
        return found

    @property
    def stats(self) -> tuple[TierStats, ...]:
        return tuple(seat.stats for seat in self._seats)

    def close(self) -> None:
        """What is on its way is lost: `flush` comes first."""
        for reading in self._readings.values():
            reading.give_up()
        self._readings.clear()
        self._packing.stop(1.0)
        self._readers.stop(1.0)
        for seat in self._seats:
            seat.close()

    def _read(self, reading: Reading) -> None:
        try:
            reading.run()
        finally:
            if reading.is_late:
                self._readers.shrink()

    def _give_up_late(self, reading: Reading) -> None:
        was_late = reading.is_late
        reading.give_up(is_late=True)
        if reading.is_late and not was_late:
            self._readers.grow()

    def _watch(self) -> None:
        """A tier that hangs is known for it, although nobody waits for what it was asked."""
        now = self._clock.monotonic()
        for reading in self._forgotten:
            if now >= reading.end_at:
                self._give_up_late(reading)
        self._forgotten = [reading for reading in self._forgotten if not reading.is_done and now < reading.end_at]

    def _hold(
        self, name: bytes, above: bytes, own: bytes, num_tokens: int, state: State, tokens: TokenArray | None
    ) -> _Near:
        """Find this state by its name, as long as host memory has it."""

        def gone(reference: weakref.ref[State]) -> None:
            if (near := self._near.get(name)) is not None and near.state is reference:
                self._near.pop(name, None)

        self._near[name] = near = _Near(above, own, num_tokens, tokens, weakref.ref(state, gone))
        return near

    def _came(
        self, is_public: bool, seat: Seat, name: bytes, block: Unpacked, tokens: TokenArray | None = None
    ) -> None:
        header = block.header
        self._hold(name, header.above, header.own, header.num_tokens, block.state, tokens)
        if not header.is_tail:
            self._block_bytes = block.state.nbytes
        # What a farther tier had is offered to the nearer ones, and what is pinned is to be pinned once more.
        if seat is self._nearest and not is_public:
            with self._changed:
                self._know(header.own, is_pinned=False)

    def _forget_names(self, names: Sequence[bytes]) -> None:
        """A tier has them no more: they are offered again when they were computed."""
        with self._changed:
            for name in names:
                self._known.pop(name, None)

    def _know(self, own: bytes, *, is_pinned: bool) -> None:
        self._known[own] = is_pinned
        self._known.move_to_end(own)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def _packed(self, name: bytes, near: _Near, state: State) -> bytes:
        sizes = {"num_tokens": near.num_tokens, "token_us": self._token_us}
        content = state if near.tokens is None else with_tokens(near.tokens, state)
        return self._packer.pack(name, content, above=near.above, own=near.own, **sizes)

    def _pack(self, seats: Sequence[Seat], name: bytes, near: _Near, state: State, *, is_pinned: bool) -> None:
        write = _Write(near.own, state.nbytes, len(seats))
        try:
            packed = self._packed(name, near, state)
        except BaseException:
            for seat in seats:
                self._end(write, seat, is_kept=False)
            raise
        for seat in seats:
            assert seat.writer is not None
            keep = partial(seat.write, name, packed, num_tokens=near.num_tokens, is_pinned=is_pinned)
            seat.writer.submit(partial(self._keep, write, seat, keep))

    def _keep(self, write: _Write, seat: Seat, keep: Callable[[], bool]) -> None:
        is_kept = False
        try:
            is_kept = keep()
        finally:
            self._end(write, seat, is_kept=is_kept)

    def _end(self, write: _Write, seat: Seat, *, is_kept: bool) -> None:
        with self._changed:
            self._pending_bytes[seat] -= write.num_bytes
            write.num_left -= 1
            write.is_kept |= is_kept
            if write.num_left == 0 and not write.is_kept:
                self._known.pop(write.own, None)
            self._changed.notify_all()

    def _has_room(self, seat: Seat, num_bytes: int) -> bool:
        pending = self._pending_bytes[seat]
        return not pending or pending + num_bytes <= self._max_pending_bytes

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception:
            log.exception("a saved state was lost")
