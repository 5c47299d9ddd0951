"""What of an engine with a KV cache tells of the tiers behind it, and uses them for others."""

from __future__ import annotations

from collections.abc import Callable

from paddler.clock import Clock
from paddler.engine import Event, Pinned, Saved
from paddler.engine_settings import EngineSettings
from paddler.tier_stats import TierStats
from workers.agent.behind import Behind
from workers.agent.context import Context
from workers.agent.kv_cache import KvCache
from workers.agent.llama import Model
from workers.agent.named_states import Named
from workers.agent.prefix_cache import PrefixCache
from workers.agent.scheduler import Scheduler
from workers.agent.tiers.contract import Keeper

OpenKeeper = Callable[[Model, EngineSettings, int], Keeper]
"""Of a model that is loaded, with these settings, in a context of so many tokens. None: states go no further than host
memory, if there."""
KeeperFor = Callable[[EngineSettings], OpenKeeper]
"""Called before a model is loaded with these settings, to see which files that takes."""


class WithTiers:
    """`_keeper` None: there is nothing behind host memory."""

    _kv: KvCache
    _keeper: Keeper | None

    @property
    def saved(self) -> Saved | None:
        return None if self._kv.behind is None else self._kv.behind.saved

    @property
    def tiers(self) -> tuple[TierStats, ...]:
        return () if self._kv.behind is None else self._kv.behind.tiers

    @property
    def pinned(self) -> tuple[Pinned, ...] | None:
        return self._kv.pinned

    def unpin(self, request_id: str) -> list[Event]:
        return list(self._kv.unpin(request_id))

    def state_of(self, name: bytes) -> Named | None:
        """The block of host memory that the fleet calls so. From any thread."""
        return None if self._kv.behind is None else self._kv.behind.state_of(name)

    @property
    def is_saving(self) -> bool:
        return self._kv.behind is not None and self._kv.behind.is_saving

    def save_running(self) -> int:
        self._kv.keep_all()
        return 0 if self._kv.behind is None else self._kv.behind.num_refused

    def flush_states(self, timeout_s: float) -> bool:
        return self._keeper is None or self._keeper.flush(timeout_s)

    def close_tiers(self) -> None:
        if self._keeper is not None:
            self._keeper.close()


def behind_of(
    context: Context, clock: Clock, scheduler: Scheduler, keeper: Keeper | None, max_bytes: int
) -> Callable[[PrefixCache, int], Behind] | None:
    """What a `KvCache` opens; None: what leaves it is forgotten."""
    if max_bytes == 0:
        return None

    def open_behind(tree: PrefixCache, scratch: int) -> Behind:
        return Behind(context, tree, clock, scheduler, scratch=scratch, max_bytes=max_bytes, keeper=keeper)

    return open_behind
