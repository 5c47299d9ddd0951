"""What Prometheus and Grafana ask for is what Paddler tells. `tests/http/test_metrics.py` and `test_statsd.py` hold
docs/metrics.md to the code; here the files are held to docs/metrics.md, names and labels alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
import yaml
from container_files import DOCKER, ROOT, Json, documents, rendered

OWN_LABELS = {"job", "instance", "le"}
"""What Prometheus adds, and a histogram's own."""
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
PROMETHEUS = ("prometheus.yaml", "with-key.yaml")


def told() -> dict[str, set[str]]:
    """Names of series with their labels."""
    rows = re.findall(r"^\| `(paddler_\w+)` \| (\w+) \|([^|]*)\|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    assert len(rows) > 30
    labels = {
        (name, kind): {label.strip() for label in words.split(",") if label.strip()} for name, kind, words in rows
    }
    return {f"{name}{end}": found for (name, kind), found in labels.items() for end in SUFFIXES[kind]}


def told_by_statsd() -> set[str]:
    """What the mapping makes of the names."""
    rows = re.findall(r"^\| `paddler\.(\w+)` \| (gauge|timer) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    assert len(rows) == 10
    timers = [f"{name}_seconds{end}" for name, kind in rows if kind == "timer" for end in SUFFIXES["histogram"]]
    return {f"paddler_statsd_{name}" for name in [*timers, *(name for name, kind in rows if kind == "gauge")]}


def dashboard() -> Json:
    return json.loads((DOCKER / "grafana/dashboards/paddler.json").read_text())


def expressions() -> Iterator[tuple[str, str]]:
    """Every query there is, with where it stands."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]
    for group in read("prometheus/rules.yaml")["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]
    for found in rendered("keda-prometheus"):
        for trigger in found["spec"].get("triggers", []) if found["kind"] == "ScaledObject" else []:
            yield "keda-prometheus", trigger["metadata"]["query"]


def read(name: str) -> Json:
    return cast(Json, yaml.safe_load((DOCKER / name).read_text()))


def test_every_series_asked_for_exists() -> None:
    known = set(told()) | told_by_statsd()
    asked = [(where, name) for where, text in expressions() for name in re.findall(r"paddler_\w+", text)]
    assert len(asked) > 40
    assert [(where, name) for where, name in asked if name not in known] == []


def test_every_label_asked_for_exists() -> None:
    known = told() | {name: set[str]() for name in told_by_statsd()}
    asked = 0
    for where, text in expressions():
        for name, matchers in re.findall(r"(paddler_\w+)\{([^}]*)\}", text):
            labels = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', matchers))
            asked += len(labels)
            assert labels <= known[name] | OWN_LABELS, f"{where}: {name}"
        every: set[str] = set().union(*(known[name] for name in re.findall(r"paddler_\w+", text)))
        for by in re.findall(r"by \(([^)]*)\)", text):
            assert {label.strip() for label in by.split(",")} <= every | OWN_LABELS, where
    assert asked > 20


def test_legends_name_labels_that_are_left() -> None:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            kept = {label.strip() for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in by.split(",")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


def test_the_fleets_series_are_not_summed_over_balancers() -> None:
    """docs/metrics.md: each balancer tells the same of the fleet, a sum would count it twice."""
    for where, text in expressions():
        for name in re.findall(r"sum(?: by \([^)]*\))? ?\((paddler_\w+)", text):
            assert name.startswith(("paddler_request_", "paddler_http_")), f"{where}: sum({name})"


def test_panels_do_not_cover_one_another() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} on {taken[x, y]}"
                taken[x, y] = panel["title"]
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_dashboard_finds_its_source() -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read("grafana/provisioning/dashboards/paddler.yaml")["providers"]
    (compose,) = documents((DOCKER / "compose.yaml").read_text())
    mounts = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts


@pytest.mark.parametrize("name", PROMETHEUS)
def test_prometheus_asks_each_balancer_for_itself_and_one_for_the_fleet(name: str) -> None:
    jobs: dict[str, Any] = {job["job_name"]: job for job in read(f"prometheus/{name}")["scrape_configs"]}
    assert jobs["paddler"]["params"] == {"scope": ["process"]}
    assert jobs["paddler"]["dns_sd_configs"][0]["port"] == 8060
    assert jobs["paddler-fleet"]["params"] == {"scope": ["fleet"]}
    has_key = ["authorization" in jobs[job] for job in ("paddler", "paddler-fleet")]
    assert has_key == [name == "with-key.yaml"] * 2


def test_both_files_of_prometheus_are_alike_but_for_the_key() -> None:
    plain, keyed = (read(f"prometheus/{name}") for name in PROMETHEUS)
    for job in keyed["scrape_configs"]:
        job.pop("authorization", None)
    assert plain == keyed
