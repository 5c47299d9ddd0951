"""How fast this agent is, measured from what it did: pure, time is an argument.

The queue needs two numbers: `prefill`, to know what a cached prefix saves (step 4), and `rate`, to estimate how long a
buffer takes to drain (admission). Both are exponentially weighted over recent requests.
"""

from __future__ import annotations

from paddler.wire.balancer import Usage

WEIGHT = 0.2
MIN_TOKENS = 16


class Speed:
    """Tokens per second; None until something was measured."""

    def __init__(self) -> None:
        self.prefill: float | None = None
        self.rate: float | None = None
        self._started: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._tokens = 0
        self._busy_since: float | None = None

    def started(self, request_id: str, now: float) -> None:
        self._started[request_id] = now
        if self._busy_since is None:
            self._busy_since = now

    def progressed(self, request_id: str, now: float) -> None:
        if request_id in self._started:
            self._first.setdefault(request_id, now)

    def ended(self, request_id: str, usage: Usage, now: float) -> None:
        """A job is over: what it computed counts, and its time to the first token tells the prefill speed."""
        started = self._started.pop(request_id, None)
        first = self._first.pop(request_id, None)
        computed = usage.prompt_tokens - usage.cached_tokens
        if started is not None and first is not None and computed >= MIN_TOKENS and first > started:
            self.prefill = _blend(self.prefill, computed / (first - started))
        self._tokens += computed + usage.completion_tokens
        if self._busy_since is not None and (not self._started or self._tokens >= 1000) and now > self._busy_since:
            if self._tokens >= MIN_TOKENS:
                self.rate = _blend(self.rate, self._tokens / (now - self._busy_since))
            self._tokens = 0
            self._busy_since = now if self._started else None

    def forgot(self, request_id: str) -> None:
        """A job that tells nothing: it was refused, or goes on elsewhere."""
        self._started.pop(request_id, None)
        self._first.pop(request_id, None)
        if not self._started:
            self._busy_since, self._tokens = None, 0

    def snapshot(self) -> dict[str, float]:
        found = {"prefill": self.prefill, "rate": self.rate}
        return {name: round(value, 3) for name, value in found.items() if value is not None}


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + WEIGHT * (new - old)
