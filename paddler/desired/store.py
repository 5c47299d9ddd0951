"""Desired states in Redis: read, written under compare-and-set, followed, looked back at."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from paddler.clock import Clock, SystemClock
from paddler.desired.aliases import check_aliases
from paddler.desired.document import aliases_in, decode_state, encode_state
from paddler.desired.schema import BalancerDesiredState, Versioned
from paddler.errors import StateNotFound, VersionConflict
from paddler.store.client import Store
from paddler.store.desired_keys import DesiredKeys
from paddler.store.listening import follow

MAX_KEPT = 100
"""Versions of a pool's history."""
MAX_AUTHOR = 200
_FIELDS = ("version", "state", "updated_ms", "author")


class DesiredStates:
    """Of every pool. Each call raises what Redis raises, and `msgspec.MsgspecError` for a state that this version
    cannot read."""

    def __init__(self, store: Store, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()

    async def read(self, pool: str) -> Versioned:
        """Version 0 and the defaults while nobody has set one."""
        return _versioned(await self._store.redis.hmget(self._keys(pool).desired(), *_FIELDS))

    async def aliases(self, pools: Sequence[str]) -> dict[str, tuple[str, ...]]:
        pipe = self._store.redis.pipeline(transaction=False)
        for pool in pools:
            pipe.hget(self._keys(pool).desired(), "state")
        found: list[bytes | None] = await pipe.execute() if pools else []
        return {pool: aliases_in(state) if state else () for pool, state in zip(pools, found, strict=True)}

    async def version(self, pool: str) -> int:
        return int(await self._store.redis.hget(self._keys(pool).desired(), "version") or 0)

    async def write(self, pool: str, state: BalancerDesiredState, *, expected: int | None, author: str) -> int:
        """Make `state`, which has been checked, the pool's next version if its version is `expected`; None: whatever it
        is, 0: nobody has set one. A state that is as it was stays that version. Returns the version.

        Raises `VersionConflict`, and `Conflict` for an alias that stands for another pool."""
        await check_aliases(self._store, pool, state, self.aliases)
        # Listed before it has agents: its requests wait for them.
        await self._store.add_pool(pool)
        written = await self._store.desired_scripts.write_desired(
            self._store.pool(pool).keys.base,
            encode_state(state),
            expected=expected,
            author=author[:MAX_AUTHOR],
            token=secrets.token_hex(8),
            max_kept=MAX_KEPT,
        )
        if not written.is_ok:
            raise VersionConflict(
                f"the desired state has version {written.version}, not {expected}: read it, look at what has changed, "
                "and change that.",
                param="If-Match",
            )
        return written.version

    async def history(self, pool: str) -> list[Versioned]:
        """The newest first."""
        entries: list[tuple[bytes, dict[bytes, bytes]]] = await self._store.redis.xrevrange(self._keys(pool).history())
        return [_of_history(entry, fields) for entry, fields in entries]

    async def at(self, pool: str, version: int) -> Versioned:
        """Raises `StateNotFound`."""
        entries: list[Any] = []
        if 0 < version < 2**53:
            entry = f"{version}-0"
            entries = await self._store.redis.xrange(self._keys(pool).history(), entry, entry)
        if not entries:
            raise StateNotFound(
                f"pool {pool} has no version {version} of its desired state (any more): its history has the last "
                f"{MAX_KEPT}.",
                param="version",
            )
        return _of_history(*entries[0])

    async def roll_back(self, pool: str, version: int, *, expected: int | None, author: str) -> int:
        """Write the state of an earlier version again, as a new one. Raises `StateNotFound` and what `write` raises."""
        found = await self.at(pool, version)
        return await self.write(pool, found.state, expected=expected, author=author)

    def changes(self, pool: str) -> AsyncGenerator[Versioned, None]:
        """The state as it is, then whenever it has changed; see `store.listening.follow`."""
        return follow(
            self._store, self._keys(pool).changed(), lambda: self.read(pool), self._clock, what="the desired state"
        )

    def _keys(self, pool: str) -> DesiredKeys:
        return DesiredKeys(self._store.pool(pool).keys.base)


def _versioned(row: list[Any]) -> Versioned:
    version, state, updated_ms, author = row
    if version is None or state is None:
        return Versioned(version=0)
    return Versioned(
        version=int(version),
        state=decode_state(state),
        updated_ms=int(updated_ms or 0),
        author=(author or b"").decode(errors="replace"),
    )


def _of_history(entry: bytes, fields: dict[bytes, bytes]) -> Versioned:
    return _versioned([entry.split(b"-")[0], fields.get(b"state"), fields.get(b"updated_ms"), fields.get(b"author")])
