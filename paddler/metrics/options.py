"""Flags of what a process tells of itself, for balancer, worker and `paddler up`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import rich_click as click

from paddler.metrics.statsd import StatsdSettings
from paddler.settings import ADDRESS, Address, option

_F = TypeVar("_F", bound=Callable[..., Any])
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def _check_prefix(_context: click.Context, _param: click.Parameter, value: str) -> str:
    if not _PREFIX.fullmatch(value) or len(value) > 100:
        raise click.BadParameter(f"{value!r}: letters, digits, _ and -, with dots between them, at most 100.")
    return value


def statsd_options(function: _F) -> _F:
    """Adds `statsd_addr`, `statsd_prefix` and `statsd_reporting_interval`, the arguments of `statsd_of`."""
    for one in (
        option(
            "--statsd-reporting-interval",
            type=click.IntRange(min=100),
            default=10_000,
            help="Milliseconds between two reports to StatsD.",
        ),
        option(
            "--statsd-prefix",
            default="paddler",
            callback=_check_prefix,
            help="What every name in StatsD begins with, before a dot.",
        ),
        option(
            "--statsd-addr",
            type=ADDRESS,
            default=None,
            help="Report to StatsD here, over UDP; nothing is gathered without it.",
        ),
    ):
        function = one(function)
    return function


def statsd_of(addr: Address | None, prefix: str, interval_ms: int) -> StatsdSettings | None:
    """None: nothing is reported."""
    return None if addr is None else StatsdSettings(addr, prefix, interval_ms)
