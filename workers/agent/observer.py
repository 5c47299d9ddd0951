"""What the agent learns from the engine's events beside the streams: its speed, and what its KV cache holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from paddler.clock import Clock
from paddler.engine import Done, Event, Preempted, Progress, Rejected, Retained
from paddler.jobs.reply import cache_word
from paddler.store.pipe import Value
from paddler.store.tally import Tally
from paddler.wire.agent import Generate, Payload
from paddler.wire.balancer import FinishReason, Usage
from workers.agent.holding import Holding
from workers.agent.speed import Speed

if TYPE_CHECKING:  # it imports OpenTelemetry, an extra
    from workers.agent.tracing import EngineSpans


class Observer:
    """`began` for each job, then `saw` for each event of the engine."""

    def __init__(
        self, clock: Clock, holding: Holding, pool: str, tally: Tally, spans: EngineSpans | None = None
    ) -> None:
        """`spans` None: nothing is traced."""
        self._spans = spans
        self._clock = clock
        self._speed = Speed()
        self._holding = holding
        self._pool = pool
        self._tally = tally
        self._texts: dict[str, list[str]] = {}
        self._num_tokens: dict[str, int] = {}
        self._num_prompt = self._num_cached = 0

    def began(self, request_id: str, payload: Payload, text: str, num_tokens: int = 0) -> None:
        """`text` and `num_tokens` are what earlier attempts have emitted. Of an `Embed` nothing is held that another
        could begin with."""
        self._speed.started(request_id, self._clock.monotonic())
        if self._spans is not None:
            self._spans.began(request_id, payload, is_resumed=bool(text))
        if isinstance(payload, Generate):
            self._num_tokens[request_id] = num_tokens
            self._texts[request_id] = [text]
            self._holding.residency.began(request_id, payload)

    def saw_all(self, events: list[Event]) -> None:
        for event in events:
            self.saw(event)

    def saw(self, event: Event) -> None:
        if self._spans is not None:
            self._spans.saw(event)
        match event:
            case Progress(request_id, ids, text):
                if request_id in self._num_tokens:
                    self._num_tokens[request_id] += len(ids)
                self._texts.get(request_id, []).append(text)
                self._speed.progressed(request_id, self._clock.monotonic())
            case Done(request_id, reason, usage, text):
                self._num_tokens.pop(request_id, None)
                self._count_tokens(usage, is_text=request_id in self._texts)
                # An embedding is not in the texts: it looks for nothing in the cache.
                if reason is not FinishReason.CANCELLED and usage.prompt_tokens and request_id in self._texts:
                    self._count_cache(usage)
                whole = "".join([*self._texts.pop(request_id, []), text])
                self._speed.ended(request_id, usage, self._clock.monotonic())
                self._holding.residency.ended(request_id, whole)
            case Retained(request_id, num_tokens, num_total):
                self._holding.residency.retained(request_id, num_tokens, num_total)
                self._holding.touch()
            case Rejected(request_id=request_id) | Preempted(request_id=request_id):
                self._texts.pop(request_id, None)
                self._num_tokens.pop(request_id, None)
                self._speed.forgot(request_id)
                self._holding.residency.dropped(request_id)
            case _:
                pass

    def _count_tokens(self, usage: Usage, *, is_text: bool) -> None:
        if not usage.prompt_tokens:
            return
        if not is_text:
            self._tally.count(self._pool, "embedded_tokens", usage.prompt_tokens)
        else:
            self._tally.count(self._pool, "prompt_tokens", usage.prompt_tokens)
            self._tally.count(self._pool, "cached_tokens", usage.cached_tokens)
            self._tally.count(self._pool, "output_tokens", usage.completion_tokens)

    def _count_cache(self, usage: Usage) -> None:
        self._num_prompt += usage.prompt_tokens
        self._num_cached += usage.cached_tokens
        match cache_word(usage.prompt_tokens, usage.cached_tokens):
            case "hit":
                self._tally.count(self._pool, "cache_hit")
            case "partial":
                self._tally.count(self._pool, "cache_partial")
            case _:
                self._tally.count(self._pool, "cache_miss")

    def snapshot(self) -> Mapping[str, Value]:
        """For the agent's hash: measured speeds, what the KV cache holds and has saved since the start, and how many
        tokens each running request has (JSON)."""
        residency = self._holding.residency
        return {
            "prompt_tokens": self._num_prompt,
            "cached_tokens": self._num_cached,
            "running_tokens": msgspec.json.encode(self._num_tokens),
            **self._speed.snapshot(),
            "held_sequences": residency.num_held,
            "held_tokens": residency.num_tokens,
        }
