"""The typed function over the script of leases that belong to no pool."""

from __future__ import annotations

from paddler.store.scripts import ScriptCaller


class LeaseScripts:
    def __init__(self, caller: ScriptCaller) -> None:
        self._caller = caller

    async def lead(self, key: str, who: str, *, lease_ms: int) -> bool:
        """Take the lease at `key` if nobody has it, or prolong one's own; 0 gives it up. Is it theirs now?"""
        return await self._caller.call("lead", key, 0, who, lease_ms) == 1
