"""Spans of an agent: one of each request that it works on, below that of the balancer, and in it prefill and decode.

    chat SmolLM2-135M-Instruct
      prefill
      decode

They are made when the work has ended, from the times at which the engine told of it: nothing is done for a token.
"""

from __future__ import annotations

from msgspec import Struct
from opentelemetry.trace import SpanKind

from paddler.clock import Clock
from paddler.engine import Done, Event, Preempted, Rejected, Retained
from paddler.tracing.traces import Attributes, Traces, context_of, within
from paddler.wire.agent import Generate, Payload, Rerank
from paddler.wire.balancer import FinishReason, Usage


class _Work(Struct):
    traceparent: str
    operation: str
    attributes: Attributes
    began_at: float
    prefilled_at: float | None = None


class EngineSpans:
    """`began` for each request that is traced, then `saw` for each event of the engine. `model` is what it serves."""

    def __init__(self, traces: Traces, clock: Clock, name: str) -> None:
        self.model = ""
        self._traces = traces
        self._clock = clock
        self._name = name
        self._works: dict[str, _Work] = {}

    def began(self, request_id: str, payload: Payload, *, is_resumed: bool) -> None:
        traceparent = getattr(payload, "traceparent", "")
        if not traceparent:
            return
        self._works[request_id] = _Work(
            traceparent,
            _operation(payload),
            {**_asked(payload), "gen_ai.response.id": request_id, "paddler.resumed": is_resumed},
            self._clock.monotonic(),
        )

    def saw(self, event: Event) -> None:
        if (work := self._works.get(event.request_id)) is None:
            return
        match event:
            case Retained(num_cached=int()):
                work.prefilled_at = work.prefilled_at or self._clock.monotonic()
            case Done(request_id, reason, usage):
                self._end(request_id, usage, reason, "cancelled" if reason is FinishReason.CANCELLED else "")
            case Rejected(request_id=request_id, code=code, usage=usage):
                self._end(request_id, usage, None, code)
            case Preempted(request_id):
                self._end(request_id, Usage(), None, "preempted")
            case _:
                pass

    def close(self) -> None:
        """What still runs goes on elsewhere."""
        for request_id in list(self._works):
            self._end(request_id, Usage(), None, "handed_over")
        self._traces.close()

    def _end(self, request_id: str, usage: Usage, reason: FinishReason | None, error: str) -> None:
        work = self._works.pop(request_id)
        now = self._clock.monotonic()
        attributes: Attributes = {
            "gen_ai.operation.name": work.operation,
            "gen_ai.provider.name": "paddler",
            "gen_ai.response.model": self.model,
            "paddler.agent": self._name,
            **work.attributes,
        }
        span = self._traces.begin(
            f"{work.operation} {self.model}",
            parent=context_of(work.traceparent),
            kind=SpanKind.CONSUMER,
            at=work.began_at,
            attributes=attributes,
        )
        if work.prefilled_at is not None:
            for name, begin, end in (("prefill", work.began_at, work.prefilled_at), ("decode", work.prefilled_at, now)):
                self._traces.end(self._traces.begin(name, parent=within(span), at=begin), at=end)
        told: dict[str, str | int | tuple[str, ...]] = {}
        if usage.prompt_tokens:
            told["gen_ai.usage.input_tokens"] = usage.prompt_tokens
            told["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
            told["gen_ai.usage.output_tokens"] = usage.completion_tokens
        if reason is not None and not error:
            told["gen_ai.response.finish_reasons"] = (str(reason),)
        self._traces.end(span, at=now, error=error, attributes=told)


def _operation(payload: Payload) -> str:
    if isinstance(payload, Generate):
        return "text_completion" if payload.messages is None else "chat"
    return "rerank" if isinstance(payload, Rerank) else "embeddings"


def _asked(payload: Payload) -> Attributes:
    """Numbers alone: stop strings and the like are a client's words."""
    if not isinstance(payload, Generate):
        return {}
    sampling = payload.sampling
    asked: dict[str, int | float] = {
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k,
        "gen_ai.request.frequency_penalty": sampling.penalty_frequency,
        "gen_ai.request.presence_penalty": sampling.penalty_presence,
        "gen_ai.request.seed": sampling.seed,
    }
    if payload.max_tokens is not None:
        asked["gen_ai.request.max_tokens"] = payload.max_tokens
    return asked
