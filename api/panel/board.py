"""Things by key as they are now, and what has changed since any earlier time: no I/O.

However slowly somebody reads, what it is told next is the difference to what it was told last, never a backlog.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

MAX_GONE = 10_000
"""So many keys that have gone are remembered; who is further behind gets everything anew."""

_encode = msgspec.json.Encoder().encode


class Board:
    """Values are JSON."""

    def __init__(self) -> None:
        self.version = 0
        self._floor = 0
        """Who has seen less than this version is told everything."""
        self._held: dict[str, tuple[int, bytes]] = {}
        self._gone: dict[str, int] = {}
        self._made: dict[int, bytes | None] = {}

    def update(self, things: Mapping[str, bytes]) -> bool:
        """All there are now. Has anything changed?"""
        changed = {key: value for key, value in things.items() if key not in self._held or self._held[key][1] != value}
        gone = [key for key in self._held if key not in things]
        if not changed and not gone and self.version:
            return False
        self.version += 1
        self._made.clear()
        for key, value in changed.items():
            self._held[key] = (self.version, value)
            self._gone.pop(key, None)
        for key in gone:
            del self._held[key]
            self._gone[key] = self.version
        if len(self._gone) > MAX_GONE:
            self._floor = self.version
            self._gone.clear()
        return True

    def since(self, version: int) -> bytes | None:
        """What is other than it was in a version, 0 for all: `{"reset":..., "set":{...}, "gone":[...]}`, None for
        nothing. Made once for all who ask for the same."""
        if version not in self._made:
            self._made[version] = self._make(version)
        return self._made[version]

    def _make(self, version: int) -> bytes | None:
        if version == self.version:
            return None
        is_reset = version == 0 or version < self._floor or version > self.version
        held = [(key, value) for key, (since, value) in self._held.items() if is_reset or since > version]
        parts = [b'"reset":true'] if is_reset else []
        if held:
            parts.append(b'"set":{%b}' % b",".join(b"%b:%b" % (_encode(key), value) for key, value in held))
        if not is_reset and (gone := [key for key, since in self._gone.items() if since > version]):
            parts.append(b'"gone":' + _encode(gone))
        return b"{%b}" % b",".join(parts)
