"""The typed function over the script of desired states."""

from __future__ import annotations

from msgspec import Struct

from paddler.store.scripts import LARGE, ScriptCaller


class Written(Struct, frozen=True):
    """`version` is the one that is there after the call; without `is_ok` it is not the expected one."""

    is_ok: bool
    version: int


class DesiredScripts:
    def __init__(self, caller: ScriptCaller) -> None:
        self._caller = caller

    async def write_desired(
        self,
        base: str,
        state: bytes,
        *,
        expected: int | None,
        author: str,
        token: str,
        max_kept: int,
        now_ms: float = 0,
    ) -> Written:
        """Make `state` the next version of the pool whose keys begin with `base`, if its version is `expected` (0: it
        has none, None: whatever it is). A state that is as it was stays that version.

        Atomic; repeated with the same `token` it changes nothing and gives the same answer."""
        arguments = ("" if expected is None else expected, state, author, token, max_kept)
        is_ok, version = await self._caller.call("write_desired", base, now_ms, *arguments, is_large=len(state) > LARGE)
        return Written(is_ok == 1, version)
