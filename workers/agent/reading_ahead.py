"""Reading what a new prompt begins with from the tiers, while the others go on.

A prompt that is longer than what context and host memory have of it waits for what the keeper finds, but never for
longer than its tokens would take to compute.
"""

from __future__ import annotations

from math import inf
from threading import Event

from msgspec import Struct

from paddler.clock import Clock
from workers.agent.restoring import MIN_RESTORED, Piece
from workers.agent.saved_states import BLOCK, Kept, SavedStates, State
from workers.agent.sequence import Sequence
from workers.agent.tiers.contract import PUBLIC_SCOPE, Keeper, Loaded
from workers.agent.tokens import TokenArray

MAX_S = 1.0
"""A prompt waits for no longer, however long it is."""
MAX_UNKNOWN = 4
"""Prompts that are read at once as long as nobody knows how large a state is."""
GRACE_S = 0.02
"""What the keeper may be late: at its deadline it gives what it has by then. As long, too, one whose own scope has some
of its prompt waits for the public one: what is pinned is seldom longer."""


class _Reading(Struct, eq=False):
    """Of one sequence, from position `start` on, about `num_bytes` of states (0: nobody knows). `asked` are the names
    of what is under way, by scope, `found` what came. From `public_deadline` on, the public scope alone is not waited
    for."""

    tokens: TokenArray
    scope: str
    start: int
    num_bytes: int
    deadline: float
    asked: dict[str, str]
    found: dict[str, list[Loaded]]
    pieces: list[Piece]
    public_deadline: float = inf
    is_begun: bool = False
    is_second: bool = False
    is_over: bool = False


