"""Spans of a balancer: one of each HTTP request, one of each request of the queue in it, and one of its waiting.

POST /v1/chat/completions            server, here
  chat default                       from submission to end, here
    queue                            until an agent has begun it
    chat SmolLM2-135M-Instruct       consumer, of the agent; then prefill and decode
"""

from __future__ import annotations

from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry import context
from opentelemetry.trace import Span, SpanKind

from api.observing import NO_ROUTE, QUIET_ROUTES
from paddler.jobs.measuring import CLIENT_GONE, Measured, Meter
from paddler.tracing.traces import TRACEPARENT, Attributes, Traces, context_of, traceparent_of, within

FINISHED = ("stop", "length", "background", "duplicate")


class TraceMeter(Meter):
    """A span for each request of the queue, whose agent's spans become its children."""

    def __init__(self, traces: Traces) -> None:
        self._traces = traces
        self._spans: dict[int, Span] = {}

    def began(self, measured: Measured) -> None:
        span = self._traces.begin(
            f"{measured.operation} {measured.pool}",
            at=measured.submitted_at,
            attributes={
                "gen_ai.operation.name": measured.operation,
                "gen_ai.provider.name": "paddler",
                "gen_ai.request.model": measured.pool,
                "paddler.pool": measured.pool,
                "paddler.class": measured.request_class,
                "paddler.tenant": measured.tenant,
            },
        )
        measured.traceparent = traceparent_of(span)
        self._spans[id(measured)] = span

    def ended(self, measured: Measured) -> None:
        span = self._spans.pop(id(measured))
        if not span.is_recording():
            span.end()
            return
        waited_until = measured.opened_at or measured.ended_at
        queue = self._traces.begin("queue", parent=within(span), at=measured.submitted_at)
        self._traces.end(queue, at=waited_until)
        is_error = measured.outcome not in FINISHED
        self._traces.end(span, error=measured.outcome if is_error else "", attributes=_attributes(measured))


def _attributes(measured: Measured) -> Attributes:
    told: dict[str, str | int | float | tuple[str, ...]] = {}
    if measured.request_id:
        told["gen_ai.response.id"] = measured.request_id
    if measured.prompt_tokens:
        told["gen_ai.usage.input_tokens"] = measured.prompt_tokens
        told["gen_ai.usage.cache_read.input_tokens"] = measured.cached_tokens
    if measured.output_tokens:
        told["gen_ai.usage.output_tokens"] = measured.output_tokens
    if measured.first_token_at is not None:
        told["gen_ai.response.time_to_first_chunk"] = measured.first_token_at - measured.submitted_at
    if measured.outcome in ("stop", "length"):
        told["gen_ai.response.finish_reasons"] = (measured.outcome,)
    if measured.agent_name is not None:
        told["paddler.agent"] = measured.agent_name
    if measured.attempt is not None:
        told["paddler.attempt"] = measured.attempt
    return told


class Traced:
    """An ASGI application around all of a service. A `traceparent` of the client is gone on with; what a WebSocket asks
    becomes its children, as a connection is no span."""

    def __init__(self, app: ASGIApp, service: str, traces: Traces) -> None:
        self._app = app
        self._service = service
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parent = context_of(_traceparent(scope))
        asked: Any = scope  # its type says that no kind of scope is "http"
        if asked["type"] != "http":
            await self._run(parent, scope, receive, send)
            return
        if asked["path"] in QUIET_ROUTES:
            await self._app(scope, receive, send)
            return
        method: str = asked["method"]
        attributes = {
            "http.request.method": method,
            "url.scheme": str(asked["scheme"]),
            "paddler.service": self._service,
        }
        span = self._traces.begin(method, parent=parent, kind=SpanKind.SERVER, attributes=attributes)
        statuses: list[int] = []

        async def send_noted(event: Message) -> None:
            if event["type"] == "http.response.start":
                statuses.append(event["status"])
            await send(event)

        try:
            await self._run(within(span), scope, receive, send_noted)
        finally:
            route: str = asked.get("path_template") or NO_ROUTE
            span.update_name(f"{method} {route}" if route != NO_ROUTE else method)
            told: dict[str, str | int] = {"http.route": route}
            error = "" if statuses else CLIENT_GONE
            for status in statuses:
                told["http.response.status_code"] = status
                error = str(status) if status >= 500 else ""
            self._traces.end(span, error=error, attributes=told)

    async def _run(self, parent: context.Context, scope: Scope, receive: Receive, send: Send) -> None:
        token = context.attach(parent)
        try:
            await self._app(scope, receive, send)
        finally:
            context.detach(token)


def _traceparent(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == TRACEPARENT.encode():
            return value.decode("latin-1")
    return ""
