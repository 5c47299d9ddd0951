"""OpenTelemetry's SDK, as processes of Paddler use it."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from paddler import __version__
from paddler.clock import Clock
from paddler.tracing.options import TracingSettings

Attributes = Mapping[str, str | bool | int | float | tuple[str, ...]]

TRACEPARENT = "traceparent"
STOP_S = 0.5
"""`paddler up` gives a process 1.5 s to stop in all."""
EXPORT_S = 5
MAX_DRIFT_S = 0.05

_propagator = TraceContextTextMapPropagator()


class Traces:
    """Spans of one process, sent in the background; a collector that is away costs spans and nothing else.

    Times are those of `Clock.monotonic`. The sampler is the SDK's: all, unless `OTEL_TRACES_SAMPLER` says else, and a
    caller's own decision comes first."""

    def __init__(self, settings: TracingSettings, clock: Clock, instance: str) -> None:
        resource = Resource.create(
            {"service.name": settings.service, "service.version": __version__, "service.instance.id": instance}
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(settings.url, timeout=EXPORT_S)))
        self._tracer = self._provider.get_tracer("paddler", __version__)
        self._clock = clock
        self._offset_s = clock.wall() - clock.monotonic()

    def begin(
        self,
        name: str,
        *,
        parent: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        at: float | None = None,
        attributes: Attributes | None = None,
    ) -> Span:
        """`parent` None: the current context; `at` None: now. Whoever begins one ends it with `end`."""
        return self._tracer.start_span(name, parent, kind, attributes, start_time=self._ns(at))

    def end(
        self, span: Span, *, at: float | None = None, error: str = "", attributes: Attributes | None = None
    ) -> None:
        """`error` is a short word."""
        if attributes:
            span.set_attributes(attributes)
        if error:
            span.set_attribute("error.type", error)
            span.set_status(StatusCode.ERROR)
        span.end(self._ns(at))

    def close(self) -> None:
        """Send what is left, for `STOP_S` at most."""
        # The exporter waits longer for a collector that is away than a process may take to stop.
        sending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(STOP_S)

    def _ns(self, at: float | None) -> int:
        """Of all spans by one offset, so that they are in order; the wall's clock may be set while this runs."""
        now = self._clock.monotonic()
        offset_s = self._clock.wall() - now
        if abs(offset_s - self._offset_s) > MAX_DRIFT_S:
            self._offset_s = offset_s
        return round((self._offset_s + (now if at is None else at)) * 1e9)


def context_of(traceparent: str) -> Context:
    """A parent in another process; one that cannot be read is as none."""
    return _propagator.extract({TRACEPARENT: traceparent}, Context())


def within(span: Span) -> Context:
    """For children of a span."""
    return trace.set_span_in_context(span, Context())


def traceparent_of(span: Span) -> str:
    """What a child in another process is told."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, within(span))
    return carrier.get(TRACEPARENT, "")
