"""What it takes to read from a tier, as measured: whether it is worth it, and which tier comes first."""

from __future__ import annotations

WEIGHT = 0.25
"""Of the newest measurement."""
RETRY_S = 30.0
"""A tier that was too slow is tried again after so long without a measurement: it may have been busy."""


class Cost:
    """Of one tier. `read_s` says 0 as long as nothing was measured, so that it is tried. Not thread-safe."""

    def __init__(self) -> None:
        self.latency_s: float | None = None
        """Of an answer without a block."""
        self.bytes_per_s: float | None = None
        """Of states, unpacked."""
        self.measured_at = float("-inf")

    @property
    def is_measured(self) -> bool:
        return self.measured_at > float("-inf")

    def missed(self, seconds: float, now: float) -> None:
        """It took so long to learn that nothing is there."""
        self.latency_s, self.measured_at = _mean(self.latency_s, seconds), now

    def read(self, num_bytes: int, seconds: float, now: float) -> None:
        """It took so long to have so many bytes of states at hand."""
        transfer_s = max(seconds - (self.latency_s or 0.0), seconds / 10, 1e-9)
        self.bytes_per_s, self.measured_at = _mean(self.bytes_per_s, num_bytes / transfer_s), now

    def read_s(self, num_bytes: int) -> float:
        """What so many bytes will take."""
        transfer_s = 0.0 if self.bytes_per_s is None else num_bytes / self.bytes_per_s
        return (self.latency_s or 0.0) + transfer_s

    def is_worth(self, num_bytes: int, compute_s: float, now: float) -> bool:
        """Whether they are read sooner than computed; or nobody knows any more."""
        return self.read_s(num_bytes) < compute_s or now - self.measured_at >= RETRY_S


def _mean(before: float | None, new: float) -> float:
    return new if before is None else before + WEIGHT * (new - before)
