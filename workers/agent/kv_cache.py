"""The KV cache of a context: which sequence lies under which id, what is shared, what stays parked and what goes.

Keeps `PrefixCache` and llama.cpp's own table in step: every change goes to both. Events are the `Retained` that the
agent must hear.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Sequence_

import numpy as np
import structlog
from msgspec.structs import replace

from paddler.engine import Event, Pinned, Retained
from workers.agent.behind import Behind
from workers.agent.context import Context
from workers.agent.pins import Pins
from workers.agent.prefix_cache import Charges, Match, PrefixCache
from workers.agent.restoring import Piece, num_room
from workers.agent.saved_states import Kept
from workers.agent.scheduler import MIN_PREFILL_TOKENS
from workers.agent.sequence import Sequence
from workers.agent.tiers.contract import PUBLIC_SCOPE
from workers.agent.tokens import num_common

log = structlog.get_logger(__name__)

MIN_WAIT_TOKENS = 64
"""Fewer common tokens are not worth waiting for whoever computes them already: his next step takes about as long. Who
has waited stays for all but the last `MIN_PREFILL_TOKENS`."""
NO_TOKEN = -1
EVICT_TOKENS = 256
"""At least so many cells are taken from a parked sequence at once, so that it is not told about in every step."""


class KvCache:
    """Sequence ids of one context: at most `max_parked` hold ended sequences, the others are for running ones.

    With `can_share` False (see `Context.can_share`) no cell is shared and nothing stays parked. What is evicted goes
    where `open_behind` says, if it is given and anything is shared: called with the tree and the id of a sequence that
    the context has more for that."""

    def __init__(
        self,
        context: Context,
        num_running: int,
        max_parked: int,
        *,
        can_share: bool,
        open_behind: Callable[[PrefixCache, int], Behind] | None = None,
    ) -> None:
        self._context = context
        self._can_share = can_share
        self._max_parked = max_parked if can_share else 0
        self._free = list(range(num_running + max_parked))
        self._tree = PrefixCache()
        self.behind: Behind | None = None
        if open_behind is not None and can_share:
            self.behind = open_behind(self._tree, num_running + max_parked)
        self._request_ids: dict[int, str] = {}
        self._totals: dict[int, int] = {}
        """Of parked ones: the tokens of their conversation, whatever of it has been evicted."""
        self._newest: dict[str, int] = {}
        """By request id: a request that comes back has two sequences for a while, and its older one is not told of."""
        self._pins = Pins(context, self._tree, None if self.behind is None else self.behind.states)

    @property
    def num_cells(self) -> int:
        """Cells in use; one that several sequences use is one cell."""
        return self._tree.num_cells

    @property
    def num_parked(self) -> int:
        return len(self._tree.parked)

    @property
    def pinned(self) -> tuple[Pinned, ...] | None:
        return self._pins.told if self._max_parked else None

    def unpin(self, request_id: str) -> list[Retained]:
        """It goes, but for what others have of it; what is saved of it goes in its turn."""
        key = self._pins.drop(request_id)
        return [] if key is None else self._evict(key, saves=False)

    def acquire(self, request_id: str) -> int:
        """A free sequence id. Parked ones never take those that running ones need."""
        key = self._free.pop()
        self._request_ids[key] = request_id
        self._newest[request_id] = key
        return key

    def release(self, key: int) -> None:
        """The job of this sequence was never begun."""
        self._evict(key)

    def look_up(self, sequences: Sequence_[Sequence], target_s: float, num_cells: int, events: list[Event]) -> float:
        """Go on with what was not restored yet. Then write into the `work` of each sequence, given oldest first, what
        the scheduler needs to know: how many of its cells count for an older one; of one that is not admitted, how many
        tokens it would find; and whether it had better wait, because an older one is computing what both begin with, or
        because that is being read from a tier. Returns how many seconds of the step, which aims at `target_s`, went to
        what was restored already; what a newcomer costs is in its `work`, too."""
        events += self._go_on(sequences, target_s, num_cells)
        charges = Charges()
        ahead: list[Sequence] = []
        for sequence in sequences:
            work = sequence.work
            work.gives_way = sequence.job.is_pinned
            if work.is_admitted:
                work.num_shared = charges.charge(self._tree.leaf(work.key), work.num_cached)
            elif self._can_share:
                work.restore_s = 0.0
                match = self._match(sequence)
                pieces = self._reach(sequence, match.num_tokens)
                work.num_cached = pieces[-1].end if pieces else match.num_tokens
                num_ahead = max((_num_worth_waiting(one, sequence) for one in ahead), default=0)
                work.is_held = num_ahead > 0
                work.num_shared = num_ahead or charges.charge(match.node, match.num_tokens)
                if num_ahead:
                    _hurry(ahead, sequence)
                    continue
                if self.behind is not None:
                    events += self._look_behind(self.behind, sequence, match.num_tokens)
            if work.num_pending > 1:
                ahead.append(sequence)
        return 0.0 if self.behind is None else self.behind.restorer.spent_s

    def _look_behind(self, behind: Behind, sequence: Sequence, at: int) -> list[Retained]:
        """The sequence waits for what is on its way, or is planned with what is there and this step has time for."""
        work = sequence.work
        work.is_held, told = behind.look(sequence, work.num_cached)
        if not work.is_held:
            pieces = behind.reach(sequence, at)
            num_now, work.restore_s = behind.restorer.planned(pieces)
            work.is_restoring = num_now < len(pieces)
            work.num_cached = pieces[num_now - 1].end if num_now else at
        return self._told(told)

    def admit(self, sequence: Sequence, num_cells: int) -> list[Retained]:
        """Give the sequence the cells of the longest beginning that is there, computing and copying nothing, and behind
        them what was saved, if that fits into `num_cells`."""
        work = sequence.work
        match = Match()
        if self._can_share:
            match = self._match(sequence)
        if match.num_tokens:
            self._context.copy(match.key, work.key, match.num_tokens)
            if self._context.extent(work.key) != (0, match.num_tokens - 1):
                # Sliding-window memory gives cells away that no token to come will look at, but another answer would.
                log.debug("a prefix is no longer whole", num_tokens=match.num_tokens)
                self._context.remove(work.key)
                match = Match()
        self._tree.add(work.key, sequence.scope, sequence.tokens, match)
        self._now_has(sequence)
        events: list[Retained] = []
        if self.behind is not None:
            pieces = self.behind.reach(sequence, match.num_tokens)
            self.behind.restorer.missed(work.num_total - (pieces[-1].end if pieces else match.num_tokens))
            self.behind.restorer.hold(work.key, pieces)
            # Who was planned with all of them computes what comes behind them in this very step.
            events = self._restore(self.behind, sequence, num_cells, all_at_once=not work.is_restoring)
            self.behind.admitted(sequence)
        work.is_admitted, work.is_held, work.restore_s = True, False, 0.0
        return events

    def keep(self) -> list[Retained]:
        """Save a block of what was computed, if anybody wants it."""
        return [] if self.behind is None else self._told(self.behind.keep())

    def keep_all(self) -> list[Retained]:
        """Save all of it, for other agents."""
        return [] if self.behind is None else self._told(self.behind.keep_all())

    def wait(self, timeout_s: float) -> None:
        """If what somebody begins with is on its way."""
        if self.behind is not None:
            self.behind.wait(timeout_s)

    def _go_on(self, sequences: Sequence_[Sequence], target_s: float, num_cells: int) -> list[Retained]:
        if self.behind is None:
            return []
        self.behind.restorer.begin(target_s)
        events: list[Retained] = []
        for sequence in sequences:
            if sequence.work.is_admitted and sequence.work.is_restoring:
                events += self._restore(self.behind, sequence, num_cells)
        return events

    def _reach(self, sequence: Sequence, start: int) -> list[Piece]:
        return [] if self.behind is None else self.behind.reach(sequence, start)

    def _restore(
        self, behind: Behind, sequence: Sequence, num_cells: int, *, all_at_once: bool = False
    ) -> list[Retained]:
        """As much as the step has time for of what the sequence waits for."""
        key, restorer, events = sequence.work.key, behind.restorer, list[Retained]()
        at = self._tree.length(key)
        pieces = restorer.due(key, all_at_once=all_at_once)
        if pieces:
            # What makes room is saved, which may drop these very blocks: their states are held meanwhile.
            events += self.make_room(num_room(pieces, at), num_cells)
            fitting = list(pieces) if pieces[0].start <= at else []
            while fitting and self._tree.num_cells + num_room(fitting, at) > num_cells:
                fitting.pop()
            if len(fitting) < len(pieces):
                restorer.forget(key)
            if fitting and at < fitting[-1].end:
                end, told = restorer.restore(key, fitting, at)
                if end > at:
                    self._tree.grow(key, end - at)
                events += self._told(told)
        sequence.work.is_restoring = restorer.is_pending(key)
        self._now_has(sequence)
        return events

    def _now_has(self, sequence: Sequence) -> None:
        sequence.work.num_cached = sequence.num_reused = self._tree.length(sequence.work.key)

    def _save(self, key: int, start: int) -> list[Kept]:
        """What of the parked sequence is about to leave: the positions from `start` on."""
        if self.behind is None:
            return []
        return self.behind.save(key, start, self._request_ids[key], self._totals[key])

    def _told(self, kept: list[Kept]) -> list[Retained]:
        """Of a request that is in the cache, too, what is more; one that has come back will tell when it is there."""
        events: list[Retained] = []
        if kept:
            self._pins.look()
        for one in kept:
            newest = self._newest.get(one.request_id)
            num_here = 0 if newest is None else self._tree.length(newest)
            if newest is None or num_here:
                num_tokens = max(one.num_tokens, num_here)
                events.append(Retained(one.request_id, num_tokens, max(one.num_total, num_tokens)))
        return events

    def _match(self, sequence: Sequence) -> Match:
        # The last token is computed in any case: its logits are wanted.
        match = self._tree.match(sequence.scope, sequence.tokens[: sequence.work.num_total - 1])
        return replace(match, num_tokens=sequence.pictures.shareable(match.num_tokens))

    def grow(self, key: int, num_tokens: int) -> None:
        """So many tokens more of the sequence have been computed."""
        self._tree.grow(key, num_tokens)

    def make_room(self, num_tokens: int, num_cells: int) -> list[Retained]:
        """Take cells from parked sequences, the least recently used first, until `num_tokens` more fit into
        `num_cells` or nothing is parked."""
        events: list[Retained] = []
        while (num_short := self._tree.num_cells + num_tokens - num_cells) > 0:
            key = self._tree.victim()
            if key is None:
                break
            # From its end: what it begins with is what others may begin with too.
            num_kept = self._tree.length(key) - max(num_short, EVICT_TOKENS)
            is_cut = num_kept > 0 and self._tree.num_own(key) >= max(num_short, EVICT_TOKENS)
            events += self._cut(key, num_kept) if is_cut else self._evict(key)
        return events

    def evict_all(self) -> list[Retained]:
        return [event for key in self._tree.parked for event in self._evict(key)]

    def park(self, sequence: Sequence) -> list[Retained]:
        """The sequence has ended or lost its slot: its cells stay, as long as nobody needs them."""
        key, num_tokens = sequence.work.key, self._tree.length(sequence.work.key)
        if num_tokens == 0 or self._max_parked == 0:
            return self._evict(key)
        # The last token sampled is in no cell: it is not of the sequence that is held.
        num_total = max(num_tokens + sequence.num_gone, sequence.num_prompt)
        if sequence.num_gone:
            num_tokens = min(num_tokens, sequence.num_original)
            if num_tokens == 0:
                return self._evict(key)
            self._context.remove(key, num_tokens)
            self._tree.cut(key, num_tokens)
        self._tree.park(key, is_pinned=sequence.job.is_pinned)
        self._totals[key] = num_total
        events = [Retained(sequence.job.request_id, num_tokens, num_total)]
        if self.behind is not None:
            events += self._told(self.behind.parked(key))
        if sequence.job.is_pinned:
            self._pins.add(sequence.job.request_id, key)
        for other in self._tree.covered(key):
            events += self._evict(other, saves=False)
        while len(self._tree.parked) > self._max_parked:
            events += self._evict(self._tree.oldest)
        return events

    def shift(self, sequence: Sequence) -> list[Retained]:
        """The context of this sequence is full: the older half behind its beginning goes, what follows moves up.

        What was moved was computed behind tokens that are gone, so nobody may take it for the cells of these tokens: in
        the tree its tokens are none. If a running sequence shares what would be moved, it is computed anew instead."""
        key, work = sequence.work.key, sequence.work
        kept, gone = sequence.shift()
        events: list[Retained] = []
        for other in self._tree.sharers(key, kept + gone):
            if other in self._tree.parked:
                events += self._evict(other)
        if self._tree.sharers(key, kept + gone):
            self._context.remove(key, kept)
            self._tree.shift(key, kept, self._tree.length(key) - kept, sequence.tokens)
            work.num_cached = kept
        else:
            self._context.shift(key, kept, kept + gone)
            private = np.full_like(sequence.tokens, NO_TOKEN)
            private[:kept] = sequence.tokens[:kept]
            self._tree.shift(key, kept, gone, private)
            work.num_cached -= gone
        if self.behind is not None:
            self.behind.shifted(key)
        log.debug("shifted", request=sequence.job.request_id, num_kept=kept, num_gone=gone, num_left=work.num_cached)
        return events + self._tell(key, kept, work.num_total + sequence.num_gone)

    def take_back(self, sequence: Sequence) -> None:
        """Drop what an interrupted decode left behind the tokens that count; and of those what goes with it."""
        work, pictures = sequence.work, sequence.pictures
        num_kept = pictures.removable(work.num_cached)
        is_cut = self._context.remove(work.key, pictures.position(num_kept))
        if not is_cut or (num_kept == 0 < work.num_cached):
            self._reset(sequence)
        elif num_kept < work.num_cached:
            self._tree.cut(work.key, num_kept)
            work.num_cached = num_kept

    def _reset(self, sequence: Sequence) -> None:
        """Its memory cannot be cut back to the tokens that count: it is computed again from the first."""
        key = sequence.work.key
        self._context.remove(key)
        self._tree.remove(key)
        self._tree.add(key, sequence.scope, sequence.tokens, Match())
        sequence.work.num_cached = 0

    def _cut(self, key: int, num_kept: int) -> list[Retained]:
        num_gone = self._tree.length(key) - num_kept
        kept = self._save(key, num_kept)
        self._context.remove(key, num_kept)
        self._tree.cut(key, num_kept)
        self._pins.look()
        log.debug("evicted a part", sequence=key, num_tokens=num_gone, num_parked=self.num_parked)
        return self._tell_after(key, num_kept, self._totals[key], kept) + self._told(kept)

    def _evict(self, key: int, *, saves: bool = True) -> list[Retained]:
        num_total = self._tree.length(key)
        kept = self._save(key, 0) if saves and key in self._tree.parked else []
        if self.behind is not None:
            self.behind.left(key)
        self._context.remove(key)
        self._tree.remove(key)
        self._free.append(key)
        self._pins.left(key)
        log.debug("evicted", sequence=key, num_tokens=num_total, num_parked=self.num_parked)
        events = self._tell_after(key, 0, self._totals.pop(key, num_total), kept)
        request_id = self._request_ids.pop(key)
        if self._newest.get(request_id) == key:
            del self._newest[request_id]
            for older, its_request in self._request_ids.items():
                if its_request == request_id:
                    self._newest[request_id] = older
        return events + self._told(kept)

    def _tell_after(self, key: int, num_tokens: int, num_total: int, kept: list[Kept]) -> list[Retained]:
        """Unless `kept` tells of this request: at 0 it would be forgotten before that."""
        is_told = self._request_ids[key] in {one.request_id for one in kept}
        return [] if is_told else self._tell(key, num_tokens, num_total)

    def _tell(self, key: int, num_tokens: int, num_total: int) -> list[Retained]:
        request_id = self._request_ids[key]
        return [Retained(request_id, num_tokens, num_total)] if self._newest.get(request_id) == key else []


def _num_worth_waiting(older: Sequence, younger: Sequence) -> int:
    """How many tokens both begin with, if the older one computes so many of them that the younger lacks that it is
    faster not to compute them twice; else 0."""
    if older.scope not in (younger.scope, PUBLIC_SCOPE) or older.work.num_cached < younger.work.num_cached:
        return 0
    num_both = num_common(older.tokens[: older.work.num_total], younger.tokens[: younger.work.num_total - 1])
    least = MIN_PREFILL_TOKENS if younger.work.is_held else MIN_WAIT_TOKENS
    return num_both if num_both - younger.work.num_cached >= least else 0


def _hurry(ahead: list[Sequence], waiting: Sequence) -> None:
    """What gives way to all does not while somebody waits for it: he would wait for all others, too."""
    for one in ahead:
        if one.work.gives_way and not waiting.work.gives_way and _num_worth_waiting(one, waiting):
            one.work.gives_way = False
