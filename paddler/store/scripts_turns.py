"""The typed functions over the scripts of turns: which agents of a pool may change their model at the same time."""

from __future__ import annotations

from typing import Any

from paddler.store.keys import PoolKeys
from paddler.store.scripts import ScriptCaller
from paddler.store.turn_keys import turns_key


class TurnScripts:
    """Bound to one pool. A holder is a process: the agent id that it has changes with its model.

    What counts are the slots of live agents that are ready, that load, or whose holder has a turn. Agents that wait for
    a model, cannot be served, or leave or were drained on somebody's word are no part of it: nobody waits for them."""

    def __init__(self, client: Any, caller: ScriptCaller, keys: PoolKeys) -> None:
        self.key = turns_key(keys)
        self.redis = client
        self._caller = caller
        self._base = keys.base

    async def turn(
        self, holder: str, *, agent_id: str, slots: int, lease_ms: int, at_once: bool = False, now_ms: float = 0
    ) -> bool:
        """Whether `holder` has a turn now: one it had is prolonged, a new one given while at least half of the pool's
        slots stay ready, or nobody else is changing, or `at_once`. `agent_id`: its present one, or nothing."""
        arguments = (now_ms, holder, agent_id, slots, lease_ms, int(at_once))
        return await self._caller.call("turn", self._base, *arguments) == 1

    async def end_turn(self, holder: str, *, now_ms: float = 0) -> bool:
        """False: it had none."""
        return await self._caller.call("end_turn", self._base, now_ms, holder) == 1
