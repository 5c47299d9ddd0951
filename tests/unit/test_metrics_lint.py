"""The check of metrics finds what it is for."""

from __future__ import annotations

import pytest
from metrics_lint import faults_of


def family(name: str, kind: str, *samples: str) -> str:
    return "\n".join([f"# HELP {name} What.", f"# TYPE {name} {kind}", *samples, ""])


def test_what_is_well_formed_passes() -> None:
    text = family("paddler_a", "gauge", 'paddler_a{agent="x\\"y\\\\",pool="p"} 1.0', "paddler_a 2e-05")
    buckets = ('x_seconds_bucket{le="1.0"} 1.0', 'x_seconds_bucket{le="+Inf"} 2.0', "x_seconds_count 2.0")
    text += family("x_seconds", "histogram", *buckets, "x_seconds_sum 3.5")
    assert faults_of(text + family("c_total", "counter", "c_total 3")) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (family("a_total", "gauge", "a_total 1"), "_total"),
        (family("a", "counter", "a 1"), "_total"),
        (family("a_ms", "gauge", "a_ms 1"), "'ms'"),
        (family("a_milliseconds", "gauge", "a_milliseconds 1"), "milliseconds"),
        (family("a_seconds_left", "gauge", "a_seconds_left 1"), "does not end with seconds"),
        (family("a_gauge", "gauge", "a_gauge 1"), "'gauge'"),
        (family("aB", "gauge", "aB 1"), "snake_case"),
        (family("a_count", "gauge", "a_count 1"), "part of a histogram"),
        (family("a", "gauge", "b 1"), "own TYPE"),
        (family("a", "gauge", "a 1", "a 1"), "twice"),
        (family("a", "gauge", "a 1") * 2, "twice"),
        (family("a", "gauge", "a one"), "no sample"),
        (family("a", "gauge", 'a{x="a"b"} 1'), "no sample"),
        (family("a", "gauge", 'a{le="1"} 1'), "histograms have"),
        (family("a_total", "counter", "a_total -1"), "below 0"),
        ("# TYPE a gauge\na 1\n", "does not follow its HELP"),
        ("# HELP paddler_a What\n# TYPE paddler_a gauge\npaddler_a 1\n", "no sentence"),
        (family("a", "gauge", "a 1").rstrip("\n"), "last line"),
        (family("a", "histogram", 'a_bucket{le="1.0"} 3', 'a_bucket{le="+Inf"} 2', "a_count 2"), "go up"),
        (family("a", "histogram", 'a_bucket{le="1.0"} 1', 'a_bucket{le="+Inf"} 2', "a_count 3"), "+Inf"),
    ],
)
def test_what_is_not_is_named(text: str, fault: str) -> None:
    assert any(fault in found for found in faults_of(text)), faults_of(text)
