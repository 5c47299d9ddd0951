"""The keys of a pool's desired state, as in `keys.py`. `write_desired.lua` repeats the suffixes."""

from __future__ import annotations


class DesiredKeys:
    """The keys below a pool's `base`."""

    def __init__(self, base: str) -> None:
        self.base = base

    def desired(self) -> str:
        """hash · version, state (JSON, `paddler.desired`), updated_ms, author · write_desired writes, balancers and
        agents read · no TTL · a state has at most 256 KiB."""
        return f"{self.base}:desired"

    def history(self) -> str:
        """stream · the versions, each whole, its id `<version>-0`: state, updated_ms, author, token · write_desired
        adds and trims, the management service and `paddler model` read · no TTL · 100 entries."""
        return f"{self.base}:desired:history"

    def changed(self) -> str:
        """pub/sub channel · write_desired publishes the new version, balancers and agents listen."""
        return f"{self.base}:desired:changed"

    def permanent(self) -> frozenset[str]:
        """The keys that may exist without a TTL."""
        return frozenset({self.desired(), self.history()})
