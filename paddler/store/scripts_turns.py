"""The typed functions over the scripts of turns: which agents of a pool may change their model at the same time."""

from __future__ import annotations

from typing import Any

from paddler.store.keys import PoolKeys
from paddler.store.scripts import ScriptCaller
from paddler.store.turn_keys import losses_key, turns_key

FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 60_000, 900_000
"""Before anybody else changes to a version over which a holder was lost: long enough to look, or for its supervisor to
start it again."""


class TurnScripts:
    """Bound to one pool. A holder is a process: the agent id that it has changes with its model.

    What counts are the slots of live agents that are ready, that load, or whose holder has a turn. Agents that wait for
    a model, cannot be served, or leave or were drained on somebody's word are no part of it: nobody waits for them."""

    def __init__(self, client: Any, caller: ScriptCaller, keys: PoolKeys) -> None:
        self.key = turns_key(keys)
        self.redis = client
        self._losses_key = losses_key(keys)
        self._caller = caller
        self._base = keys.base

    async def turn(
        self,
        holder: str,
        *,
        agent_id: str,
        slots: int,
        lease_ms: int,
        at_once: bool = False,
        version: int = 0,
        now_ms: float = 0,
    ) -> bool:
        """Whether `holder` has a turn now: one it had is prolonged, a new one given while at least half of the pool's
        slots stay ready, or nobody else is changing, or `at_once`. None is given for a `version` of the desired state
        over which a holder was lost in its turn, before a pause is over. `agent_id`: its present one, or nothing."""
        pauses = (FIRST_PAUSE_MS, LONGEST_PAUSE_MS)
        arguments = (now_ms, holder, agent_id, slots, lease_ms, int(at_once), version, *pauses)
        return await self._caller.call("turn", self._base, *arguments) == 1

    async def num_lost(self, version: int) -> int:
        """How many holders were lost, one after the other, while they changed to this version of the state."""
        told, count = await self.redis.hmget(self._losses_key, "version", "count")
        return int(count) if told is not None and int(told) == version else 0

    async def end_turn(self, holder: str, *, now_ms: float = 0) -> bool:
        """False: it had none."""
        return await self._caller.call("end_turn", self._base, now_ms, holder) == 1
