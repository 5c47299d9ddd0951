"""One prompt's blocks, looked for in one tier after the other, in a thread of the keeper.

What a tier lacks the next may have, so the order is only one of cost: the cheapest goes first and is asked again behind
what another has filled in. Where the full blocks end, the newest tail may lead on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Lock

from msgspec import Struct

from paddler.clock import Clock
from workers.agent.saved_states import BLOCK, FIRST
from workers.agent.tiers.contract import Loaded
from workers.agent.tiers.names import next_name, place_of, tail_name
from workers.agent.tiers.packing import BadBlock, Fault, Packer, Unpacked, parted
from workers.agent.tiers.seat import Seat
from workers.agent.tokens import TokenArray, num_common

BATCH_BYTES = 64 << 20
"""About so many bytes are asked for at once: what has come by the deadline is of use, and memory is bounded."""
FIRST_BATCH = 8
"""Blocks, as long as nobody knows how large they are."""


class Wanted(Struct, frozen=True):
    """`names` of the full blocks from position `start` on, behind the one named `above`; all `tokens` from there. A
    tail of the request `owner` alone goes before another."""

    start: int
    above: bytes
    names: tuple[bytes, ...]
    tokens: TokenArray
    peers: tuple[str, ...] = ()
    owner: str = ""


class Reading:
    """`run` in one thread; `give_up` and `taken` from another. Tells `on_block` of each block that came, and `on_miss`
    of the names from the first on that a tier which is written to does not have: what went there for want of room went
    from the end of the chain."""

    def __init__(
        self,
        wanted: Wanted,
        seats: Sequence[Seat],
        packer: Packer,
        secret: bytes,
        clock: Clock,
        *,
        end_at: float,
        block_bytes: int,
        token_s: float,
        on_block: Callable[[Seat, bytes, Unpacked, TokenArray | None], None],
        on_miss: Callable[[Sequence[bytes]], None],
    ) -> None:
        self.end_at = end_at
        self.is_done = False
        self._wanted, self._seats, self._packer = wanted, seats, packer
        self._secret, self._clock, self._block_bytes = secret, clock, block_bytes
        self._token_s = token_s
        """What computing a token takes; 0: nobody knows."""
        self._on_block, self._on_miss = on_block, on_miss
        self._lock = Lock()
        self._loaded: list[Loaded] = []
        self._seat: Seat | None = None
        """That whose read is under way."""
        self._is_given_up = False
        self.is_late = False
        """A tier has not come back by the deadline, and holds up its thread."""

    @property
    def loaded(self) -> list[Loaded]:
        with self._lock:
            return list(self._loaded)

    def give_up(self, *, is_late: bool = False) -> None:
        """Nobody waits any more; with `is_late` because the time is over, and whoever is being asked is to blame."""
        with self._lock:
            self._is_given_up = True
            if is_late and self._seat is not None and not self.is_late:
                self.is_late = True
                self._seat.is_late()

    def run(self) -> None:
        try:
            above = self._read_blocks()
            if not self._is_over:
                self._read_tail(above)
        finally:
            self.is_done = True

    @property
    def _is_over(self) -> bool:
        return self._is_given_up or self._clock.monotonic() >= self.end_at

    def _read_blocks(self) -> bytes:
        """The name of the last one that came."""
        names = self._wanted.names
        at = 0
        missed: dict[Seat, int] = {}
        while at < len(names) and not self._is_over:
            open_seats = [seat for seat in self._in_order((len(names) - at) * BLOCK) if missed.get(seat) != at]
            if not open_seats:
                break
            seat = open_seats[0]
            batch = max(1, BATCH_BYTES // self._block_bytes) if self._block_bytes else FIRST_BATCH
            asked = names[at : at + batch]
            num_found = self._ask(seat, asked, names[at + batch :])
            at += num_found
            if num_found < len(asked):
                missed[seat] = at
        return names[at - 1] if at else self._wanted.above

    def _in_order(self, num_tokens: int) -> list[Seat]:
        """The seats that may be asked now, the cheapest first; not those by which so many tokens come later than they
        are computed."""
        num_bytes = num_tokens * self._block_bytes // BLOCK
        compute_s = num_tokens * self._token_s
        costs: list[tuple[float, int, Seat]] = []
        for number, seat in enumerate(self._seats):
            if seat.may_read and (self._wanted.peers or not seat.asks_peers):
                # One that was not measured yet keeps its place behind the one before it.
                cost = seat.read_s(num_bytes)
                if compute_s and not seat.is_worth(num_bytes, compute_s):
                    continue
                costs.append((cost if cost is not None else costs[-1][0] if costs else 0.0, number, seat))
        return [seat for _, _, seat in sorted(costs)]

    def _ask(self, seat: Seat, names: Sequence[bytes], behind: Sequence[bytes]) -> int:
        """How many of `names` came; `behind` are those that follow."""
        began = self._clock.monotonic()
        packed = self._read(seat, names)
        if packed is None:
            return 0
        if self._is_given_up:
            # Nobody wants it any more, but how slow it is must be known before it is asked again.
            seat.measured(sum(map(len, packed)), self._clock.monotonic() - began)
            return 0
        num_found = num_bytes = 0
        is_refused = False
        for name, one in zip(names, packed, strict=False):
            if self._is_given_up:
                break
            block = self._unpack(seat, name, one)
            if block is None:
                is_refused = True
                break
            self._block_bytes = block.state.nbytes
            num_found, num_bytes = num_found + 1, num_bytes + block.state.nbytes
            self._take(seat, name, block, BLOCK)
        seconds = self._clock.monotonic() - began
        if num_found:
            seat.found(num_found, num_bytes, seconds)
        if is_refused:
            # They are computed anew with it, and would else be found one by one to be as wrong, prompt after prompt.
            seat.let_go([*names[num_found + 1 :], *behind])
        if num_found < len(names) and not self._is_over:
            if seat.is_written:
                self._on_miss([*names[num_found:], *behind])
            if not is_refused:
                seat.missed(None if num_found else seconds)
        elif not num_found and not is_refused:
            seat.measured(0, seconds)
        return num_found

    def _read_tail(self, above: bytes) -> None:
        at = self._loaded[-1].end if self._loaded else self._wanted.start
        rest = self._wanted.tokens[at - self._wanted.start :]
        if len(rest) < FIRST:
            return
        own = (next_name(self._secret, above, place_of(self._wanted.owner)),) if self._wanted.owner else ()
        for place in (*own, above):
            name = tail_name(self._secret, place)
            for seat, tail, tokens in self._tails(name):
                num = num_common(tokens, rest)
                if num >= FIRST:
                    seat.found(1)
                    self._take(seat, name, tail, num, tokens)
                    return

    def _tails(self, name: bytes) -> Iterator[tuple[Seat, Unpacked, TokenArray]]:
        """What each tier has under it, with its tokens: another conversation's, most of the time, which may begin
        alike."""
        for seat in self._in_order(BLOCK):
            if self._is_over:
                return
            for one in self._read(seat, [name]) or ():
                block = self._unpack(seat, name, one)
                if block is None:
                    continue
                try:
                    tokens, tail = parted(block)
                except BadBlock as bad:
                    seat.refused(name, str(bad))
                else:
                    yield seat, tail, tokens

    def _read(self, seat: Seat, names: Sequence[bytes]) -> list[bytes] | None:
        with self._lock:
            if self._is_given_up:
                return None
            self._seat = seat
        try:
            return seat.read(names, self._wanted.peers, self.end_at - self._clock.monotonic())
        finally:
            with self._lock:
                self._seat = None
                if self.is_late:
                    seat.came_back()

    def _unpack(self, seat: Seat, name: bytes, packed: bytes) -> Unpacked | None:
        try:
            block = self._packer.unpack(name, packed)
            if block.header.is_tail == (block.header.num_tokens == BLOCK):
                raise BadBlock(Fault.CORRUPT)
        except BadBlock as bad:
            seat.refused(name, str(bad))
            return None
        return block

    def _take(
        self, seat: Seat, name: bytes, block: Unpacked, num_tokens: int, tokens: TokenArray | None = None
    ) -> None:
        """So many of its tokens are wanted; `tokens` are all that a tail has."""
        self._on_block(seat, name, block, tokens)
        with self._lock:
            start = self._loaded[-1].end if self._loaded else self._wanted.start
            self._loaded.append(Loaded(start, start + num_tokens, block.state, seat.name))
