"""Whether traces are sent, and where: `--otlp-endpoint`, or OpenTelemetry's own variables."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

import rich_click as click
from msgspec import Struct

from paddler.logs import get_logger
from paddler.settings import option

PATH = "/v1/traces"
MISSING = "traces need the extra `otel`: pip install 'paddler[otel]'"

log = get_logger(__name__)


class TracingSettings(Struct, frozen=True):
    """`url` takes POSTs of OTLP as protobuf; `service` is `service.name`."""

    url: str
    service: str


def _check(_context: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value!r}: a collector's URL, such as http://127.0.0.1:4318.")
    if not is_installed():
        raise click.BadParameter(f"{MISSING}.")
    return value


otlp_option = option(
    "--otlp-endpoint",
    metavar="URL",
    callback=_check,
    help="Send traces to this OpenTelemetry collector by OTLP over HTTP, such as http://127.0.0.1:4318.",
)
"""Adds `otlp_endpoint`, the first argument of `tracing_of`."""


def is_installed() -> bool:
    try:
        return (
            find_spec("opentelemetry.sdk") is not None
            and find_spec("opentelemetry.exporter.otlp.proto.http") is not None
        )
    except ModuleNotFoundError:
        return False


def tracing_of(endpoint: str | None, environment: Mapping[str, str], process: str) -> TracingSettings | None:
    """None: nothing is traced. The flag comes first; of OpenTelemetry's variables those that say where, who and whether
    are read here, the rest by its SDK. They may be set for all programs of a machine: without the extra that is said,
    and no more."""
    service = environment.get("OTEL_SERVICE_NAME") or f"paddler-{process}"
    if endpoint is not None:
        return TracingSettings(_with_path(endpoint), service)
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    url = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    if not url and (base := environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")):
        url = _with_path(base)
    if not url:
        return None
    if not is_installed():
        log.warning(f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {MISSING}")
        return None
    return TracingSettings(url, service)


def _with_path(base: str) -> str:
    base = base.rstrip("/")
    return base if base.endswith(PATH) else base + PATH