class ReadingAhead:
    """By sequence id. What came goes into host memory, and is held for its sequence until that is admitted. What is
    held takes no more than host memory may, but for one prompt: others wait until there is room."""

    def __init__(self, keeper: Keeper, saved: SavedStates, clock: Clock) -> None:
        self._keeper = keeper
        self._saved = saved
        self._clock = clock
        self._readings: dict[int, _Reading] = {}
        self._number = 0
        self._pause = Event()

    @property
    def is_waiting(self) -> bool:
        return any(not reading.is_over for reading in self._readings.values())

    def wait(self, timeout_s: float) -> None:
        """If anything is on its way."""
        if self.is_waiting:
            self._pause.wait(timeout_s)

    def look(
        self, sequence: Sequence, at: int, *, token_s: float, token_bytes: float, pending_bytes: int
    ) -> tuple[bool, list[Kept]]:
        """Whether the sequence, of which the first `at` tokens are at hand, had better wait. The first look begins to
        read; `token_s` is what computing a token takes, `token_bytes` what its state has (0: nobody knows), and
        `pending_bytes` wait to be restored. Beside it of whom less is saved now."""
        key = sequence.work.key
        reading = self._readings.get(key)
        if reading is None:
            reading = self._readings[key] = self._begin(sequence, at, token_s, token_bytes)
        if reading.is_over:
            return False, []
        if not reading.is_begun:
            if not self._has_room(reading, pending_bytes):
                reading.is_over = self._clock.monotonic() >= reading.deadline
                return not reading.is_over, []
            reading.is_begun = True
            self._ask(reading, sequence, list(dict.fromkeys((sequence.scope, PUBLIC_SCOPE))), reading.start)
        for scope, name in list(reading.asked.items()):
            loaded = self._keeper.fetched(name)
            if loaded is not None:
                del reading.asked[scope]
                reading.found[scope] = loaded
                if loaded and scope == reading.scope:
                    reading.public_deadline = self._clock.monotonic()
                    if loaded[-1].end > sequence.work.num_total - MIN_RESTORED:
                        self._stop(reading)
                        break
        if reading.asked and self._clock.monotonic() < min(reading.deadline, reading.public_deadline) + GRACE_S:
            return True, []
        self._stop(reading)
        told = self._take(reading)
        if not reading.is_second and reading.pieces and reading.pieces[-1].scope != reading.scope:
            # What a tenant has added to a public prefix is kept behind that alone.
            reading.is_second = True
            self._ask(reading, sequence, [reading.scope], reading.pieces[-1].end)
        reading.is_over = not reading.asked
        return not reading.is_over, told

    def found(self, key: int, at: int) -> list[Piece]:
        """What came for this sequence and leads on from position `at`."""
        reading = self._readings.get(key)
        pieces = [] if reading is None else [piece for piece in reading.pieces if piece.end > at]
        return pieces if pieces and pieces[0].start <= at else []

    def forget(self, key: int) -> None:
        reading = self._readings.pop(key, None)
        if reading is not None:
            self._stop(reading)

    def _begin(self, sequence: Sequence, at: int, token_s: float, token_bytes: float) -> _Reading:
        tokens = sequence.tokens[: sequence.work.num_total]
        is_text = tokens >= 0
        if not is_text.all():
            tokens = tokens[: int(is_text.argmin())]
        num_more = min(len(tokens), sequence.work.num_total - 1) - at
        num_bytes, compute_s = int(num_more * token_bytes), num_more * token_s
        deadline = self._clock.monotonic() + min(compute_s, MAX_S)
        reading = _Reading(tokens, sequence.scope, at, num_bytes, deadline, {}, {}, [])
        is_worth = self._keeper.is_worth(num_more, num_bytes, token_s, has_peers=bool(sequence.job.peers))
        reading.is_over = num_more < MIN_RESTORED or not is_worth
        return reading

    def _has_room(self, reading: _Reading, num_bytes: int) -> bool:
        others = [one for one in self._readings.values() if one.asked or one.pieces]
        for one in others:
            num_bytes += one.num_bytes if one.asked else sum(piece.state.nbytes for piece in one.pieces)
        is_known = reading.num_bytes > 0 or len(others) < MAX_UNKNOWN
        return num_bytes == 0 or (is_known and num_bytes + reading.num_bytes <= self._saved.max_bytes)

    def _ask(self, reading: _Reading, sequence: Sequence, scopes: list[str], at: int) -> None:
        left_s = reading.deadline - self._clock.monotonic()
        if left_s <= 0 or len(reading.tokens) - at < MIN_RESTORED:
            return
        for scope in scopes:
            self._number += 1
            # Not the request's id alone: it may be started again before this one is forgotten.
            name = reading.asked[scope] = f"{sequence.job.request_id}:{self._number}"
            start = at - at % BLOCK
            job, begin = sequence.job, self._keeper.fetch
            owner = job.request_id if job.num_resumed else ""
            begin(name, scope, reading.tokens, start, peers=job.peers, deadline_s=left_s, owner=owner)

    def _stop(self, reading: _Reading) -> None:
        for name in reading.asked.values():
            self._keeper.forget(name)
        reading.asked.clear()

    def _take(self, reading: _Reading) -> list[Kept]:
        """The longest of what came, of equal ones the sequence's own, behind what came before."""
        came = [(loaded[-1].end, scope == reading.scope, scope) for scope, loaded in reading.found.items() if loaded]
        before = reading.pieces[-1].end if reading.pieces else 0
        if not came or max(came)[0] <= before:
            return []
        scope = max(came)[2]
        loaded = reading.found.pop(scope)
        told = self._save(reading, scope, loaded)
        blocks = {part.block.start: part.block for part in self._saved.reach(scope, reading.tokens, loaded[0].start)}
        for one in loaded:
            if one.end > before:
                # How many tokens a tail has is not told.
                most = one.start + BLOCK
                reading.pieces.append(
                    Piece(one.start, one.end, most, one.state, scope, blocks.get(one.start), one.tier)
                )
        return told

    def _save(self, reading: _Reading, scope: str, loaded: list[Loaded]) -> list[Kept]:
        states = {(one.start, one.end): one.state for one in loaded}

        def read(start: int, end: int) -> State | None:
            return states.get((start, end))

        return self._saved.add(scope, reading.tokens[: loaded[-1].end], loaded[0].start, read)
