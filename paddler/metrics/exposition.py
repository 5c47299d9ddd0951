"""Prometheus' text format, from what this process has counted and what was read of the fleet."""

from __future__ import annotations

import platform
from enum import StrEnum

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from paddler import __version__, logs
from paddler.metrics.fleet import FleetReading
from paddler.metrics.fleet_metrics import FleetCollector
from paddler.metrics.requests import RequestMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8; escaping=values"
"""As Paddler 4 has it."""


class Scope(StrEnum):
    """`PROCESS`: what only this process knows, to be summed over all; `FLEET`: the same wherever one asks."""

    PROCESS = "process"
    FLEET = "fleet"


class _Build:
    def collect(self) -> list[GaugeMetricFamily]:
        info = GaugeMetricFamily(
            "paddler_build_info", "The version of this process.", labels=("version", "python_version")
        )
        info.add_metric((__version__, platform.python_version()), 1)
        return [info]


class _Log:
    def collect(self) -> list[CounterMetricFamily]:
        name = "paddler_log_lines_dropped"
        what = "Lines of this process's log that were dropped, as nobody read them or they could not be written."
        return [CounterMetricFamily(name, what, value=logs.num_dropped())]


def render(requests: RequestMetrics, reading: FleetReading | None, *, with_process: bool = True) -> bytes:
    """`reading` None: the fleet is not asked about."""
    registry = CollectorRegistry()
    if with_process:
        registry.register(_Build())
        ProcessCollector(registry=registry)
        registry.register(_Log())
        registry.register(requests)
    if reading is not None:
        registry.register(FleetCollector(reading))
    return generate_latest(registry)
