"""How many requests began with which pinned prefix and did not compute it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from paddler.engine import Done, Event, Preempted, Rejected
from paddler.prefixes.store import Prefixes
from paddler.wire.agent import Generate, Payload
from workers.agent.pin_probes import begins_with
from workers.agent.pinned_prefix import Kept


class Hits:
    """Of one agent: `began` and `saw` for each request, `write_once` now and then."""

    def __init__(self, prefixes: Prefixes, pool: str) -> None:
        self._prefixes = prefixes
        self._pool = pool
        self._begun: dict[str, tuple[Kept, ...]] = {}
        self._hits: Counter[str] = Counter()

    def began(self, request_id: str, payload: Payload, kept: Iterable[Kept]) -> None:
        if not isinstance(payload, Generate):
            return
        found = tuple(
            one
            for one in kept
            if one.content is not None
            and one.prefix.tenant in (None, payload.cache_scope)
            and begins_with(payload, one.content)
        )
        if found:
            self._begun[request_id] = found

    def saw(self, event: Event) -> None:
        """A hit is of the longest that it began with."""
        if isinstance(event, Rejected | Preempted):
            self._begun.pop(event.request_id, None)
        elif isinstance(event, Done) and (begun := self._begun.pop(event.request_id, ())):
            num_cached = event.usage.cached_tokens
            hit = [one for one in begun if 0 < one.num_tokens <= num_cached]
            if hit:
                self._hits[max(hit, key=lambda one: one.num_tokens).prefix.name] += 1

    async def write_once(self, names: Collection[str]) -> None:
        """What was counted since the last time, of those that are pinned still. Raises what Redis raises; it is kept
        for the next time then, and may count twice if only the answer was lost."""
        hits = Counter({name: number for name, number in self._hits.items() if name in names})
        self._hits = Counter()
        if not hits:
            return
        try:
            await self._prefixes.count_hits(self._pool, hits)
        except BaseException:
            self._hits += hits
            raise
