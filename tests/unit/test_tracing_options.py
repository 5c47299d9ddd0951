"""When traces are sent, and where."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from api.serve import command
from paddler.metrics.options import statsd_of
from paddler.settings import Address
from paddler.tracing import options
from paddler.tracing.options import TracingSettings, tracing_of

BASE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}

EXACT = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://d/x"}


@pytest.mark.parametrize(
    ("flag", "environment", "expected"),
    [
        (None, {}, None),
        ("http://a:4318", {}, TracingSettings("http://a:4318/v1/traces", "paddler-agent")),
        ("http://a/v1/traces", BASE, TracingSettings("http://a/v1/traces", "paddler-agent")),
        (None, BASE, TracingSettings("http://c:4318/v1/traces", "paddler-agent")),
        (
            None,
            BASE | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://d/x"},
            TracingSettings("http://d/x", "paddler-agent"),
        ),
        ("http://a", {"OTEL_SERVICE_NAME": "mine"}, TracingSettings("http://a/v1/traces", "mine")),
        (None, BASE | {"OTEL_SDK_DISABLED": "True"}, None),
        (None, BASE | {"OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_where(flag: str | None, environment: dict[str, str], expected: TracingSettings | None) -> None:
    assert tracing_of(flag, environment, "agent") == expected


def test_without_the_extra_the_flag_is_refused_and_the_variables_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "is_installed", lambda: False)
    told = CliRunner().invoke(command, ["--otlp-endpoint", "http://127.0.0.1:4318"])
    assert told.exit_code == 2
    assert "pip install 'paddler[otel]'" in told.output
    # They may be meant for other programs of this machine.
    assert tracing_of(None, BASE, "agent") is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--otlp-endpoint", "127.0.0.1:4318"), "collector's URL"),
        (("--statsd-addr", "127.0.0.1"), "host:port"),
        (("--statsd-prefix", "a b"), "letters"),
        (("--statsd-prefix", "paddler."), "letters"),
        (("--statsd-reporting-interval", "5"), "100"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], words: str) -> None:
    told = CliRunner().invoke(command, list(arguments))
    assert told.exit_code == 2
    assert words in told.output


def test_no_address_no_reports() -> None:
    assert statsd_of(None, "paddler", 1000) is None
    settings = statsd_of(Address("a", 1), "paddler", 1000)
    assert settings is not None
    assert settings.sink == "a:1 paddler"
