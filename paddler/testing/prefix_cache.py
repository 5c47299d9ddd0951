"""The KV cache of the scripted engine: sequences of words that stay parked when their job has ended."""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from paddler.engine import Retained

MAX_PARKED = 64


class Parked(Struct, frozen=True):
    scope: str
    words: list[str]


class PrefixCache:
    """At most `max_tokens` tokens in at most `MAX_PARKED` sequences; the least recently used goes first.

    Sequences of different scopes never match, whatever their words."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._parked: OrderedDict[str, Parked] = OrderedDict()
        """By request id, the least recently used first."""
        self._num_tokens = 0

    def match(self, scope: str, words: list[str]) -> int:
        """How many of these words the best parked sequence begins with; that one counts as used."""
        best, most = "", 0
        for request_id, parked in self._parked.items():
            if parked.scope == scope and (num := _common(parked.words, words)) > most:
                best, most = request_id, num
        if best:
            self._parked.move_to_end(best)
        return most

    def park(self, request_id: str, scope: str, words: list[str]) -> list[Retained]:
        """Keep an ended job's sequence, and say what is held now and what no longer is.

        Sequences that this one begins with or repeats give way to it."""
        self._forget(request_id)
        covered = [
            other
            for other, parked in self._parked.items()
            if parked.scope == scope and _common(parked.words, words) == len(parked.words)
        ]
        events = [Retained(request_id, len(words), len(words))]
        self._parked[request_id] = Parked(scope, words)
        self._num_tokens += len(words)
        events += [Retained(other, 0, self._forget(other)) for other in covered]
        while self._num_tokens > self._max_tokens or len(self._parked) > MAX_PARKED:
            oldest = next(iter(self._parked))
            events.append(Retained(oldest, 0, self._forget(oldest)))
        return events

    def clear(self) -> None:
        self._parked.clear()
        self._num_tokens = 0

    def _forget(self, request_id: str) -> int:
        parked = self._parked.pop(request_id, None)
        if parked is None:
            return 0
        self._num_tokens -= len(parked.words)
        return len(parked.words)


def _common(one: list[str], other: list[str]) -> int:
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return min(len(one), len(other))
