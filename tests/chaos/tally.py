"""What a chaos run counts, as the producers send it and the report has it."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct, field

MAX_TOLD = 20


class Tally(Struct):
    """`counts` by outcome and event; `violations` are what must not be, at most `MAX_TOLD` of them told."""

    counts: dict[str, int] = field(default_factory=dict[str, int])
    num_violations: int = 0
    violations: list[str] = field(default_factory=list[str])
    is_all_sent: bool = False

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def violate(self, what: str) -> None:
        self.num_violations += 1
        if len(self.violations) < MAX_TOLD:
            self.violations.append(what)

    def add(self, other: Tally) -> None:
        self.counts = dict(Counter(self.counts) + Counter(other.counts))
        self.num_violations += other.num_violations
        self.violations = [*self.violations, *other.violations][:MAX_TOLD]


class Order(Struct, kw_only=True):
    """What one producer is to do. `ports` are the balancers'; `poisons_s` how many poison requests a second it adds;
    with `may_forget` Redis loses what it acknowledged, and a request may then fail with a retryable error."""

    name: str
    seed: int
    requests: int
    streams: int
    mean_tokens: int
    poisons_s: float
    ports: list[int]
    redis_url: str
    prefix: str
    may_forget: bool
    patience_s: float


class Report(Struct, kw_only=True):
    mode: str
    seed: int
    seconds: float
    outcomes: dict[str, int]
    faults: dict[str, int]
    counters: dict[str, int]
    num_violations: int
    violations: list[str]
