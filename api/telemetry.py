"""What a balancer tells of itself and of the fleet, put together: metrics, StatsD, the access log, traces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from litestar import Litestar
from msgspec import Struct

from api.observing import AccessMeter, Observed
from paddler.clock import Clock
from paddler.ids import new_process_id
from paddler.jobs.measuring import Meter
from paddler.metrics.options import statsd_of, statsd_options
from paddler.metrics.requests import RequestMetrics
from paddler.metrics.statsd import Statsd, StatsdSettings
from paddler.settings import Address
from paddler.store.client import Store
from paddler.tracing.options import TracingSettings, otlp_option, tracing_of

if TYPE_CHECKING:  # it imports OpenTelemetry, an extra, as `api.tracing` does
    from paddler.tracing.traces import Traces

_F = TypeVar("_F", bound=Callable[..., Any])


class TelemetrySettings(Struct, frozen=True, kw_only=True):
    """`statsd` None: nothing is reported there; `tracing` None: nothing is traced."""

    statsd: StatsdSettings | None = None
    tracing: TracingSettings | None = None


def telemetry_options(function: _F) -> _F:
    """Adds what `telemetry_settings` takes, but for the environment."""
    return statsd_options(otlp_option(function))


def telemetry_settings(
    environment: Mapping[str, str],
    *,
    statsd_addr: Address | None,
    statsd_prefix: str,
    statsd_reporting_interval: int,
    otlp_endpoint: str | None,
) -> TelemetrySettings:
    return TelemetrySettings(
        statsd=statsd_of(statsd_addr, statsd_prefix, statsd_reporting_interval),
        tracing=tracing_of(otlp_endpoint, environment, "balancer"),
    )


class Telemetry:
    """`meters` are for the gateway, `observe` is for each service; `start` and `close` around serving."""

    def __init__(self, settings: TelemetrySettings, store: Store, clock: Clock) -> None:
        self.metrics = RequestMetrics()
        self._clock = clock
        self._statsd = None if settings.statsd is None else Statsd(settings.statsd, store, clock)
        self._traces = None if settings.tracing is None else new_traces(settings.tracing, clock)

    @property
    def meters(self) -> Sequence[Meter]:
        meters: list[Meter] = [self.metrics, AccessMeter()]
        if self._statsd is not None:
            meters.append(self._statsd.timers)
        if self._traces is not None:
            from api.tracing import TraceMeter

            meters.append(TraceMeter(self._traces))
        return meters

    def observe(self, app: Litestar, service: str) -> Litestar:
        """Changes the application and returns it."""
        app.asgi_handler = Observed(app.asgi_handler, service, self.metrics, self._clock)
        if self._traces is not None:
            from api.tracing import Traced

            app.asgi_handler = Traced(app.asgi_handler, service, self._traces)
        return app

    def start(self) -> None:
        if self._statsd is not None:
            self._statsd.start()

    async def close(self) -> None:
        if self._statsd is not None:
            await self._statsd.close()
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)


def new_traces(settings: TracingSettings, clock: Clock) -> Traces:
    from paddler.tracing.traces import Traces

    return Traces(settings, clock, new_process_id("balancer"))
