"""The typed functions over the scripts of pinned prefixes."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from paddler.store.scripts import LARGE, ScriptCaller


class Pinning(StrEnum):
    """What became of a prefix that was to be pinned."""

    NEW = "new"
    CHANGED = "changed"
    SAME = "same"
    FULL = "full"


class PinnedAs(Struct, frozen=True):
    """`version` is that of the prefix, 0 when the pool has as many as it may."""

    pinning: Pinning
    version: int


class PrefixScripts:
    def __init__(self, caller: ScriptCaller) -> None:
        self._caller = caller

    async def pin_prefix(
        self, base: str, name: str, *, digest: str, record: bytes, content: bytes, max_prefixes: int, now_ms: float = 0
    ) -> PinnedAs:
        """Pin a prefix of the pool whose keys begin with `base`, or another one in place of that of this name; one of
        the same `digest` stays the version that it is. Atomic; repeated it changes nothing, and says `SAME`."""
        arguments = (name, digest, record, content, max_prefixes)
        said, version = await self._caller.call("pin_prefix", base, now_ms, *arguments, is_large=len(content) > LARGE)
        return PinnedAs(Pinning(said.decode()), version)

    async def unpin_prefix(self, base: str, name: str, *, now_ms: float = 0) -> None:
        """Forget a prefix; nothing where there is none of this name."""
        await self._caller.call("unpin_prefix", base, now_ms, name)
