"""What this agent's KV cache holds, in the hashes of prefix chains: the `holders` index tells routers (step 4).

The engine says how many tokens of a sequence it holds; the chain of that sequence is of bytes. A sequence that is held
whole holds its whole chain; of one held in part, the entries that end within the same share of its bytes, less one
entry for the ratio's error. A hint that is wrong costs a detour, never a wrong answer: the engine matches tokens.
"""

from __future__ import annotations

from collections import Counter

from msgspec import Struct, structs

from paddler.jobs.chains import hash_text
from paddler.routing.prefix import PrefixChain, prefix_chain, without_images
from paddler.wire.agent import Generate, Message


class Changes(Struct, frozen=True):
    added: tuple[str, ...]
    removed: tuple[str, ...]


class Residency:
    """Reference counts of hashes over sequences; `changes` since the last call is what to publish.

    A payload is kept while its job runs, and after that while the engine holds its sequence: what was never held is
    forgotten at the end of its job, because no `Retained` will tell of it any more."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._payloads: dict[str, Generate] = {}
        self._held: dict[str, tuple[str, ...]] = {}
        self._num_tokens: dict[str, int] = {}
        self._counts: Counter[str] = Counter()
        self._published: set[str] = set()

    @property
    def num_held(self) -> int:
        """Sequences in the KV cache, of running and of ended jobs."""
        return len(self._held)

    @property
    def num_tokens(self) -> int:
        """Their tokens; those that several of them begin with count for each."""
        return sum(self._num_tokens.values())

    def began(self, request_id: str, payload: Generate) -> None:
        self._payloads[request_id] = without_images(payload)

    def ended(self, request_id: str, text: str) -> None:
        """The answer belongs to the conversation now: the next turn will begin with it."""
        payload = self._payloads.get(request_id)
        if payload is None:
            return
        if request_id not in self._held:
            del self._payloads[request_id]
            return
        if payload.messages is not None:
            answered = (*payload.messages, Message("assistant", payload.beginning + text))
            self._payloads[request_id] = structs.replace(payload, messages=answered, beginning="")
        elif payload.prompt is not None and payload.suffix is None:
            self._payloads[request_id] = structs.replace(payload, prompt=payload.prompt + text)

    def retained(self, request_id: str, num_tokens: int, num_total: int) -> None:
        payload = self._payloads.get(request_id)
        if payload is None:
            return
        hashes = _covered(self._chain(payload), num_tokens, num_total)
        self._counts.update(hashes)
        for old in self._held.pop(request_id, ()):
            self._counts[old] -= 1
            if self._counts[old] <= 0:
                del self._counts[old]
        if num_tokens > 0:
            self._held[request_id] = hashes
            self._num_tokens[request_id] = num_tokens
        else:
            del self._payloads[request_id]
            self._num_tokens.pop(request_id, None)

    def dropped(self, request_id: str) -> None:
        """The job was never held."""
        if request_id not in self._held:
            self._payloads.pop(request_id, None)

    def changes(self) -> Changes:
        now = set(self._counts)
        changes = Changes(tuple(sorted(now - self._published)), tuple(sorted(self._published - now)))
        self._published = now
        return changes

    def all(self) -> tuple[str, ...]:
        """Everything held, to publish again."""
        self._published = set(self._counts)
        return tuple(sorted(self._published))

    def _chain(self, payload: Generate) -> PrefixChain:
        return prefix_chain(payload, pool=self._pool, tenant=payload.cache_scope or None)


def _covered(chain: PrefixChain, num_tokens: int, num_total: int) -> tuple[str, ...]:
    if num_tokens <= 0:
        return ()
    if num_tokens >= num_total:
        return tuple(map(hash_text, chain.hashes))
    limit = chain.num_bytes * num_tokens // num_total
    within = [hash_text(value) for value, end in zip(chain.hashes, chain.ends, strict=True) if end <= limit]
    return tuple(within[:-1])
