"""How fast blocks come from others: what routing compares with computing them."""

from __future__ import annotations

from threading import Lock

from workers.agent.saved_states import BLOCK

WEIGHT = 0.2
"""Of the newest reading; five of them are most of the measure."""


class RestoreSpeed:
    """Exponentially weighted, from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._block_s = 0.0

    def note(self, num_blocks: int, seconds: float) -> None:
        if num_blocks <= 0 or seconds <= 0:
            return
        with self._lock:
            block_s = seconds / num_blocks
            self._block_s = block_s if not self._block_s else self._block_s * (1 - WEIGHT) + block_s * WEIGHT

    @property
    def tokens_per_s(self) -> float:
        """0 as long as nothing was read."""
        return BLOCK / self._block_s if self._block_s else 0.0
